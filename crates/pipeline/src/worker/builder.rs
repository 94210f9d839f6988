//! Building a worker from its UMEM, ports and paths.

use xdpfwd_wire::Headers;
use xdpfwd_xsk::{Batch, Pool, Port, Umem, clock};

use super::path::Path;
use super::{PortQueue, Worker};
use crate::chain::Chain;
use crate::egress::Egress;
use crate::ledger::{StageAccount, TaskLedger};
use crate::meta::Meta;
use crate::reason::Drops;
use crate::shared_table;
use crate::verdict::{PortId, Verdict};

/// The stages of a worker may together hold its frames divided by this number.
const HOLD_QUOTA_DIVISOR: u32 = 4;

/// The number of ticks per second of a worker that is not waiting.
const TICKS_PER_SECOND: f64 = 1000.0;

/// Builds a [`Worker`].
pub struct WorkerBuilder<C> {
    umem: Umem,
    pool: Pool,
    number: usize,
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
    /// The worker has more than 255 ports.
    #[error("{0} ports are too many for one worker; the limit is 255")]
    TooManyPorts(usize),
    /// Two ports have different numbers of queues.
    #[error(
        "port {port} has {queues} queues and port 0 has {expected}; all ports of a worker need the \
         same number of queues"
    )]
    UnequalQueues {
        /// The port that differs.
        port: usize,
        /// The number of its queues.
        queues: usize,
        /// The number of queues of port 0.
        expected: usize,
    },
    /// A path refers to a port that does not exist, or [`Worker::swap`] was called for a port
    /// without a path.
    #[error("a path refers to port {0}, which the worker does not have")]
    NoSuchPort(u8),
    /// A port or the pool belongs to another UMEM.
    #[error("{0} belongs to another UMEM than the worker")]
    OtherUmem(&'static str),
    /// A queue number does not fit into 16 bits.
    #[error("queue number {0} is too large; the limit is {max}", max = u16::MAX)]
    QueueNumber(usize),
    /// Two paths start from one port.
    #[error("two paths start from port {0}; a port has at most one")]
    TwoPaths(u8),
}

impl<C: Chain> Worker<C> {
    /// Creates a builder for a worker on a UMEM.
    pub fn builder(umem: Umem, pool: Pool) -> WorkerBuilder<C> {
        WorkerBuilder {
            umem,
            pool,
            number: 0,
            first_queue: 0,
            stride: 1,
            ledger: true,
            ports: Vec::new(),
            paths: Vec::new(),
        }
    }
}

impl<C: Chain> WorkerBuilder<C> {
    /// Sets the number of the worker in the process, 0 by default.
    pub fn number(mut self, number: usize) -> Self {
        self.number = number;
        self
    }

    /// Sets the numbers of every port's queues: `first`, `first + stride`, … The default is 0, 1,
    /// 2, …
    pub fn queues(mut self, first: u16, stride: u16) -> Self {
        self.first_queue = first;
        self.stride = stride.max(1);
        self
    }

    /// Sets whether the ledger of CPU cycles is on at the start (default); see
    /// [`Worker::switch_ledger`].
    pub fn ledger(mut self, on: bool) -> Self {
        self.ledger = on;
        self
    }

    /// Adds a port with the next number. `queues` has one [`Port`] for each of its queues.
    pub fn port(mut self, queues: Vec<Box<dyn Port>>) -> Self {
        self.ports.push(queues);
        self
    }

    /// Adds a path from one port to another.
    pub fn path(mut self, from: PortId, to: PortId, chain: C) -> Self {
        self.paths.push((from, to, chain));
        self
    }

    /// Builds the worker.
    pub fn build(self) -> Result<Worker<C>, BuildError> {
        // If this thread also runs the worker, reading a shared table must not allocate memory.
        shared_table::prepare_thread();
        let Self { umem, pool, number, first_queue, stride, ledger, ports, paths } = self;
        let port_count =
            u8::try_from(ports.len()).map_err(|_| BuildError::TooManyPorts(ports.len()))?;
        let queue_count = ports.first().map_or(0, Vec::len);
        if let Some(port) = ports.iter().position(|queues| queues.len() != queue_count) {
            return Err(BuildError::UnequalQueues {
                port,
                queues: ports[port].len(),
                expected: queue_count,
            });
        }
        let last_queue =
            usize::from(first_queue) + queue_count.saturating_sub(1) * usize::from(stride);
        if last_queue > usize::from(u16::MAX) {
            return Err(BuildError::QueueNumber(last_queue));
        }
        if !pool.umem().is_same(&umem) {
            return Err(BuildError::OtherUmem("the pool"));
        }
        if ports
            .iter()
            .flatten()
            .any(|port| port.umem().is_some_and(|port_umem| !port_umem.is_same(&umem)))
        {
            return Err(BuildError::OtherUmem("a port"));
        }
        let check_port =
            |id: PortId| if id.0 < port_count { Ok(()) } else { Err(BuildError::NoSuchPort(id.0)) };
        // For each port, the index of the path that starts from it.
        let mut path_from = vec![None; ports.len()];
        for (index, (from, to, _)) in paths.iter().enumerate() {
            check_port(*from)?;
            check_port(*to)?;
            if path_from[usize::from(from.0)].replace(index).is_some() {
                return Err(BuildError::TwoPaths(from.0));
            }
        }
        let egress = Egress::new(&umem, ports.len(), queue_count);
        let mut port_queues = Vec::with_capacity(ports.len() * queue_count);
        for (id, queues) in (0..port_count).map(PortId).zip(ports) {
            for (queue_index, socket) in queues.into_iter().enumerate() {
                // Cannot overflow: `last_queue` was checked above.
                let queue = first_queue + queue_index as u16 * stride;
                port_queues.push(PortQueue {
                    socket,
                    id,
                    queue,
                    queue_index,
                    path: path_from[usize::from(id.0)],
                    is_down: false,
                    earlier: Default::default(),
                });
            }
        }
        let no_meta =
            Meta { ingress: PortId(0), queue: 0, decrypted: false, headers: Headers::parse(&[]) };
        Ok(Worker {
            number,
            port_queues,
            paths: paths.into_iter().map(|(from, to, chain)| Path::new(from, to, chain)).collect(),
            egress,
            hold_quota_left: umem.frames() / HOLD_QUOTA_DIVISOR,
            hold_quota: umem.frames() / HOLD_QUOTA_DIVISOR,
            umem,
            pool,
            batch: Batch::new(),
            metas: Box::new([no_meta; Batch::CAPACITY]),
            verdicts: Box::new([Verdict::Next; Batch::CAPACITY]),
            drops: Drops::default(),
            ledger: TaskLedger::new(ledger),
            former_stages: StageAccount::default(),
            tick_cycles: (clock::cycles_per_second() / TICKS_PER_SECOND) as u64,
            last_tick: clock::cycles(),
            waits: 0,
            stored_chains: Vec::new(),
            prepared: Vec::new(),
            quarantine: Vec::new(),
            ports_changed: false,
        })
    }
}
