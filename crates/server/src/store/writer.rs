//! The thread that writes records: one transaction for all that came while the last one was flushed to the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::Store;
use super::audit::{ended_on, insert, insert_error, number};
use super::error::StoreError;
use super::limits::Counters;
use super::record::AuditRecord;

/// Records that may wait to be written. A server whose disk cannot follow slows down rather than fill its memory.
const WAITING: usize = 4096;

/// The most records of a transaction.
const GROUP: usize = 512;

/// Records removed in one transaction, so that others wait for milliseconds only.
const PRUNED: i64 = 1000;

/// Called once the record is on the disk, or will never be.
type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

pub(super) enum Job {
    Record(Box<AuditRecord>, Done),
    Prune { older_than: u64, reply: Sender<Result<u64, StoreError>> },
}

/// The thread and the way to it. Dropping it writes what waits.
pub(super) struct Writer {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(
        path: PathBuf,
        connection: Connection,
        counters: Arc<Counters>,
    ) -> Result<Writer, StoreError> {
        let (sender, receiver) = sync_channel(WAITING);
        let mut worker = Worker { path, connection, counters };
        let thread = std::thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || worker.run(&receiver))
            .map_err(|error| StoreError::System { what: "thread", why: error.to_string() })?;
        Ok(Writer { jobs: Some(sender), thread: Some(thread) })
    }

    /// Gives the job back if the thread has ended.
    pub(super) fn send(&self, job: Job) -> Result<(), Job> {
        match &self.jobs {
            Some(jobs) => jobs.send(job).map_err(|refused| refused.0),
            None => Err(job),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // If it panicked, that was said already, and every `Done` it had was dropped.
            let _ = thread.join();
        }
    }
}

struct Worker {
    path: PathBuf,
    connection: Connection,
    counters: Arc<Counters>,
}

impl Worker {
    fn run(&mut self, jobs: &Receiver<Job>) {
        let mut next = jobs.recv().ok();
        while let Some(job) = next.take() {
            match job {
                Job::Prune { older_than, reply } => {
                    // Whoever asked may not want to know any more.
                    let _ = reply.send(self.prune(older_than));
                }
                Job::Record(record, done) => {
                    let mut group = vec![(record, done)];
                    while group.len() < GROUP {
                        match jobs.try_recv() {
                            Ok(Job::Record(record, done)) => group.push((record, done)),
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.write(group);
                }
            }
            if next.is_none() {
                next = jobs.recv().ok();
            }
        }
    }

    /// Writes a group and says so to everyone who waits.
    fn write(&mut self, group: Vec<(Box<AuditRecord>, Done)>) {
        let records: Vec<&AuditRecord> = group.iter().map(|(record, _)| &**record).collect();
        let written = write(&mut self.connection, &self.path, &records);
        let results: Vec<Result<u64, StoreError>> = match written {
            Ok(results) => results,
            Err(error) => {
                let error = StoreError::sqlite(&self.path, error);
                tracing::error!(records = group.len(), "records are lost: {error}");
                group.iter().map(|_| Err(error.clone())).collect()
            }
        };
        for ((record, done), result) in group.into_iter().zip(results) {
            if let (Some(key), Ok(total)) = (&record.key, &result) {
                let tokens = record.prompt_tokens() + record.completion_tokens();
                self.counters.committed(key, ended_on(&record), tokens, *total);
            }
            // The next records are written even if somebody cannot bear to hear of this one.
            let told = catch_unwind(AssertUnwindSafe(|| done(result.map(drop))));
            if told.is_err() {
                tracing::error!(record = record.id, "what a record's end was told to has panicked");
            }
        }
    }

    fn prune(&mut self, older_than: u64) -> Result<u64, StoreError> {
        let mut removed = 0;
        let delete = "DELETE FROM audit WHERE number IN (SELECT number FROM audit WHERE time < ? LIMIT ?)";
        let mut pruned = || -> rusqlite::Result<u64> {
            loop {
                let count = self.connection.execute(delete, [number(older_than), PRUNED])? as u64;
                removed += count;
                if count < PRUNED as u64 {
                    break;
                }
            }
            // The log has the old pages still. Where a reader is in the way, a later checkpoint overwrites them.
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            Ok(removed)
        };
        pruned().map_err(|error| StoreError::sqlite(&self.path, error))
    }
}

/// One transaction. The outer error says that none of them was written, an inner one that this record was not.
fn write(
    connection: &mut Connection,
    path: &Path,
    records: &[&AuditRecord],
) -> rusqlite::Result<Vec<Result<u64, StoreError>>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut results = Vec::with_capacity(records.len());
    for record in records {
        results.push(match insert(&transaction, record) {
            Ok(total) => Ok(total),
            // The statement has undone itself, the others stand.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                let error = insert_error(path, record, error);
                tracing::error!("a record is lost: {error}");
                Err(error)
            }
            Err(error) => return Err(error),
        });
    }
    transaction.commit()?;
    Ok(results)
}

