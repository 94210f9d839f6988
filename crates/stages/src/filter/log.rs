//! Samples for the log: noted on the data path, written by a thread of their own.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use xdpfwd_filter::{Addresses, Key, Rule};

/// Notes that wait to be written. What comes while they are as many is lost, and counted.
const WAITING: usize = 256;

/// The way to the log that all workers share: made with the plan, so that its thread is on no worker's core.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter(Option<SyncSender<Note>>);

/// A worker's.
#[derive(Debug)]
pub(super) struct Log {
    writer: LogWriter,
    lost: u64,
}

/// What is noted of a packet.
#[derive(Debug)]
struct Note {
    rule: u32,
    key: Key,
    bytes: usize,
}

impl LogWriter {
    /// With a thread, if a rule wants to be logged.
    pub(crate) fn new<'r>(rules: impl IntoIterator<Item = &'r Rule> + Clone) -> Self {
        if rules.clone().into_iter().all(|rule| rule.log.is_none()) {
            return Self(None);
        }
        let (notes, to_write) = sync_channel::<Note>(WAITING);
        let shown: Vec<String> =
            rules.into_iter().map(|rule| rule.log.map_or_else(String::new, |_| rule.to_string())).collect();
        // It ends when the last stage of the plan does.
        let write = move || to_write.into_iter().for_each(|note| note.write(&shown));
        let thread = thread::Builder::new().name("filter-log".into()).spawn(write);
        Self(thread.ok().map(|_| notes))
    }
}

impl Log {
    pub(super) fn new(writer: &LogWriter) -> Self {
        Self { writer: writer.clone(), lost: 0 }
    }

    /// Notes a packet. One in so many does: what it takes to wake a thread is no cost per packet.
    pub(super) fn note(&mut self, rule: u32, key: &Key, bytes: usize) {
        let sent = self.writer.0.as_ref().is_some_and(|notes| notes.try_send(Note { rule, key: *key, bytes }).is_ok());
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
