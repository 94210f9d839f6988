//! Errors that prevent a data plane from starting.

use std::fmt;
use std::io;
use std::time::Duration;

use xdpfwd_pipeline::{BuildError, ResourceError};
use xdpfwd_xsk::{OpenError, UmemError};

use crate::attach::conflicts::{self, AttachedProgram, QueueHolders, describe_attached};
use crate::host::interface::NoInterface;
use crate::host::link::NotEthernet;
use crate::host::vlan::VlanTagLoss;
use crate::plan::Mode;
use crate::run::descriptors::TooFewDescriptors;

/// Reasons why a data plane does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The interface does not exist.
    #[error(transparent)]
    NoInterface(#[from] NoInterface),
    /// The interface carries other frames than Ethernet.
    #[error("port {port}: {source}")]
    NotEthernet {
        /// The port.
        port: String,
        /// The interface and its type.
        source: NotEthernet,
    },
    /// The process is not allowed to open enough files.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// The process lacks a privilege.
    #[error(
        "{what}: permission denied; run as root, or let the members of a group run the binary with \
         capabilities: `{}`",
        xdpfwd_xsk::grant_command(&xdpfwd_xsk::CAPABILITIES)
    )]
    Permission {
        /// The operation that failed.
        what: String,
    },
    /// The kernel lacks a feature.
    #[error("{what}; {fix}")]
    Unsupported {
        /// The missing feature.
        what: String,
        /// The remedy.
        fix: String,
    },
    /// Rules compare VLAN tags, which frames lose on this interface.
    #[error("{interface}: rules compare VLAN tags, but {}; {}", loss.cause, loss.fix)]
    VlanTags {
        /// The interface.
        interface: String,
        /// Cause and remedy.
        loss: VlanTagLoss,
    },
    /// The XDP program that runs a stage cannot be loaded.
    #[error(
        "cannot load the XDP program with the rules of a stage: {0}; \
         set place = \"auto\" to let the stage run in user space instead"
    )]
    Offload(String),
    /// An external resource of a stage, such as a file, could not be acquired.
    #[error("stage {stage}: {source}")]
    Resource {
        /// Stage name.
        stage: String,
        /// The cause and the remedy.
        source: ResourceError,
    },
    /// A stage cannot run in the kernel.
    #[error("stage {stage} cannot run in the kernel: {why}")]
    NotInKernel {
        /// Stage name.
        stage: String,
        /// The reason.
        why: String,
    },
    /// Another XDP program is attached to the interface.
    #[error("{interface} is busy: {}", describe_attached(.program.as_deref(), .interface))]
    AttachedAlready {
        /// The interface.
        interface: String,
        /// The attached program, if it was visible when the error was created.
        program: Option<Box<AttachedProgram>>,
    },
    /// The driver refuses native XDP in the interface's current configuration.
    #[error(
        "{interface}: mode \"{mode}\" needs native XDP, which the driver refuses: {why}; \
         {fix}, or set mode = \"skb\" or \"auto\""
    )]
    NativeRefused {
        /// The interface.
        interface: String,
        /// The requested mode.
        mode: Mode,
        /// The cause.
        why: String,
        /// The remedy.
        fix: String,
    },
    /// The kernel refused to attach the XDP program.
    #[error("{interface}: cannot attach the XDP program in mode \"{mode}\": {source}")]
    Attach {
        /// The interface.
        interface: String,
        /// The requested mode.
        mode: Mode,
        /// The kernel's error.
        source: io::Error,
    },
    /// The XDP program could not be loaded, or could not redirect to a socket.
    #[error("{0}")]
    Bpf(String),
    /// A worker could not open its sockets.
    #[error("worker {worker}: {source}")]
    Open {
        /// Worker number.
        worker: usize,
        /// The reason.
        source: OpenError,
    },
    /// A port's packet sockets could not be opened.
    #[error("{interface}: {source}")]
    Packet {
        /// The interface.
        interface: String,
        /// The reason.
        source: xdpfwd_packet::OpenError,
    },
    /// An interface could not be put into promiscuous mode.
    #[error(
        "{interface}: cannot enable promiscuous mode: {source}; \
         set promiscuous = false if all packets are addressed to this interface"
    )]
    Promiscuous {
        /// The interface.
        interface: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// Two ports cannot share a worker's packet memory.
    #[error(
        "ports {first} (io = \"af_xdp\") and {second} (io = \"xsk-rs\") cannot share packet \
         memory, because libxdp registers a UMEM of its own; set the same io for both ports, or \
         io = \"packet-mmsg\" for one of them"
    )]
    UnsharedMemory {
        /// A port with `io = "af_xdp"`.
        first: String,
        /// A port with `io = "xsk-rs"`.
        second: String,
    },
    /// Another AF_XDP socket is bound to a queue.
    #[error("worker {worker}: {source}; {holders}")]
    QueueBusy {
        /// Worker number.
        worker: usize,
        /// The error, which names the queue.
        source: OpenError,
        /// Processes that may use the queue.
        holders: QueueHolders,
    },
    /// A worker could not be built.
    #[error("worker {worker}: {source}")]
    Build {
        /// Worker number.
        worker: usize,
        /// The reason.
        source: BuildError,
    },
    /// A worker failed during startup.
    #[error("worker {worker}: {what}")]
    Worker {
        /// Worker number.
        worker: usize,
        /// The failure.
        what: String,
    },
    /// A worker could not be pinned.
    #[error(
        "worker {worker}: cannot pin its thread to core {core}; \
         choose one of the cores that this process may use: {allowed:?}"
    )]
    Pin {
        /// Worker number.
        worker: usize,
        /// The core.
        core: usize,
        /// The cores that the process may use.
        allowed: Vec<usize>,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// The failed operation.
        what: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// Two ports use one interface.
    #[error("ports {first} and {second} both use {interface}; configure one port per interface")]
    SameInterface {
        /// One port.
        first: String,
        /// The other port.
        second: String,
        /// Their interface.
        interface: String,
    },
    /// The plan has no workers or no ports.
    #[error("the plan has no {0}")]
    Empty(&'static str),
    /// A worker was not ready in time.
    #[error("worker {worker} did not start within {waited:?}")]
    Timeout {
        /// Worker number.
        worker: usize,
        /// The timeout.
        waited: Duration,
    },
}

/// A worker that has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerFailure {
    /// Worker number.
    pub worker: usize,
    /// The panic message, if it panicked. The panic's location is on stderr.
    pub panic: Option<String>,
}