impl Store {
    /// Appends a record and adds it to its key's usage; both at once or neither. Returns as soon as it is queued (which it
    /// waits for only while 4096 others are); `done` is called on the writing thread when it is on the disk, and must not
    /// block. What `done` was told of is never lost, however the process ends; what is still queued is lost if it is killed,
    /// not if the store is dropped.
    pub fn record(&self, record: AuditRecord, done: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
        if let Some(key) = &record.key {
            self.counters.pending(
                key,
                ended_on(&record),
                record.prompt_tokens() + record.completion_tokens(),
            );
        }
        let refused = self.writer.send(Job::Record(Box::new(record), Box::new(done)));
        if let Err(Job::Record(_, done)) = refused {
            done(Err(self.closed()));
        }
    }

    /// [`Store::record`], and waits until it is on the disk.
    ///
    /// # Errors
    /// A record with this id is there, or no key has the record's; the database's.
    pub fn record_and_wait(&self, record: AuditRecord) -> Result<(), StoreError> {
        let (sender, receiver) = channel();
        self.record(record, move |result| {
            // The receiver waits below.
            let _ = sender.send(result);
        });
        receiver.recv().unwrap_or_else(|_| Err(self.closed()))
    }

    /// Removes the records of requests that came before `older_than` (milliseconds since 1970-01-01 UTC), so that nothing of
    /// them stays in the file; usage stays. Gives how many there were.
    ///
    /// # Errors
    /// The database's. What was removed until then stays removed.
    pub fn prune(&self, older_than: u64) -> Result<u64, StoreError> {
        let (reply, receiver) = channel();
        match self.writer.send(Job::Prune { older_than, reply }) {
            Ok(()) => receiver.recv().unwrap_or_else(|_| Err(self.closed())),
            Err(_) => Err(self.closed()),
        }
    }

    fn closed(&self) -> StoreError {
        StoreError::Closed { path: self.path.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use super::*;
    use crate::store::{Digest, Loading, Parameters, Status, schema};

    fn record(id: &str, bytes: usize) -> Box<AuditRecord> {
        Box::new(AuditRecord {
            id: id.to_owned(),
            time: 0,
            key: None,
            endpoint: "x".repeat(bytes),
            model: String::new(),
            model_digest: None,
            fingerprint: Digest([0; 32]),
            loading: Loading::default(),
            parameters: Parameters::default(),
            prompts: Vec::new(),
            choices: Vec::new(),
            cached_tokens: 0,
            queue_ms: 0,
            ttft_ms: None,
            total_ms: 0,
            status: Status::Ok,
            text: None,
        })
    }

    /// Writes records of so many bytes in one group; gives what each was told.
    fn write(worker: &mut Worker, group: &[(&str, usize)]) -> Vec<Result<(), StoreError>> {
        let (sender, receiver): (_, Receiver<Result<(), StoreError>>) = channel();
        let told = |sender: Sender<_>| -> Done { Box::new(move |result| drop(sender.send(result))) };
        worker.write(group.iter().map(|&(id, bytes)| (record(id, bytes), told(sender.clone()))).collect());
        drop(sender);
        receiver.iter().collect()
    }

    #[test]
    fn a_full_disk_loses_what_it_says_and_nothing_else() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("server.sqlite");
        let connection = schema::open(&path).unwrap();
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        let mut worker = Worker { path: path.clone(), connection, counters: Arc::default() };
        assert!(write(&mut worker, &[("a", 10)]).iter().all(Result::is_ok));
        let room = |worker: &Worker, pages: i64| {
            let set = format!("PRAGMA max_page_count = {pages}");
            worker.connection.query_row(&set, [], |_| Ok(())).unwrap();
        };
        room(&worker, pages + 2);
        let told = write(&mut worker, &[("b", 10), ("c", 1 << 20), ("d", 10)]);
        assert_eq!(told.len(), 3);
        for result in told {
            assert!(matches!(result, Err(StoreError::Full { .. })), "{result:?}");
        }
        room(&worker, 1 << 20);
        assert!(write(&mut worker, &[("e", 10), ("b", 10)]).iter().all(Result::is_ok));
        let ids: String = worker
            .connection
            .query_row("SELECT group_concat(id, '') FROM (SELECT id FROM audit ORDER BY number)", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(ids, "aeb");
    }
}
