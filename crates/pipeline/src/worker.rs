//! The worker: one thread's share of the data plane.

use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use xsk::{Batch, Pool, Port, Umem, clock};

use crate::chain::{Chain, EachStage, NamedStage};
use crate::egress::Egress;
use crate::ledger::{Ledger, LedgerReport, StageAccount, Task};
use crate::meta::Meta;
use crate::reason::{Drops, Reason};
use crate::report::{FrameCensus, PathReport, QueueReport, StageReport, WorkerReport};
use crate::run::BatchRun;
use crate::stage::{Cx, Matched, Stage, discard};
use crate::verdict::{PortId, Verdict};
use crate::wire::Headers;

/// Batches that a port may deliver in one turn, as long as they come full: what they send goes out with one system call.
/// A port that has less to deliver is not waited for, so this costs no latency where there is no queue already.
pub(crate) const BURST: usize = 4;

/// One worker: its ports, its frames, its paths. It shares nothing with other workers.
///
/// A [`turn`](Self::turn) receives a batch from each port, runs it through the stages of the port's path, puts what is
/// left into the queue of the path's far end, and transmits. [`run`](Self::run) makes turns until it is told to stop.
///
/// `C` is how stages are put together: see [`Chain`].
pub struct Worker<C> {
    // The ports go before the pool and the UMEM that they refer to; all hold a handle of it, so any order is sound.
    ports: Vec<Attached>,
    paths: Vec<Path<C>>,
    egress: Egress,
    pool: Pool,
    umem: Umem,
    batch: Batch,
    metas: Box<[Meta; Batch::CAPACITY]>,
    verdicts: Box<[Verdict; Batch::CAPACITY]>,
    drops: Drops,
    pub(crate) ledger: Ledger,
    /// What stages took that were swapped out and have no successor of their name.
    former_stages: StageAccount,
    /// Frames that stages may hold yet.
    quota: u32,
    full_quota: u32,
    tick_cycles: u64,
    last_tick: u64,
    pub(crate) waits: u64,
}

/// A port's queue, as the worker has it.
struct Attached {
    port: Box<dyn Port>,
    id: PortId,
    queue: u16,
    lane: usize,
    /// The path of what comes in here.
    path: Option<usize>,
}

struct Path<C> {
    from: PortId,
    to: PortId,
    chain: C,
    names: Vec<String>,
    accounts: Vec<StageAccount>,
    needs_headers: bool,
    /// Its stages have given back what they held, and are not called any more.
    retired: bool,
    /// One of the worker's stages panicked: what these say may be wrong, and asking may panic again.
    suspect: bool,
}

/// Puts a [`Worker`] together.
pub struct WorkerBuilder<C> {
    umem: Umem,
    pool: Pool,
    first_queue: u16,
    stride: u16,
    ledger: bool,
    ports: Vec<Vec<Box<dyn Port>>>,
    paths: Vec<(PortId, PortId, C)>,
}

/// Why a worker cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// More ports than a [`PortId`] can number.
    #[error("{0} ports: a worker has at most 255")]
    TooManyPorts(usize),
    /// Ports with different numbers of queues.
    #[error("port {port} has {queues} queues and port 0 has {expected}: all ports of a worker must have as many")]
    UnequalQueues {
        /// The port that differs.
        port: usize,
        /// Its queues.
        queues: usize,
        /// The queues of the first port.
        expected: usize,
    },
    /// A path that starts or ends at a port which does not exist.
    #[error("a path names port {0}, which the worker does not have")]
    NoSuchPort(u8),
    /// A port or the pool is of another UMEM than the worker's.
    #[error("{0} is of another UMEM than the worker's")]
    OtherUmem(&'static str),
    /// Queue numbers beyond what a queue number can be.
    #[error("queue {0} is beyond {max}", max = u16::MAX)]
    QueueNumber(usize),
    /// Two paths from one port.
    #[error("two paths from port {0}: a port has one")]
    TwoPaths(u8),
}

impl<C: Chain> WorkerBuilder<C> {
    /// Says which queue numbers the worker serves: `first`, `first + stride`, … Queue 0 and on, if not said.
    pub fn queues(mut self, first: u16, stride: u16) -> Self {
        self.first_queue = first;
        self.stride = stride.max(1);
        self
    }

