//! Commands from other threads to a worker.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use xdpfwd_xsk::Waker;

use super::Worker;

type Command<C> = Box<dyn FnOnce(&mut Worker<C>) + Send>;

/// The worker's end of a mailbox. Commands run between two iterations.
pub struct Mailbox<C> {
    commands: Receiver<Command<C>>,
    flags: Arc<Flags>,
    waker: Waker,
}

/// The sender's end of a mailbox, usable from any thread.
pub struct Remote<C> {
    commands: Sender<Command<C>>,
    flags: Arc<Flags>,
    waker: Waker,
}

impl<C> Clone for Remote<C> {
    fn clone(&self) -> Self {
        let Self { commands, flags, waker } = self;
        Self { commands: commands.clone(), flags: Arc::clone(flags), waker: waker.clone() }
    }
}

/// Flags that both ends of a mailbox use.
#[derive(Default)]
struct Flags {
    /// Whether a command or a stop may be waiting. The worker's loop reads this flag once per
    /// iteration, and `stop` only if this flag is set.
    mail: AtomicBool,
    stop: AtomicBool,
}

/// The worker has stopped or did not reply in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker has stopped or did not reply in time")]
pub struct Stopped;

/// Creates both ends of a mailbox.
pub fn mailbox<C>() -> io::Result<(Remote<C>, Mailbox<C>)> {
    let (sender, receiver) = mpsc::channel();
    let flags = Arc::new(Flags::default());
    let waker = Waker::new()?;
    let remote = Remote { commands: sender, flags: Arc::clone(&flags), waker: waker.clone() };
    Ok((remote, Mailbox { commands: receiver, flags, waker }))
}

impl<C> Remote<C> {
    /// Sends a command, which the worker's thread runs between two iterations. Packets wait
    /// meanwhile: do slow preparation before the call.
    pub fn send(
        &self,
        command: impl FnOnce(&mut Worker<C>) + Send + 'static,
    ) -> Result<(), Stopped> {
        self.commands.send(Box::new(command)).map_err(|_| Stopped)?;
        self.notify();
        Ok(())
    }

    /// Sends a command like [`send`](Self::send) and waits for its result. After a timeout
    /// ([`Stopped`]), the command may still run.
    pub fn ask<A: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Worker<C>) -> A + Send + 'static,
        timeout: Duration,
    ) -> Result<A, Stopped> {
        let (sender, receiver) = mpsc::sync_channel(1);
        // `sender.send` fails if the caller has timed out.
        self.send(move |worker| drop(sender.send(command(worker))))?;
        receiver.recv_timeout(timeout).map_err(|_| Stopped)
    }

    /// Ends [`Worker::run`] after the current iteration.
    pub fn stop(&self) {
        self.flags.stop.store(true, Ordering::Release);
        self.notify();
    }

    fn notify(&self) {
        // Set the flag before the wake-up: otherwise the woken worker can find the flag unset, and
        // go back to sleep. Use a swap, not a store, so that the worker sees the commands of all
        // threads that set the flag.
        self.flags.mail.swap(true, Ordering::AcqRel);
        self.waker.wake();
    }
}

impl<C> Mailbox<C> {
    #[inline]
    pub(super) fn has_mail(&self) -> bool {
        self.flags.mail.load(Ordering::Acquire)
    }

    /// Returns the descriptor that is readable when a command arrives.
    pub(super) fn fd(&self) -> RawFd {
        self.waker.fd()
    }

    /// Makes the descriptor unreadable until the next command arrives.
    pub(super) fn clear_wake_up(&self) {
        self.waker.clear();
    }

    /// Runs the commands that have arrived. Returns false if the worker must stop.
    pub(super) fn run_commands(&self, worker: &mut Worker<C>) -> bool {
        // Clear the flag first: a later command sets it again. A swap, unlike a store, is never
        // reordered after the reads below.
        self.flags.mail.swap(false, Ordering::AcqRel);
        self.waker.clear();
        while let Ok(command) = self.commands.try_recv() {
            command(worker);
        }
        !self.flags.stop.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use xdpfwd_xsk::WaitSet;

    use super::*;

    #[test]
    fn notify_sets_flag_before_waking_worker() {
        let (remote, mailbox) = mailbox::<()>().unwrap();
        let (flags_seen, received_flags) = mpsc::channel();
        let worker = std::thread::spawn(move || {
            let mut wait_set = WaitSet::new([mailbox.waker.fd()]);
            for _ in 0..2000 {
                while !wait_set.is_ready(mailbox.waker.fd()) {
                    wait_set.wait(Duration::from_millis(100));
                }
                mailbox.waker.clear();
                // Updates `is_ready` without blocking.
                wait_set.wait(Duration::ZERO);
                flags_seen.send(mailbox.flags.mail.swap(false, Ordering::AcqRel)).unwrap();
            }
        });
        for round in 0..2000 {
            remote.notify();
            assert!(
                received_flags.recv().unwrap(),
                "round {round}: the worker was woken before the flag was set"
            );
        }
        worker.join().unwrap();
    }
}
