//! How a caller watches a pull.

/// What a pull reports while it works; the caller draws it.
///
/// Calls come from the thread that pulls: any number of [`message`](Progress::message)s, and for every stretch of
/// bytes [`start`](Progress::start), some [`advance`](Progress::advance)s, [`finish`](Progress::finish).
pub trait Progress {
    /// Something a person would want to know: which source is tried, why the next one is, that another process is
    /// being waited for. One line, no line break.
    fn message(&self, text: &str);

    /// A stretch of bytes begins: what it is (one or two words), its whole length in bytes if known, and how many
    /// of them are here already from an earlier pull.
    fn start(&self, what: &str, total: Option<u64>, done: u64);

    /// So many more bytes.
    fn advance(&self, bytes: u64);

    /// The stretch that was started last is over, completed or not.
    fn finish(&self);
}

/// Reports nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn message(&self, _: &str) {}
    fn start(&self, _: &str, _: Option<u64>, _: u64) {}
    fn advance(&self, _: u64) {}
    fn finish(&self) {}
}

/// Ends a stretch of bytes when it goes out of scope, on the error paths too.
pub(crate) struct Stretch<'a>(&'a dyn Progress);

impl<'a> Stretch<'a> {
    pub(crate) fn start(
        progress: &'a dyn Progress,
        what: &str,
        total: Option<u64>,
        done: u64,
    ) -> Stretch<'a> {
        progress.start(what, total, done);
        Stretch(progress)
    }

    pub(crate) fn advance(&self, bytes: u64) {
        self.0.advance(bytes);
    }
}

impl Drop for Stretch<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}