    /// Whether the worker begins with its ledger on, as it does if not said; see [`Worker::switch_ledger`].
    pub fn ledger(mut self, on: bool) -> Self {
        self.ledger = on;
        self
    }

    /// Adds a port: one `Port` for each of its queues, in order. Ports are numbered as they are added.
    pub fn port(mut self, queues: Vec<Box<dyn Port>>) -> Self {
        self.ports.push(queues);
        self
    }

    /// Adds a path: what comes in on `from` goes through the stages and out on `to`.
    pub fn path(mut self, from: PortId, to: PortId, chain: C) -> Self {
        self.paths.push((from, to, chain));
        self
    }

    /// Builds the worker.
    pub fn build(self) -> Result<Worker<C>, BuildError> {
        let Self { umem, pool, first_queue, stride, ledger, ports, paths } = self;
        let port_count = u8::try_from(ports.len()).map_err(|_| BuildError::TooManyPorts(ports.len()))?;
        let lanes = ports.first().map_or(0, Vec::len);
        if let Some(port) = ports.iter().position(|queues| queues.len() != lanes) {
            return Err(BuildError::UnequalQueues { port, queues: ports[port].len(), expected: lanes });
        }
        let last_queue = usize::from(first_queue) + lanes.saturating_sub(1) * usize::from(stride);
        if last_queue > usize::from(u16::MAX) {
            return Err(BuildError::QueueNumber(last_queue));
        }
        if !pool.umem().is_same(&umem) {
            return Err(BuildError::OtherUmem("the pool"));
        }
        if ports.iter().flatten().any(|port| port.umem().is_some_and(|own| !own.is_same(&umem))) {
            return Err(BuildError::OtherUmem("a port"));
        }
        let exists = |id: PortId| if id.0 < port_count { Ok(()) } else { Err(BuildError::NoSuchPort(id.0)) };
        let mut path_of = vec![None; ports.len()];
        for (index, (from, to, _)) in paths.iter().enumerate() {
            exists(*from)?;
            exists(*to)?;
            if path_of[usize::from(from.0)].replace(index).is_some() {
                return Err(BuildError::TwoPaths(from.0));
            }
        }
        let egress = Egress::new(&umem, ports.len(), lanes);
        let mut attached = Vec::with_capacity(ports.len() * lanes);
        for (id, queues) in (0..port_count).map(PortId).zip(ports) {
            for (lane, port) in queues.into_iter().enumerate() {
                // Not beyond `last_queue`, which was checked.
                let queue = first_queue + lane as u16 * stride;
                attached.push(Attached { port, id, queue, lane, path: path_of[usize::from(id.0)] });
            }
        }
        let unknown = Meta { ingress: PortId(0), queue: 0, opened: false, headers: Headers::parse(&[]) };
        Ok(Worker {
            ports: attached,
            paths: paths.into_iter().map(|(from, to, chain)| Path::new(from, to, chain)).collect(),
            egress,
            quota: umem.frames() / 4,
            full_quota: umem.frames() / 4,
            umem,
            pool,
            batch: Batch::new(),
            metas: Box::new([unknown; Batch::CAPACITY]),
            verdicts: Box::new([Verdict::Next; Batch::CAPACITY]),
            drops: Drops::default(),
            ledger: Ledger::new(ledger),
            former_stages: StageAccount::default(),
            tick_cycles: (clock::cycles_per_second() / 1000.0) as u64,
            last_tick: clock::cycles(),
            waits: 0,
        })
    }
}

impl<C: Chain> Worker<C> {
    /// A worker on this UMEM, to be put together.
    pub fn builder(umem: Umem, pool: Pool) -> WorkerBuilder<C> {
        WorkerBuilder { umem, pool, first_queue: 0, stride: 1, ledger: true, ports: Vec::new(), paths: Vec::new() }
    }

