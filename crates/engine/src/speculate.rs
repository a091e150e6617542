//! Which tokens are likely to come next, and whether trying them is worth its price.
//!
//! An answer often repeats what prompt or answer say already: names, quotations, code to be changed. So what
//! followed the latest occurrence of the last few tokens is a good guess (prompt lookup, Saxena 2023). Guessed
//! tokens are rows of the next step; every row's token is chosen as ever, with the random number of its own
//! position, and rows behind a wrong guess are forgotten. Hence answers and digests are those without guessing.

use std::collections::HashMap;

/// The most tokens guessed at once.
const MOST: usize = 15;

/// What one row more costs, in hundredths of a step of one row. With few rows a step's time is that of reading the
/// weights; measured with models of 4 bits on two cores it was 6 to 17.
pub(crate) const ROW_COST: usize = 15;

/// A step, as far as its price and yield matter.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    /// Rows it has.
    pub(crate) rows: usize,
    /// Tokens of answers that are expected of it.
    pub(crate) tokens: f32,
    /// What one row more costs, as a share of a step of one row.
    pub(crate) row_cost: f32,
}

impl Step {
    /// Tokens in the time of a step of one row.
    fn speed(self) -> f32 {
        self.tokens / (1.0 + self.row_cost * (self.rows as f32 - 1.0))
    }

    /// The step with `count` guesses more, each right with this chance if those before it are.
    fn with(self, count: usize, chance: f32) -> Step {
        let right = (1..=count).fold((0.0, 1.0), |(sum, all): (f32, f32), _| {
            let all = all * chance;
            (sum + all, all)
        });
        Step { rows: self.rows + count, tokens: self.tokens + right.0, ..self }
    }

    /// How many guesses, at most `most`, make the step yield most for its time. Adds them to the step.
    pub(crate) fn add_guesses(&mut self, most: usize, chance: f32) -> usize {
        let (mut best, mut best_count) = (*self, 0);
        for count in 1..=most.min(MOST) {
            let step = self.with(count, chance);
            if step.speed() > best.speed() {
                (best, best_count) = (step, count);
            }
        }
        *self = best;
        best_count
    }
}

/// Tokens that must match before a guess is made, at least and at most as far as the index knows.
const GRAM: usize = 3;
/// Stands for the token before a pair, which no token is.
const PAIR: u32 = u32::MAX;
/// Longer matches are not told apart.
const LONG: usize = 16;
/// The chances to begin with, by [`class`].
const CHANCES: [f32; 5] = [0.2, 0.4, 0.6, 0.8, 0.9];
/// The weight of the latest guess in its chance.
const WEIGHT: f32 = 1.0 / 8.0;

/// Matches of similar length, whose guesses share a chance.
fn class(matched: usize) -> usize {
    match matched {
        0..GRAM => 0,
        GRAM => 1,
        4..8 => 2,
        8..LONG => 3,
        LONG.. => 4,
    }
}

/// The text that the latest tokens agree with.
#[derive(Clone, Copy)]
struct Match {
    /// Where it goes on.
    next: usize,
    /// Tokens that agree.
    length: usize,
}

/// Guesses for one sequence.
///
/// The chances of being right are counted for every token, tried or not, which costs next to nothing.
pub(crate) struct Guesser {
    /// Where the latest occurrence of three or two tokens goes on.
    index: HashMap<[u32; GRAM], u32>,
    /// Tokens looked at so far.
    seen: usize,
    found: Option<Match>,
    chances: [f32; CHANCES.len()],
}

impl Guesser {
    pub(crate) fn new() -> Self {
        Guesser { index: HashMap::new(), seen: 0, found: None, chances: CHANCES }
    }

    /// Looks at the tokens that have been added; the first `prompt` are no answer.
    pub(crate) fn look(&mut self, tokens: &[u32], prompt: usize) {
        for at in self.seen..tokens.len() {
            if let Some(Match { next, length }) = self.found {
                let right = tokens[next] == tokens[at];
                let chance = &mut self.chances[class(length)];
                *chance += WEIGHT * (f32::from(u8::from(right)) - *chance);
                self.found = right.then_some(Match { next: next + 1, length: length + 1 });
            }
            // Only now is it known how what came before goes on.
            for gram in grams(&tokens[..at]).into_iter().flatten() {
                self.index.insert(gram, at as u32);
            }
            if self.found.is_none() && at + 1 >= prompt {
                self.found = self.find(&tokens[..=at]);
            }
        }
        self.seen = tokens.len();
    }

    /// The latest text that agrees with the last three tokens, or else two.
    fn find(&self, tokens: &[u32]) -> Option<Match> {
        let next = *grams(tokens).iter().flatten().find_map(|gram| self.index.get(gram))? as usize;
        let pairs = tokens[..next].iter().rev().zip(tokens.iter().rev());
        Some(Match { next, length: pairs.take(LONG).take_while(|(a, b)| a == b).count() })
    }

