//! Why a data plane does not start.

use std::fmt;
use std::io;
use std::time::Duration;

use xdpfwd_pipeline::{BuildError, ResourceError};
use xdpfwd_xsk::OpenError;

use crate::attach::conflicts::{self, AttachedProgram, QueueHolders, say_attached};
use crate::host::interface::NoInterface;
use crate::plan::Mode;

/// Why a data plane does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The interface does not exist.
    #[error(transparent)]
    NoInterface(#[from] NoInterface),
    /// The process lacks a privilege.
    #[error(
        "{what}: permission denied; run as root, or grant the binary what it needs: \
             `setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock+ep PATH`"
    )]
    Permission {
        /// What it was not allowed to do.
        what: String,
    },
    /// The kernel lacks a feature.
    #[error("{what}; {fix}")]
    Unsupported {
        /// What is missing.
        what: String,
        /// What would help.
        fix: String,
    },
    /// The XDP program that does a stage's work cannot be loaded.
    #[error(
        "loading the XDP program with the rules of a stage: {0}; place = \"auto\" falls back to user space"
    )]
    Offload(String),
    /// A stage lacks something that is outside of this process: a file, say.
    #[error("stage {stage}: {source}")]
    Resource {
        /// The stage.
        stage: String,
        /// What, and what to do about it.
        source: ResourceError,
    },
    /// A stage cannot be in the kernel.
    #[error("stage {stage} cannot be in the kernel: {why}")]
    Placed {
        /// The stage.
        stage: String,
        /// Why.
        why: String,
    },
    /// Another XDP program is attached.
    #[error("{interface} is busy: {}", say_attached(.program.as_deref(), .interface))]
    AttachedAlready {
        /// The interface.
        interface: String,
        /// The program, and who holds it. `None` if it could not be found.
        program: Option<Box<AttachedProgram>>,
    },
    /// The driver has native XDP, but refuses it as things are.
    #[error(
        "{interface}: its driver refuses native XDP, which mode \"{mode}\" takes, because {why}; {fix}, or set \
         mode = \"skb\" or \"auto\""
    )]
    NativeRefused {
        /// The interface.
        interface: String,
        /// The mode asked for.
        mode: Mode,
        /// What stands in the way.
        why: String,
        /// What would help.
        fix: String,
    },
    /// The kernel refused to attach the program.
    #[error("{interface}: cannot attach the XDP program (mode {mode}): {source}")]
    Attach {
        /// The interface.
        interface: String,
        /// The mode asked for.
        mode: Mode,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused to load the program, or to take a socket into its map.
    #[error("BPF: {0}")]
    Bpf(String),
    /// A worker could not open its sockets.
    #[error("worker {worker}: {source}")]
    Open {
        /// The worker.
        worker: usize,
        /// Why.
        source: OpenError,
    },
    /// A port's packet sockets could not be opened.
    #[error("{interface}: {source}")]
    Packet {
        /// Its interface.
        interface: String,
        /// Why.
        source: xdpfwd_packet::OpenError,
    },
    /// An interface could not be put into promiscuous mode.
    #[error(
        "{interface}: cannot be put into promiscuous mode: {source}; set promiscuous = false if all is addressed to it"
    )]
    Promiscuous {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Ports that cannot share a worker's packet memory.
    #[error(
        "ports {first} (io = \"af_xdp\") and {second} (io = \"xsk-rs\") cannot share packet memory: libxdp registers its own; \
         let both have the same io, or one of them \"packet-mmsg\""
    )]
    UnsharedMemory {
        /// A port of the one kind.
        first: String,
        /// A port of the other.
        second: String,
    },
    /// Another AF_XDP socket is bound to a queue.
    #[error("worker {worker}: {source}; {holders}")]
    QueueBusy {
        /// The worker.
        worker: usize,
        /// Which queue.
        source: OpenError,
        /// Whose it may be.
        holders: QueueHolders,
    },
    /// A worker could not be built.
    #[error("worker {worker}: {source}")]
    Build {
        /// The worker.
        worker: usize,
        /// Why.
        source: BuildError,
    },
    /// A worker's thread did not start, or did not get ready.
    #[error("worker {worker}: {what}")]
    Worker {
        /// The worker.
        worker: usize,
        /// What happened.
        what: String,
    },
    /// A worker could not be pinned.
    #[error(
        "worker {worker}: cannot pin its thread to core {core}; the cores of this process are {allowed:?}"
    )]
    Pin {
        /// The worker.
        worker: usize,
        /// The core.
        core: usize,
        /// The cores that there are.
        allowed: Vec<usize>,
    },
    /// A system call of the control thread failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Two ports are on one interface.
    #[error(
        "ports {first} and {second} are both on {interface}: an interface can be one port only"
    )]
    SameInterface {
        /// One port.
        first: String,
        /// The other.
        second: String,
        /// Their interface.
        interface: String,
    },
    /// The plan has no workers or no ports.
    #[error("the plan has no {0}")]
    Empty(&'static str),
    /// A worker did not answer.
    #[error("worker {worker} did not get ready within {waited:?}")]
    Timeout {
        /// The worker.
        worker: usize,
        /// How long it was waited for.
        waited: Duration,
    },
}

/// A worker that does not work any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerFailure {
    /// Its number.
    pub worker: usize,
    /// What it said, if it panicked: where stands on stderr.
    pub panic: Option<String>,
}

impl fmt::Display for WorkerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.panic {
            Some(panic) => write!(f, "worker {} panicked: {panic}", self.worker),
            None => write!(f, "worker {} ended by itself", self.worker),
        }
    }
}

impl std::error::Error for WorkerFailure {}

impl StartError {
    /// Whether a privilege, a capability or a kernel feature is what is missing.
    pub fn lacks_privilege_or_feature(&self) -> bool {
        match self {
            Self::Permission { .. } | Self::Unsupported { .. } => true,
            Self::Open { source, .. } => {
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

    pub(crate) fn promiscuous(interface: &str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => {
                Self::Permission { what: format!("{interface}: promiscuous mode") }
            }
            _ => Self::Promiscuous { interface: interface.to_owned(), source },
        }
    }

    pub(crate) fn load(error: &libbpf_rs::Error) -> Self {
        match error.kind() {
            libbpf_rs::ErrorKind::PermissionDenied => {
                Self::Permission { what: "loading the XDP program".into() }
            }
            _ => Self::Bpf(format!("loading the XDP program: {error:#}")),
        }
    }

    pub(crate) fn open(worker: usize, source: OpenError) -> Self {
        match source {
            OpenError::Busy { .. } => {
                Self::QueueBusy { worker, source, holders: conflicts::of_queue() }
            }
            _ => Self::Open { worker, source },
        }
    }
}
