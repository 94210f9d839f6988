//! Samples for the log: recorded on the data path, written by a separate thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

use crossbeam_queue::ArrayQueue;
use xdpfwd_filter::{Addresses, Key, Rule};

/// Capacity of the queue of notes. Further notes are lost, and counted.
const WAITING: usize = 256;

/// The log that all workers share. Created with the plan, so that its thread does not run on a
/// worker's core.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter(Option<Arc<Handle>>);

/// The writer thread and its queue. The thread ends with the last handle.
#[derive(Debug)]
struct Handle {
    notes: Arc<Notes>,
    thread: Thread,
}

/// Notes to be written: a lock-free queue, because workers add to it.
#[derive(Debug)]
struct Notes {
    queue: ArrayQueue<Note>,
    is_closed: AtomicBool,
}

/// A worker's log.
#[derive(Debug)]
pub(super) struct Log {
    writer: LogWriter,
    lost: u64,
}

/// A sampled packet.
#[derive(Debug)]
struct Note {
    rule: u32,
    key: Key,
    bytes: usize,
}

impl LogWriter {
    /// Creates the log, with a thread if any rule has a `log` modifier.
    pub(crate) fn new<'r>(rules: impl IntoIterator<Item = &'r Rule> + Clone) -> Self {
        if rules.clone().into_iter().all(|rule| rule.log.is_none()) {
            return Self(None);
        }
        let shown: Vec<String> = rules
            .into_iter()
            .map(|rule| rule.log.map_or_else(String::new, |_| rule.to_string()))
            .collect();
        let notes =
            Arc::new(Notes { queue: ArrayQueue::new(WAITING), is_closed: AtomicBool::new(false) });
        let to_write = Arc::clone(&notes);
        let thread =
            thread::Builder::new().name("filter-log".into()).spawn(move || to_write.write(&shown));
        Self(thread.ok().map(|thread| Arc::new(Handle { notes, thread: thread.thread().clone() })))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.notes.is_closed.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Notes {
    /// Writes notes until the last stage of the plan is dropped.
    fn write(&self, rules: &[String]) {
        loop {
            // Load before draining: notes added before closing are still written.
            let is_last = self.is_closed.load(Ordering::Acquire);
            while let Some(note) = self.queue.pop() {
                note.write(rules);
            }
            if is_last {
                return;
            }
            // Returns at once if a note was added meanwhile.
            thread::park();
        }
    }
}

impl Log {
    pub(super) fn new(writer: &LogWriter) -> Self {
        Self { writer: writer.clone(), lost: 0 }
    }

    /// Records a packet. Only sampled packets get here, so waking the thread is not a per-packet
    /// cost.
    pub(super) fn note(&mut self, rule: u32, key: &Key, bytes: usize) {
        let sent = self.writer.0.as_ref().is_some_and(|handle| {
            // Check first: pushing to a full queue could spin until the writer finishes a pop.
            let queue = &handle.notes.queue;
            let pushed = !queue.is_full() && queue.push(Note { rule, key: *key, bytes }).is_ok();
            handle.thread.unpark();
            pushed
        });
        self.lost += u64::from(!sent);
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

impl Note {
    fn write(self, rules: &[String]) {
        let Self { rule, key, bytes } = self;
        let (source, destination) = match key.addresses {
            Addresses::V4 { source, destination } => {
                (std::net::IpAddr::V4(source.into()), std::net::IpAddr::V4(destination.into()))
            }
            Addresses::V6 { source, destination } => {
                (std::net::IpAddr::V6(source.into()), std::net::IpAddr::V6(destination.into()))
            }
        };
        let text = rules.get(rule as usize).map_or("", String::as_str);
        let (protocol, upper) = (key.protocol, format!("{:?}", key.l4));
        tracing::info!(rule, text, %source, %destination, protocol, upper, bytes, "filter");
    }
}