    /// Gives every port that has a path one chance to receive, and every port one to transmit. Returns how many packets
    /// came. Never blocks: what cannot go on is dropped and counted.
    pub fn turn(&mut self) -> usize {
        self.ledger.book(Task::Control, 0);
        let mut came = 0;
        let mut busy = false;
        for index in 0..self.ports.len() {
            let attached = &mut self.ports[index];
            let back = attached.port.reclaim(&mut self.pool);
            if back > 0 {
                busy = true;
                self.ledger.book(Task::Reclaim, back);
            }
            let Some(path) = attached.path else { continue };
            for _ in 0..BURST {
                let attached = &mut self.ports[index];
                let n = attached.port.receive(&mut self.batch, &mut self.pool);
                if n == 0 {
                    self.ledger.book_look();
                } else {
                    self.ledger.book(Task::Receive, n);
                    came += n;
                    self.forward(path, index);
                    if self.egress.take_crowded() {
                        busy |= self.transmit();
                    }
                }
                if n < Batch::CAPACITY {
                    break;
                }
            }
        }
        busy |= self.transmit();
        let now = self.ledger.now();
        if now.wrapping_sub(self.last_tick) >= self.tick_cycles {
            self.last_tick = now;
            self.tick(now);
            self.ledger.book(Task::Control, 0);
        }
        self.ledger.end_turn(busy || came > 0);
        came
    }

    /// Runs the batch that came from a port through a path, and puts what is left of it into the egress queue.
    fn forward(&mut self, path: usize, from: usize) {
        let path = &mut self.paths[path];
        let &Attached { id, queue, lane, .. } = &self.ports[from];
        let start = self.ledger.now();
        if path.retired {
            for frame in self.batch.places_mut().iter_mut().filter_map(Option::take) {
                discard(&mut self.pool, &mut self.drops, frame, Reason::Shutdown);
            }
            self.batch.clear_taken();
            return;
        }
        for (place, meta) in self.batch.places().iter().zip(self.metas.iter_mut()) {
            meta.ingress = id;
            meta.queue = queue;
            meta.opened = false;
            if path.needs_headers {
                meta.headers = Headers::parse(place.as_deref().unwrap_or_default());
            }
        }
        if path.needs_headers {
            self.ledger.book(Task::Parse, self.batch.len());
        }
        let mut run = BatchRun {
            batch: &mut self.batch,
            metas: &mut self.metas,
            verdicts: &mut self.verdicts,
            pool: &mut self.pool,
            egress: &mut self.egress,
            drops: &mut self.drops,
            accounts: &mut path.accounts,
            queue,
            lane,
            to: path.to,
            quota: &mut self.quota,
            start,
            ledger: &mut self.ledger,
        };
        path.chain.walk(&mut run);
        run.scatter();
    }

    /// Hands to each port what waits for it. Whether anything went.
    #[inline]
    fn transmit(&mut self) -> bool {
        let mut any = false;
        for (index, attached) in self.ports.iter_mut().enumerate() {
            let queue = self.egress.queue(index);
            if !queue.is_empty() || attached.port.unsent() {
                let sent = attached.port.transmit(queue);
                any |= sent > 0;
                self.ledger.book(Task::Transmit, sent);
            }
        }
        any
    }

    fn tick(&mut self, now: u64) {
        for path in 0..self.paths.len() {
            self.visit_stages(path, now, |stage, cx| stage.tick(cx));
        }
    }

    /// Lets the stages of a path give back what they hold. They are not called again.
    fn retire(&mut self, path: usize) {
        self.visit_stages(path, clock::cycles(), |stage, cx| stage.retire(cx));
        self.paths[path].retired = true;
    }

    /// Shows each stage of a path, unless it is retired, with a context of its own.
    fn visit_stages(&mut self, path: usize, now: u64, mut visit: impl FnMut(&mut dyn Stage, &mut Cx<'_>)) {
        let queue = self.ports.first().map_or(0, |attached| attached.queue);
        let Path { to, chain, accounts, retired, .. } = &mut self.paths[path];
        if *retired {
            return;
        }
        let to = *to;
        let (pool, egress, drops, quota) = (&mut self.pool, &mut self.egress, &mut self.drops, &mut self.quota);
        chain.walk(&mut EachStage(|index: usize, stage: &mut dyn Stage| {
            let account = &mut accounts[index];
            visit(stage, &mut Cx { now, queue, lane: 0, to, pool, egress, drops, account, quota });
        }));
    }

    /// Whether something is to be done soon that no packet announces: frames that stages hold, frames that wait to be sent,
    /// frames that are awaited back because none is left for reception, a port that has nothing to wait on.
    pub(crate) fn must_look_again_soon(&self) -> bool {
        self.quota < self.full_quota
            || self.pool.is_empty()
            || self.unsent()
            || self.ports.iter().any(|attached| attached.path.is_some() && attached.port.fd().is_none())
    }

    /// Whether something waits to be sent that only another turn will send.
    fn unsent(&self) -> bool {
        self.egress.waiting() > 0 || self.ports.iter().any(|attached| attached.port.unsent())
    }

    /// The descriptors that become readable when packets arrive.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.ports.iter().filter(|attached| attached.path.is_some()).filter_map(|attached| attached.port.fd())
    }

