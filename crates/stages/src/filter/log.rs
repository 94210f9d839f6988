//! Samples of packets for the log: every n-th packet that a rule with `log 1/n` matches. Workers
//! record samples, and a separate thread writes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

use crossbeam_queue::ArrayQueue;
use xdpfwd_filter::{Addresses, Key, Rule};

/// Maximum samples that wait to be written. Further samples are counted as lost.
const QUEUE_CAPACITY: usize = 256;

/// The writer of samples, shared by all workers; `None` if no rule has `log`, or the thread did
/// not start.
///
/// The plan creates it: a thread started by a worker would inherit the worker's CPU affinity.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter(Option<Arc<WriterHandle>>);

/// A handle that the plan and its stages share. When it is dropped, the writer thread ends.
#[derive(Debug)]
struct WriterHandle {
    samples: Arc<SampleQueue>,
    thread: Thread,
}

/// Lock-free, because workers add samples.
#[derive(Debug)]
struct SampleQueue {
    queue: ArrayQueue<Sample>,
    /// Set when no worker can add samples any more.
    is_closed: AtomicBool,
}

#[derive(Debug)]
pub(super) struct SampleRecorder {
    writer: LogWriter,
    /// Samples for which the queue was full.
    lost: u64,
}

#[derive(Debug)]
struct Sample {
    rule: u32,
    key: Key,
    bytes: usize,
}

impl LogWriter {
    /// Starts the thread if any rule has `log`.
    pub(crate) fn new<'r>(rules: impl IntoIterator<Item = &'r Rule> + Clone) -> Self {
        if rules.clone().into_iter().all(|rule| rule.log.is_none()) {
            return Self(None);
        }
        let texts: Vec<String> = rules
            .into_iter()
            .map(|rule| rule.log.map_or_else(String::new, |_| rule.to_string()))
            .collect();
        let samples = Arc::new(SampleQueue {
            queue: ArrayQueue::new(QUEUE_CAPACITY),
            is_closed: AtomicBool::new(false),
        });
        let thread_samples = Arc::clone(&samples);
        let thread = thread::Builder::new()
            .name("filter-log".into())
            .spawn(move || thread_samples.write(&texts));
        Self(
            thread
                .ok()
                .map(|thread| Arc::new(WriterHandle { samples, thread: thread.thread().clone() })),
        )
    }
}

impl Drop for WriterHandle {
    fn drop(&mut self) {
        self.samples.is_closed.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl SampleQueue {
    /// Writes samples until the plan and all of its stages are dropped. `rules` are rule texts.
    fn write(&self, rules: &[String]) {
        loop {
            // Load before draining, so that samples added before closing are written.
            let is_closed = self.is_closed.load(Ordering::Acquire);
            while let Some(sample) = self.queue.pop() {
                sample.write(rules);
            }
            if is_closed {
                return;
            }
            // `park` returns at once if a sample was added since the queue was drained.
            thread::park();
        }
    }
}

impl SampleRecorder {
    pub(super) fn new(writer: &LogWriter) -> Self {
        Self { writer: writer.clone(), lost: 0 }
    }

    /// Records a sample, or loses it if the queue is full. Waking the thread is slow, but
    /// only sampled packets need it.
    pub(super) fn record(&mut self, rule: u32, key: &Key, bytes: usize) {
        let is_recorded = self.writer.0.as_ref().is_some_and(|handle| {
            // Check first: `push` on a full queue can spin until the writer has removed a sample.
            let queue = &handle.samples.queue;
            let pushed = !queue.is_full() && queue.push(Sample { rule, key: *key, bytes }).is_ok();
            handle.thread.unpark();
            pushed
        });
        self.lost += u64::from(!is_recorded);
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

impl Sample {
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