    /// The chance that the next guess is right; `None` if there is none.
    pub(crate) fn chance(&self) -> Option<f32> {
        self.found.map(|found| self.chances[class(found.length)])
    }

    /// The next `count` tokens, if all goes on as it did before.
    pub(crate) fn guess(&self, tokens: &[u32], count: usize, guesses: &mut Vec<u32>) {
        guesses.clear();
        let Some(Match { next, .. }) = self.found else { return };
        for at in next..next + count {
            // Where the answer repeats itself the guesses go on from each other.
            guesses.push(if at < tokens.len() { tokens[at] } else { guesses[at - tokens.len()] });
        }
    }
}

/// The keys of the last three and the last two tokens.
fn grams(tokens: &[u32]) -> [Option<[u32; GRAM]>; 2] {
    let pair = tokens.last_chunk().map(|&[a, b]| [PAIR, a, b]);
    [tokens.last_chunk().copied(), pair]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guesses(tokens: &[u32], prompt: usize, count: usize) -> Vec<u32> {
        let (mut guesser, mut guesses) = (Guesser::new(), Vec::new());
        guesser.look(tokens, prompt);
        guesser.guess(tokens, count, &mut guesses);
        guesses
    }

    #[test]
    fn what_followed_last_time() {
        assert_eq!(guesses(&[1, 2, 3, 4, 5, 6, 1, 2], 8, 3), [3, 4, 5]);
        // The latest occurrence counts, of three tokens rather than of two.
        assert_eq!(guesses(&[1, 2, 7, 1, 2, 8, 1, 2], 8, 1), [8]);
        assert_eq!(guesses(&[5, 1, 2, 7, 6, 1, 2, 8, 5, 1, 2], 11, 1), [7]);
        // One token alone says nothing, and neither does what never came up.
        assert!(guesses(&[1, 2, 3, 1], 4, 3).is_empty());
        assert!(guesses(&[1, 2, 3, 4], 4, 3).is_empty());
        assert!(guesses(&[1], 1, 3).is_empty());
        // A repetition goes on from itself.
        assert_eq!(guesses(&[9, 1, 2, 3, 1, 2, 3], 7, 7), [1, 2, 3, 1, 2, 3, 1]);
        assert_eq!(guesses(&[4, 4, 4], 3, 5), [4; 5]);
    }

    #[test]
    fn looking_in_pieces_is_looking_at_once() {
        let tokens: Vec<u32> = (0..200u32).map(|at| at * at % 7 + at % 3).collect();
        let mut pieces = Guesser::new();
        for end in (50..=200).step_by(3) {
            pieces.look(&tokens[..end], 50);
            let mut whole = Guesser::new();
            whole.look(&tokens[..end], 50);
            assert_eq!((pieces.chance(), pieces.chances), (whole.chance(), whole.chances));
            assert_eq!(pieces.index, whole.index);
        }
    }

    #[test]
    fn chances_follow_what_comes() {
        let mut tokens: Vec<u32> = (0..40).collect();
        let mut guesser = Guesser::new();
        tokens.extend([0, 1]);
        guesser.look(&tokens, 42);
        assert_eq!(guesser.chance(), Some(CHANCES[0]));
        tokens.extend(2..30);
        guesser.look(&tokens, 42);
        assert!(guesser.chance() > Some(CHANCES[4]));
        tokens.push(99);
        guesser.look(&tokens, 42);
        assert_eq!(guesser.chance(), None);
        assert!(guesser.chances[0] > CHANCES[0] && guesser.chances[4] < 1.0);
    }

    #[test]
    fn the_fuller_the_step_the_surer_a_guess_must_be() {
        let count_at = |row_cost, rows: usize, chance| {
            let mut step = Step { rows, tokens: rows as f32, row_cost };
            let count = step.add_guesses(64, chance);
            assert_eq!(step.rows, rows + count);
            count
        };
        let count = |rows, chance| count_at(ROW_COST as f32 / 100.0, rows, chance);
        assert_eq!(count(1, 0.1), 0);
        assert!(count(1, 0.5) >= 1);
        assert_eq!(count(1, 1.0), MOST);
        assert_eq!(count(16, 0.6), 0);
        assert!(count(16, 0.95) >= 1);
        // Where every row costs a step of its own there is nothing to be gained.
        assert_eq!((count_at(0.6, 1, 0.5), count_at(1.0, 1, 0.99)), (0, 0));
        let counts: Vec<_> = (0..=100).map(|percent| count(1, percent as f32 / 100.0)).collect();
        assert!(counts.is_sorted());
    }
}