    /// Replaces the stages of the path from a port, between two batches, and returns the old ones, retired. Accounts of
    /// stages that keep their name go on; to pass on state, see [`swap_named`](Worker::swap_named).
    pub fn swap(&mut self, from: PortId, chain: C) -> Result<C, BuildError> {
        let index = self.path_from(from)?;
        let old_names = std::mem::take(&mut self.paths[index].names);
        self.retire(index);
        let path = &mut self.paths[index];
        let old_accounts = std::mem::take(&mut path.accounts);
        let old = std::mem::replace(path, Path::new(path.from, path.to, chain));
        let path = &mut self.paths[index];
        // Abandoned is abandoned: new stages are not called either.
        (path.retired, path.suspect) = (old.suspect, old.suspect);
        for (name, account) in path.names.iter().zip(&mut path.accounts) {
            if let Some(was) = old_names.iter().position(|old| old == name) {
                *account = StageAccount { held: 0, ..old_accounts[was] };
            }
        }
        // What a retired stage did not give back is lost, and no longer held by anybody.
        for account in &old_accounts {
            self.quota += account.held;
        }
        for (name, account) in old_names.iter().zip(&old_accounts) {
            if !path.names.contains(name) {
                self.former_stages.add(&StageAccount { held: 0, ..*account });
            }
        }
        Ok(old.chain)
    }

    fn path_from(&self, from: PortId) -> Result<usize, BuildError> {
        self.paths.iter().position(|path| path.from == from).ok_or(BuildError::NoSuchPort(from.0))
    }

    /// Brings everything that is on its way to its end: what has been received is forwarded, what is queued is sent, what
    /// was sent is reclaimed. Ends when nothing is left (and nothing has come for a while) or the time is over; what is still
    /// queued then is dropped as [`Reason::Shutdown`]. No new packets should be coming: detach first.
    pub fn drain(&mut self, at_most: Duration) {
        const QUIET: Duration = Duration::from_millis(5);
        let start = Instant::now();
        let mut quiet_since = start;
        let mut retired = false;
        while start.elapsed() < at_most {
            if self.turn() > 0 {
                quiet_since = Instant::now();
            } else if quiet_since.elapsed() >= QUIET {
                if !retired {
                    // What the stages held goes out with the rest.
                    (0..self.paths.len()).for_each(|index| self.retire(index));
                    retired = true;
                } else if !self.unsent() && self.sending() == 0 {
                    break;
                }
            }
        }
        for queue in self.egress.queues_mut() {
            while let Some(frame) = queue.pop() {
                discard(&mut self.pool, &mut self.drops, frame, Reason::Shutdown);
            }
        }
    }

    /// Makes the worker go on without its stages, after one of them panicked and somebody caught that around
    /// [`turn`](Self::turn), [`run`](Self::run) or [`drain`](Self::drain): no stage is called any more but for its counters,
    /// what comes is dropped as [`Reason::Shutdown`], what was queued is sent. The frames of the batch that the panic broke
    /// off are lost, and the report says so: `leaked`.
    pub fn abandon_stages(&mut self) {
        for path in &mut self.paths {
            path.retired = true;
            path.suspect = true;
        }
        self.batch.truncate(0);
        // What the stage had decided before it panicked is nothing that the next batch should be judged by.
        self.verdicts.fill(Verdict::Next);
    }

    /// Frames that the kernel was given to send and has not given back.
    fn sending(&self) -> u64 {
        self.ports.iter().map(|attached| attached.port.census()).map(|census| census.tx + census.completion).sum()
    }

    /// Where every frame is at this moment.
    pub fn frames(&self) -> FrameCensus {
        let mut at_ports = xsk::Census::default();
        for attached in &self.ports {
            at_ports += attached.port.census();
        }
        FrameCensus::new(u64::from(self.umem.frames()), self.pool.len() as u64, u64::from(self.umem.held()), at_ports)
    }

    /// The UMEM of its frames, whose record says who has each.
    pub fn umem(&self) -> &Umem {
        &self.umem
    }

