//! Running a worker on its thread, and talking to it from another.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use xsk::{WaitSet, Waker, clock};

use crate::chain::Chain;
use crate::ledger::Task;
use crate::worker::Worker;

/// What a worker does when nothing comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Idle {
    /// When no packet has come for a while it waits in the kernel until one comes: costs some tens of microseconds of latency
    /// for the first packet after a pause, and next to no processor time during one. Each packet buys [`SPIN`] of looking, so
    /// the looking in vain costs at most that much a packet, and under load a short gap does not put the worker to sleep.
    #[default]
    Poll,
    /// It keeps looking, and its core is never free: for a core of its own.
    Spin,
}

/// How much longer a worker keeps looking for packets, before it waits in the kernel, for each packet that came.
pub const SPIN: Duration = Duration::from_micros(20);

/// The longest that it keeps looking, however many came.
pub const LONGEST_SPIN: Duration = Duration::from_millis(1);

/// Longest wait: what happens without a packet (ticks, reclaiming) happens at least this often.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Longest wait while something is to be done that no packet announces.
const SHORT_WAIT: Duration = Duration::from_millis(1);

type Command<C> = Box<dyn FnOnce(&mut Worker<C>) + Send>;

/// The worker's end of its mailbox. Commands are carried out between two batches.
pub struct Mailbox<C> {
    commands: Receiver<Command<C>>,
    shared: Arc<Shared>,
    waker: Waker,
}

/// The other end: gives a worker commands from any thread.
pub struct Remote<C> {
    commands: Sender<Command<C>>,
    shared: Arc<Shared>,
    waker: Waker,
}

#[derive(Default)]
struct Shared {
    /// A command may be waiting. The one thing that the data path reads: a plain load per turn.
    mail: AtomicBool,
    stop: AtomicBool,
}

/// The worker is gone, or does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker has stopped, or does not answer")]
pub struct Stopped;

/// A mailbox and the remote that fills it.
pub fn mailbox<C>() -> io::Result<(Remote<C>, Mailbox<C>)> {
    let (sender, receiver) = mpsc::channel();
    let shared = Arc::new(Shared::default());
    let waker = Waker::new()?;
    let remote = Remote { commands: sender, shared: Arc::clone(&shared), waker: waker.clone() };
    Ok((remote, Mailbox { commands: receiver, shared, waker }))
}

impl<C> Remote<C> {
    /// Has the worker do this between two batches. It happens once, soon, on the worker's thread; packets wait meanwhile, so
    /// what takes long is prepared beforehand and only handed over here.
    pub fn send(&self, command: impl FnOnce(&mut Worker<C>) + Send + 'static) -> Result<(), Stopped> {
        self.commands.send(Box::new(command)).map_err(|_| Stopped)?;
        self.ring();
        Ok(())
    }

    /// The same, and waits for the answer. `Stopped` also if there is none in time; the command is still carried out then,
    /// if the worker gets to it.
    pub fn ask<A: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Worker<C>) -> A + Send + 'static,
        at_most: Duration,
    ) -> Result<A, Stopped> {
        let (answer, answered) = mpsc::sync_channel(1);
        // If nobody waits for the answer any more, it is dropped.
        self.send(move |worker| drop(answer.send(question(worker))))?;
        answered.recv_timeout(at_most).map_err(|_| Stopped)
    }

    /// Ends [`Worker::run`] after the turn that is going on.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.ring();
    }

    fn ring(&self) {
        // In this order: who is woken finds the flag up. The other way round a worker that takes over the processor at the
        // wake-up would find nothing to do and nothing to wait for, until this thread gets to raise the flag.
        // A swap and no store: of two who ring at once, the worker is to see what both did before.
        self.shared.mail.swap(true, Ordering::AcqRel);
        self.waker.wake();
    }
}

impl<C> Mailbox<C> {
    /// Carries out what waits. Whether to go on.
    fn open(&self, worker: &mut Worker<C>) -> bool {
        // A swap, so that no command is looked for before the flag is down: one that comes later raises it again.
        self.shared.mail.swap(false, Ordering::AcqRel);
        self.waker.clear();
        while let Ok(command) = self.commands.try_recv() {
            command(worker);
        }
        !self.shared.stop.load(Ordering::Acquire)
    }
}

