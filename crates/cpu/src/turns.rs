//! Turns: one holder at a time, in the order of asking.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Hands out turns. Whoever has to wait sleeps.
#[derive(Default)]
pub(crate) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The next number to be given.
    next: u64,
    /// The number whose turn it is, if it was given already.
    now: u64,
}

/// A turn that ends when dropped, be it by a panic.
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits until all that asked before are done.
    pub(crate) fn take(&self) -> Turn<'_> {
        let mut state = self.state();
        let mine = state.next;
        state.next += 1;
        while state.now != mine {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Turn(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Both numbers are whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.now += 1;
        if state.now != state.next {
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
                state.next - state.now < count
            } {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    #[test]
    fn turns_come_in_the_order_of_asking() {
        let (turns, order) = (Turns::default(), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            let held = turns.take();
            for i in 0..5 {
                scope.spawn({
                    let (turns, order) = (&turns, &order);
                    move || {
                        let _turn = turns.take();
                        order.lock().unwrap().push(i);
                    }
                });
                turns.until_asked(i + 2);
            }
            drop(held);
            // Who comes back at once comes after those that wait.
            let _again = turns.take();
            order.lock().unwrap().push(9);
        });
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 9]);
    }

    #[test]
    fn a_panic_ends_a_turn() {
        let turns = Turns::default();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _turn = turns.take();
            panic!("in a turn");
        }));
        assert!(panicked.is_err());
        drop(turns.take());
        thread::scope(|scope| {
            let held = turns.take();
            let waiting = scope.spawn(|| {
                let _turn = turns.take();
                panic!("in a turn that was waited for");
            });
            turns.until_asked(2);
            drop(held);
            assert!(waiting.join().is_err());
        });
        drop(turns.take());
    }
}
