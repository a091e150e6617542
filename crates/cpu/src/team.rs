//! The thread team: a fixed number of threads that run one job together, with a barrier between its steps.

use std::cell::UnsafeCell;
use std::fmt;
use std::hint;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use crate::follow::Follow;
use crate::turns::{Place, Turns};

/// How often a waiting thread looks before it offers its core: a few microseconds, which is what the schedule leaves
/// threads apart when each has a core of its own.
const SPINS: usize = 300;
/// How often it then offers its core before it sleeps. Where other programs leave the team fewer cores than it has
/// threads, the one waited for may need just this core.
const YIELDS: usize = 100;

/// Waits until a number that only grows has passed a mark: spins, then yields, then sleeps.
struct Signal {
    count: AtomicUsize,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Signal {
    fn new() -> Self {
        Signal {
            count: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        }
    }

    fn get(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn advance(&self) {
        // Sequentially consistent with `wait`: either the sleeper sees the new count or this sees the sleeper.
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = self.lock.lock().unwrap_or_else(|e| e.into_inner());
            self.wake.notify_all();
        }
    }

    /// Returns once the count differs from `seen`.
    fn wait(&self, seen: usize) {
        for _ in 0..SPINS {
            if self.get() != seen {
                return;
            }
            hint::spin_loop();
        }
        for _ in 0..YIELDS {
            thread::yield_now();
            if self.get() != seen {
                return;
            }
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(|e| e.into_inner());
        while self.count.load(Ordering::SeqCst) == seen {
            guard = self.wake.wait(guard).unwrap_or_else(|e| e.into_inner());
        }
        drop(guard);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the threads run; a pointer to a closure on the stack of [`Team::run`].
type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    threads: usize,
    /// Advances when a job starts.
    start: Signal,
    /// Advances when every thread has arrived at a barrier.
    barrier: Signal,
    arrived: AtomicUsize,
    job: UnsafeCell<Option<Job>>,
    stop: AtomicBool,
}

// SAFETY: `job` is written by the leader, of whom there is one at a time, only while all workers wait for `start`, which
// orders the accesses.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    fn barrier(&self) {
        if self.threads == 1 {
            return;
        }
        let seen = self.barrier.get();
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Release);
            self.barrier.advance();
        } else {
            self.barrier.wait(seen);
        }
    }
}

/// Threads that compute together, the one that has something to compute being one of them.
///
/// Clones are the same team: executors that share one take turns, step by step, in the order of asking, so that several
/// models in one process never compute at once. Between steps nothing is held. The threads end with the last clone.
#[derive(Clone)]
pub struct Team {
    shared: Arc<Shared>,
    crew: Arc<Crew>,
    place: Place,
    /// Who watches what this clone runs.
    follow: Option<Arc<Follow>>,
}

/// What is there once, whatever the number of clones.
struct Crew {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    turns: Turns,
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Team").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

impl Team {
    /// A team of so many threads, at least one: starts all but that of the caller.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            threads: threads.max(1),
            start: Signal::new(),
            barrier: Signal::new(),
            arrived: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            stop: AtomicBool::new(false),
        });
        // Dropped early, it ends the threads that were started.
        let mut crew = Crew { shared: Arc::clone(&shared), workers: Vec::new(), turns: Turns::default() };
        for thread in 1..shared.threads {
            let shared = Arc::clone(&shared);
            let builder = thread::Builder::new().name(format!("wushi-cpu-{thread}"));
            crew.workers.push(builder.spawn(move || work(&shared, thread))?);
        }
        Ok(Team { shared, crew: Arc::new(crew), place: Place::Front, follow: None })
    }

    /// The same team for work that gives way: the turns of others come first, and its own last some tens of milliseconds at
    /// most.
    pub fn background(&self) -> Team {
        Team { place: Place::Back, ..self.clone() }
    }

    /// The same team for work that `follow` watches, and stops.
    pub fn followed(&self, follow: Arc<Follow>) -> Team {
        Team { follow: Some(follow), ..self.clone() }
    }

    pub(crate) fn follow(&self) -> Option<&Follow> {
        self.follow.as_deref()
    }

    /// Whether who watches wants an end.
    pub(crate) fn stopped(&self) -> bool {
        self.follow().is_some_and(Follow::stopped)
    }

    /// Whether its work gives way.
    pub(crate) fn gives_way(&self) -> bool {
        self.place == Place::Back
    }

    /// How many threads compute together.
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Runs `job(thread)` on every thread in one turn, after the jobs of those that asked before, and returns when all are
    /// done. It should be short where the team is in the background, must not run another, and its panic ends the process.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        let _turn = self.crew.turns.take(self.place);
        // SAFETY: only extends the lifetime in the type; the final barrier keeps it true.
        let pointer = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        // SAFETY: all workers wait for `start`, as the turn before ended with the final barrier.
        unsafe { *self.shared.job.get() = Some(pointer) };
        self.shared.start.advance();
        let abort = AbortOnUnwind;
        job(0);
        std::mem::forget(abort);
        self.shared.barrier();
    }

    /// To be called by every thread of a running job: returns when all have called it.
    pub(crate) fn barrier(&self) -> impl Fn() + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.barrier()
    }
}

/// Ends the process when dropped, that is when a job panics; the panic's message has been printed by then.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}

fn work(shared: &Shared, thread: usize) {
    let mut seen = 0;
    loop {
        shared.start.wait(seen);
        seen += 1;
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        // SAFETY: the leader wrote it before it advanced `start`, and keeps it alive until the final barrier.
        let job = unsafe { (*shared.job.get()).map(|job| &*job) };
        // Nobody may run on after a panic: the others would wait for this thread at a barrier for ever, and the
        // leader's stack holds the job.
        let abort = AbortOnUnwind;
        if let Some(job) = job {
            job(thread);
        }
        std::mem::forget(abort);
        shared.barrier();
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.start.advance();
        for worker in self.workers.drain(..) {
            // A worker's panic has aborted the process; there is nothing to learn here.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_meet_at_every_barrier() {
        for threads in [1, 2, 5] {
            let team = Team::new(threads).unwrap();
            let barrier = team.barrier();
            let counters: Vec<AtomicUsize> = (0..50).map(|_| AtomicUsize::new(0)).collect();
            for round in 1..20 {
                team.run(&|_| {
                    for counter in &counters {
                        counter.fetch_add(1, Ordering::Relaxed);
                        barrier();
                        assert_eq!(counter.load(Ordering::Relaxed), round * threads);
                    }
                });
            }
        }
    }

    #[test]
    fn jobs_of_several_callers_never_meet() {
        let team = Team::new(3).unwrap();
        let running = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                let (team, running) = (team.clone(), &running);
                scope.spawn(move || {
                    let barrier = team.barrier();
                    for _ in 0..50 {
                        team.run(&|_| {
                            running.fetch_add(1, Ordering::Relaxed);
                            barrier();
                            assert_eq!(running.load(Ordering::Relaxed), 3);
                            barrier();
                            running.fetch_sub(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(running.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_sleeping_team_wakes() {
        let team = Team::new(3).unwrap();
        let count = AtomicUsize::new(0);
        for _ in 0..3 {
            thread::sleep(std::time::Duration::from_millis(5));
            team.run(&|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(count.load(Ordering::Relaxed), 9);
    }
}