impl<C: Chain> Worker<C> {
    /// Makes turns until the mailbox says stop.
    pub fn run(&mut self, mailbox: &Mailbox<C>, idle: Idle) {
        let mut wait_set = WaitSet::new(self.descriptors().chain([mailbox.waker.fd()]));
        let mut patience = Patience::new(clock::cycles());
        self.ledger.begin();
        loop {
            if mailbox.shared.mail.load(Ordering::Acquire) && !mailbox.open(self) {
                return;
            }
            let came = self.turn();
            if came > 0 {
                patience.came(came, clock::cycles());
            } else if idle == Idle::Poll && patience.is_over(clock::cycles()) {
                let at_most = if self.must_look_again_soon() { SHORT_WAIT } else { LONGEST_WAIT };
                self.waits += 1;
                self.ledger.book(Task::Control, 0);
                wait_set.wait(at_most);
                self.ledger.book(Task::Wait, 0);
                // The wake-up may belong to a flag that was seen without it. It is cleared all the same, or every wait from
                // now on would return at once.
                if wait_set.is_ready(mailbox.waker.fd()) {
                    mailbox.waker.clear();
                }
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// How long to keep looking: time that packets have bought and that has not passed yet.
struct Patience {
    /// When it is over, by [`xsk::clock`].
    end: u64,
    /// Cycles that a packet buys.
    each: u64,
    /// Most cycles from now to the end.
    longest: u64,
}

impl Patience {
    fn new(now: u64) -> Self {
        let cycles = |time: Duration| (clock::cycles_per_second() * time.as_secs_f64()) as u64;
        let (each, longest) = (cycles(SPIN), cycles(LONGEST_SPIN));
        Self { end: now + each, each, longest }
    }

    #[inline]
    fn came(&mut self, packets: usize, now: u64) {
        self.end = (self.end.max(now) + packets as u64 * self.each).min(now + self.longest);
    }

    #[inline]
    fn is_over(&self, now: u64) -> bool {
        // A clock that has gone back (a machine that was moved, say) must not keep it looking.
        now >= self.end || self.end - now > self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_packet_buys_a_while_of_looking_up_to_the_longest() {
        let Patience { each, longest, .. } = Patience::new(0);
        let mut patience = Patience { end: 0, each, longest };
        let over_at = |patience: &Patience, at: u64| !patience.is_over(at - 1) && patience.is_over(at);
        // One packet after a pause: one while.
        patience.came(1, 1_000_000);
        assert!(over_at(&patience, 1_000_000 + each));
        // Three before that is over: three more, on top of what is left.
        patience.came(3, 1_000_000 + each / 2);
        assert!(over_at(&patience, 1_000_000 + 4 * each));
        // However many: the longest, from the last one on.
        (0..1000).for_each(|_| patience.came(64, 2_000_000));
        assert!(over_at(&patience, 2_000_000 + longest));
        // What was not used is not kept.
        let later = 2_000_000 + 10 * longest;
        patience.came(1, later);
        assert!(over_at(&patience, later + each));
    }

    /// Who waits and is woken has something to do: otherwise it would neither work nor wait until the other thread goes on.
    #[test]
    fn the_flag_is_up_before_the_wake_up() {
        let (remote, mailbox) = mailbox::<()>().unwrap();
        let (seen, was_seen) = mpsc::channel();
        let worker = std::thread::spawn(move || {
            let mut wait_set = WaitSet::new([mailbox.waker.fd()]);
            for _ in 0..2000 {
                while !wait_set.is_ready(mailbox.waker.fd()) {
                    wait_set.wait(LONGEST_WAIT);
                }
                mailbox.waker.clear();
                wait_set.wait(Duration::ZERO);
                seen.send(mailbox.shared.mail.swap(false, Ordering::AcqRel)).unwrap();
            }
        });
        for round in 0..2000 {
            remote.ring();
            assert!(was_seen.recv().unwrap(), "round {round}: woken, and the flag is down");
        }
        worker.join().unwrap();
    }
}