    /// Frames that wait in egress queues and frames that stages hold, by their own count.
    pub fn in_user_space(&self) -> usize {
        self.egress.waiting() + (self.full_quota - self.quota) as usize
    }

    /// Everything that the worker has counted.
    pub fn report(&mut self) -> WorkerReport {
        let queues = self.ports.iter().map(|attached| QueueReport {
            port: attached.id,
            queue: attached.queue,
            counters: attached.port.counters(),
            kernel: attached.port.kernel_counters(),
            census: attached.port.census(),
        });
        let queues: Vec<_> = queues.collect();
        // What a stage lost is held by nobody, and must not count against the others for ever.
        let held = (self.umem.held() as usize).saturating_sub(self.egress.waiting());
        self.quota = self.full_quota.saturating_sub(held as u32);
        let frames = self.frames();
        self.ledger.book(Task::Control, 0);
        let ledger = self.ledger_report();
        let paths = self.paths.iter_mut().map(Path::report).collect();
        WorkerReport { queues, paths, drops: self.drops, frames, waits: self.waits, ledger }
    }
}

/// The ledger.
impl<C: Chain> Worker<C> {
    /// Switches the ledger on or off. Off, nothing is timed and accounts stay as they are.
    pub fn switch_ledger(&mut self, on: bool) {
        let counted = self.counted();
        self.ledger.switch(on, counted);
    }

    /// Where the cycles went so far.
    pub fn ledger_report(&self) -> LedgerReport {
        let mut stages = self.former_stages;
        self.paths.iter().flat_map(|path| &path.accounts).for_each(|account| stages.add(account));
        self.ledger.report(self.counted(), &stages)
    }

    /// What all ports have counted.
    fn counted(&self) -> xsk::Counters {
        let mut sum = xsk::Counters::default();
        self.ports.iter().for_each(|attached| sum += attached.port.counters());
        sum
    }
}

impl Worker<Vec<NamedStage>> {
    /// Of every path, what the rules of each of its stages have matched.
    pub fn matched(&self) -> Vec<Vec<Option<Matched>>> {
        // Stages that are not to be asked any more have nothing to say.
        let of = |path: &Path<Vec<NamedStage>>| match path.suspect {
            true => vec![None; path.chain.len()],
            false => path.chain.iter().map(|named| named.stage.matched()).collect(),
        };
        self.paths.iter().map(of).collect()
    }

    /// As [`swap`](Self::swap); and a new stage that has the name of an old one takes over its state, if it can read it.
    /// Returns the names of those that could not.
    pub fn swap_named(&mut self, from: PortId, mut chain: Vec<NamedStage>) -> Result<Vec<String>, BuildError> {
        let index = self.path_from(from)?;
        let mut afresh = Vec::new();
        for old in &self.paths[index].chain {
            let Some(snapshot) = old.stage.snapshot() else { continue };
            let Some(new) = chain.iter_mut().find(|new| new.name == old.name) else { continue };
            if new.stage.restore(&snapshot).is_err() {
                afresh.push(new.name.clone());
            }
        }
        self.swap(from, chain)?;
        Ok(afresh)
    }
}

impl<C: Chain> Path<C> {
    fn new(from: PortId, to: PortId, mut chain: C) -> Self {
        let names = chain.names();
        let mut needs_headers = false;
        chain.walk(&mut EachStage(|_, stage: &mut dyn Stage| needs_headers |= stage.needs_headers()));
        let accounts = vec![StageAccount::default(); names.len()];
        Self { from, to, chain, names, accounts, needs_headers, retired: false, suspect: false }
    }

    fn report(&mut self) -> PathReport {
        let mut counters = vec![Vec::new(); self.names.len()];
        let suspect = self.suspect;
        self.chain.walk(&mut EachStage(|index: usize, stage: &mut dyn Stage| {
            // What a stage broke off in the middle of its work can say of itself is better than nothing, if it can.
            counters[index] = if suspect {
                catch_unwind(AssertUnwindSafe(|| stage.counters())).unwrap_or_default()
            } else {
                stage.counters()
            };
        }));
        let stages = self.names.iter().zip(&self.accounts).zip(counters);
        let stages =
            stages.map(|((name, account), counters)| StageReport { name: name.clone(), account: *account, counters });
        PathReport { from: self.from, to: self.to, stages: stages.collect() }
    }
}
