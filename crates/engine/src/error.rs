//! Why a data plane does not start.

use std::fmt;
use std::io;
use std::time::Duration;

use pipeline::BuildError;
use xsk::OpenError;

use crate::holder::{self, AttachedProgram, QueueHolders, say_attached};
use crate::interface::Interface;
use crate::plan::Mode;

/// Why a data plane does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The interface does not exist.
    #[error("port {port}: no interface {interface} in this network namespace; there are: {present}")]
    NoInterface {
        /// The port.
        port: String,
        /// Its interface.
        interface: String,
        /// The interfaces that exist.
        present: String,
    },
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
    /// Another XDP program is attached.
    #[error("{interface} is busy: {}", say_attached(.program.as_deref(), .interface))]
    AttachedAlready {
        /// The interface.
        interface: String,
        /// The program, and who holds it. `None` if it could not be found.
        program: Option<Box<AttachedProgram>>,
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
    #[error("worker {worker}: cannot pin its thread to core {core}; the cores of this process are {allowed:?}")]
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
    #[error("ports {first} and {second} are both on {interface}: an interface can be one port only")]
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
            _ => false,
        }
    }

    pub(crate) fn bpf(what: String) -> Self {
        Self::Bpf(what)
    }

    pub(crate) fn load(error: &libbpf_rs::Error) -> Self {
        match error.kind() {
            libbpf_rs::ErrorKind::PermissionDenied => Self::Permission { what: "loading the XDP program".into() },
            _ => Self::Bpf(format!("loading the XDP program: {error:#}")),
        }
    }

    pub(crate) fn open(worker: usize, source: OpenError) -> Self {
        match source {
            OpenError::Busy { .. } => Self::QueueBusy { worker, source, holders: holder::of_queue() },
            _ => Self::Open { worker, source },
        }
    }

    pub(crate) fn attach(interface: &Interface, mode: Mode, source: io::Error) -> Self {
        const EOPNOTSUPP: i32 = 95;
        let find = || holder::of_interface(interface).map(Box::new);
        let interface = interface.name.clone();
        match source.kind() {
            io::ErrorKind::PermissionDenied => {
                Self::Permission { what: format!("attaching the XDP program to {interface}") }
            }
            io::ErrorKind::ResourceBusy | io::ErrorKind::AlreadyExists => {
                Self::AttachedAlready { program: find(), interface }
            }
            _ if source.raw_os_error() == Some(EOPNOTSUPP) => Self::Unsupported {
                what: format!("{interface}: its driver has no native XDP, which mode \"{mode}\" takes"),
                fix: "set mode = \"skb\", or \"auto\"".into(),
            },
            _ => Self::Attach { interface, mode, source },
        }
    }
}
