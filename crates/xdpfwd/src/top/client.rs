//! Reads reports over the control socket, on a thread of its own: a reading can take long, for
//! example while xdpfwd reloads.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::snapshot::Snapshot;
use crate::ctl;
use crate::error_text::with_causes;

/// A report, or why it could not be read.
pub(super) type Reading = Result<Snapshot, String>;

/// Reads one report.
pub(super) fn read(socket: &Path) -> anyhow::Result<Snapshot> {
    Snapshot::parse(ctl::fetch(socket, "stats")?)
}

/// Starts a thread that reads a report every `interval`, the first after one `interval`. The thread
/// ends when the receiver is dropped.
pub(super) fn start(socket: PathBuf, interval: Duration) -> io::Result<Receiver<Reading>> {
    // If the screen does not take readings, do not collect them.
    let (sender, receiver) = sync_channel(1);
    thread::Builder::new()
        .name("reports".to_owned())
        .spawn(move || read_until_closed(&socket, interval, &sender))?;
    Ok(receiver)
}

fn read_until_closed(socket: &Path, interval: Duration, sender: &SyncSender<Reading>) {
    let mut due = Instant::now() + interval;
    loop {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let reading = read(socket).map_err(|error| with_causes(error.as_ref()));
        if sender.send(reading).is_err() {
            return;
        }
        due = (due + interval).max(Instant::now());
    }
}
