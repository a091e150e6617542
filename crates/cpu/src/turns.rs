//! Turns: one holder at a time, in the order of asking, those in the background after all others.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many turns of others a waiting one in the background lets pass at most.
const PATIENCE: usize = 16;

/// Who asks for a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Those somebody waits for.
    Front = 0,
    /// Those that take the time that others leave.
    Back = 1,
}

/// Hands out turns. Whoever has to wait sleeps.
#[derive(Default)]
pub(crate) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By place.
    queues: [Queue; 2],
    taken: bool,
    /// Turns in front since somebody waits in the back.
    passed: usize,
}

#[derive(Default)]
struct Queue {
    /// The next number to be given.
    next: u64,
    /// The first number that has not had its turn.
    now: u64,
}

impl Queue {
    fn waits(&self) -> bool {
        self.now != self.next
    }
}

impl State {
    /// Whose turn is next.
    fn place(&self) -> Place {
        let [front, back] = &self.queues;
        let patient = self.passed < PATIENCE || !back.waits();
        if front.waits() && patient { Place::Front } else { Place::Back }
    }
}

/// A turn that ends when dropped, be it by a panic.
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits until all that asked before at the same place are done; in the back, until nobody waits in front or
    /// [`PATIENCE`] has ended.
    pub(crate) fn take(&self, place: Place) -> Turn<'_> {
        let mut state = self.state();
        let queue = &mut state.queues[place as usize];
        let mine = queue.next;
        queue.next += 1;
        while state.taken || state.place() != place || state.queues[place as usize].now != mine {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.taken = true;
        state.queues[place as usize].now += 1;
        let passes = place == Place::Front && state.queues[Place::Back as usize].waits();
        state.passed = if passes { state.passed + 1 } else { 0 };
        Turn(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.taken = false;
        if state.queues.iter().any(Queue::waits) {
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;
    use std::time::Duration;

    use super::*;

    impl Turns {
        /// Returns once so many have a turn or wait for one.
        fn until_asked(&self, count: u64) {
            while {
                let state = self.state();
                let waiting: u64 = state.queues.iter().map(|queue| queue.next - queue.now).sum();
                waiting + u64::from(state.taken) < count
            } {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    #[test]
    fn turns_come_in_the_order_of_asking() {
        let (turns, order) = (Turns::default(), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            let held = turns.take(Place::Front);
            for i in 0..5 {
                scope.spawn({
                    let (turns, order) = (&turns, &order);
                    move || {
                        let _turn = turns.take(Place::Front);
                        order.lock().unwrap().push(i);
                    }
                });
                turns.until_asked(i + 2);
            }
            drop(held);
            // Who comes back at once comes after those that wait.
            let _again = turns.take(Place::Front);
            order.lock().unwrap().push(9);
        });
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 9]);
    }

    #[test]
    fn the_background_comes_last_but_comes() {
        let (turns, order) = (Turns::default(), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            let held = turns.take(Place::Front);
            let places = [vec![Place::Back], vec![Place::Front; PATIENCE + 3]].concat();
            for (i, place) in places.into_iter().enumerate() {
                scope.spawn({
                    let (turns, order) = (&turns, &order);
                    move || {
                        let _turn = turns.take(place);
                        order.lock().unwrap().push(i);
                    }
                });
                turns.until_asked(i as u64 + 2);
            }
            drop(held);
        });
        let order = order.into_inner().unwrap();
        assert_eq!(order.iter().position(|&i| i == 0), Some(PATIENCE));
        let front: Vec<usize> = order.into_iter().filter(|&i| i != 0).collect();
        assert!(front.is_sorted());
        // Who waits alone does not wait for long.
        drop(turns.take(Place::Back));
    }

    #[test]
    fn a_panic_ends_a_turn() {
        let turns = Turns::default();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _turn = turns.take(Place::Front);
            panic!("in a turn");
        }));
        assert!(panicked.is_err());
        drop(turns.take(Place::Front));
        thread::scope(|scope| {
            let held = turns.take(Place::Front);
            let waiting = scope.spawn(|| {
                let _turn = turns.take(Place::Front);
                panic!("in a turn that was waited for");
            });
            turns.until_asked(2);
            drop(held);
            assert!(waiting.join().is_err());
        });
        drop(turns.take(Place::Front));
    }
}