impl fmt::Display for WorkerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.panic {
            Some(panic) => write!(f, "worker {} panicked: {panic}", self.worker),
            None => write!(f, "worker {} ended unexpectedly", self.worker),
        }
    }
}

impl std::error::Error for WorkerFailure {}

impl StartError {
    /// Returns whether a privilege, or a feature of the kernel or driver, is missing.
    pub fn lacks_privilege_or_feature(&self) -> bool {
        match self {
            Self::Permission { .. } | Self::Unsupported { .. } => true,
            Self::Open { source, .. } => {
                // `Pin`: the packet memory cannot be locked.
                matches!(
                    source,
                    OpenError::Permission
                        | OpenError::Unsupported
                        | OpenError::Pin { .. }
                        | OpenError::NoZeroCopy { .. }
                )
            }
            Self::Packet { source, .. } => {
                matches!(
                    source,
                    xdpfwd_packet::OpenError::Permission | xdpfwd_packet::OpenError::Unsupported
                )
            }
            _ => false,
        }
    }

    pub(crate) fn promiscuous_failed(interface: &str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => {
                Self::Permission { what: format!("{interface}: cannot enable promiscuous mode") }
            }
            _ => Self::Promiscuous { interface: interface.to_owned(), source },
        }
    }

    pub(crate) fn load_failed(error: &libbpf_rs::Error) -> Self {
        match error.kind() {
            libbpf_rs::ErrorKind::PermissionDenied => {
                Self::Permission { what: "cannot load the XDP program".into() }
            }
            _ => Self::Bpf(format!("cannot load the XDP program: {error:#}")),
        }
    }

    /// Creates the error for a worker that cannot open its sockets or memory. `workers` is the
    /// number of all workers; each has its own packet memory.
    pub(crate) fn open_failed(worker: usize, workers: usize, source: OpenError) -> Self {
        match source {
            // The pool of huge pages must be large enough for all workers.
            OpenError::Umem(UmemError::HugePages { bytes, pages, source }) => {
                let (bytes, pages) = (bytes * workers, pages * workers);
                Self::Open { worker, source: UmemError::HugePages { bytes, pages, source }.into() }
            }
            OpenError::Busy { .. } => {
                Self::QueueBusy { worker, source, holders: conflicts::find_queue_holders() }
            }
            _ => Self::Open { worker, source },
        }
    }
}
