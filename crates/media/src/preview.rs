//! A frame in a terminal: upper half-blocks, whose foreground is one pixel and whose background the one below it.

use std::fmt::Write;

/// Draws a frame with `▀` and 24-bit colours, at most `columns` wide, one line of text for two rows of pixels. Every line
/// ends with the colours reset and a line feed.
///
/// A drawn pixel is the mean of those it covers. A picture that is narrower than the terminal is not made larger, and a
/// frame that is not `height * width * 3` bytes gives no text.
pub fn preview(rgb: &[u8], width: u32, height: u32, columns: usize) -> String {
    let (width, height) = (width as usize, height as usize);
    let expected = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(3));
    if expected != Some(rgb.len()) || rgb.is_empty() || columns == 0 {
        return String::new();
    }
    let columns = columns.min(width);
    // A character is about twice as high as it is wide, so drawn pixels are square.
    let lines = (height * columns).div_ceil(2 * width).max(1);
    let rows = (2 * lines).min(height.next_multiple_of(2));
    let mut text = String::with_capacity(lines * columns * 24);
    for line in 0..rows / 2 {
        let mut before = None;
        for column in 0..columns {
            let across = span(column, columns, width);
            let [upper, lower] =
                [2 * line, 2 * line + 1].map(|row| mean(rgb, width, across.clone(), span(row, rows, height)));
            if before.is_none_or(|(colour, _)| colour != upper) {
                let [r, g, b] = upper;
                let _ = write!(text, "\x1b[38;2;{r};{g};{b}m");
            }
            if before.is_none_or(|(_, colour)| colour != lower) {
                let [r, g, b] = lower;
                let _ = write!(text, "\x1b[48;2;{r};{g};{b}m");
            }
            before = Some((upper, lower));
            text.push('▀');
        }
        text.push_str("\x1b[0m\n");
    }
    text
}

/// What a drawn row or column covers: at least one, and no two the same unless there are fewer than drawn.
fn span(at: usize, drawn: usize, of: usize) -> std::ops::Range<usize> {
    let begin = at * of / drawn;
    begin..((at + 1) * of / drawn).max(begin + 1)
}

fn mean(rgb: &[u8], width: usize, across: std::ops::Range<usize>, down: std::ops::Range<usize>) -> [u8; 3] {
    let count = (across.len() * down.len()) as u64;
    let mut sum = [count / 2; 3];
    for row in down {
        for pixel in rgb[3 * (row * width + across.start)..3 * (row * width + across.end)].chunks_exact(3) {
            for (sum, channel) in sum.iter_mut().zip(pixel) {
                *sum += u64::from(*channel);
            }
        }
    }
    sum.map(|sum| (sum / count) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pixels_are_a_character() {
        let rgb = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [1, 2, 3]].concat();
        assert_eq!(
            preview(&rgb, 2, 2, 80),
            "\x1b[38;2;255;0;0m\x1b[48;2;0;0;255m▀\x1b[38;2;0;255;0m\x1b[48;2;1;2;3m▀\x1b[0m\n"
        );
    }

    #[test]
    fn a_colour_is_said_once_in_a_line() {
        let line = format!("\x1b[38;2;9;9;9m\x1b[48;2;9;9;9m{}\x1b[0m\n", "▀".repeat(40));
        assert_eq!(preview(&[9; 80 * 48 * 3], 80, 48, 40), line.repeat(12));
    }

    #[test]
    fn a_drawn_pixel_is_a_mean() {
        // Each square of 2×2 has the levels 0, 100, 101 and 200.
        let rows = [[0, 100], [101, 200]].map(|row| row.map(|level| [level; 3].to_vec()).concat().repeat(4));
        let rgb = [rows[0].clone(), rows[1].clone()].concat().repeat(4);
        let text = preview(&rgb, 8, 8, 4);
        assert_eq!(text.matches("▀").count(), 8);
        assert_eq!(text.matches("2;100;100;100m").count(), 4, "{text:?}");
    }

    #[test]
    fn odd_sizes_narrow_terminals_and_wrong_frames() {
        for (width, height, columns) in
            [(1, 1, 1), (3, 5, 80), (7, 3, 2), (100, 1, 10), (1, 100, 10), (32, 48, 1)]
        {
            let text = preview(&vec![7; (width * height * 3) as usize], width, height, columns);
            let wide = columns.min(width as usize);
            assert!(
                !text.is_empty() && text.lines().all(|line| line.matches('▀').count() == wide),
                "{width}x{height}"
            );
        }
        assert_eq!(preview(&[0; 11], 2, 2, 80), "");
        assert_eq!(preview(&[0; 12], 2, 2, 0), "");
        assert_eq!(preview(&[], 0, 5, 80), "");
        assert_eq!(preview(&[], u32::MAX, u32::MAX, 80), "");
    }
}
