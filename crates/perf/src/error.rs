//! Errors.

use std::io;

use crate::symbols::SymbolError;

/// Why a measurement cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The process may not sample other programs.
    #[error("needs CAP_PERFMON (or sysctl kernel.perf_event_paranoid=0)")]
    NoPerfmon,
    /// The kernel hides its symbols.
    #[error("needs CAP_SYSLOG and sysctl kernel.kptr_restrict=1 or 0, to read kernel symbols")]
    HiddenSymbols,
    /// The kernel's symbols do not contain the functions that are searched for.
    #[error("the kernel's symbols (/proc/kallsyms) contain no function that runs softirqs")]
    UnknownSymbols,
    /// The symbols cannot be read.
    #[error("{0}")]
    Symbols(io::Error),
    /// The process may not load BPF programs for tracepoints.
    #[error("needs CAP_BPF and CAP_PERFMON, to attach BPF programs to tracepoints")]
    NoTracing,
    /// Thread ids of this namespace are not those of the kernel.
    #[error("needs the initial PID namespace: start xdpfwd outside of containers")]
    PidNamespace,
    /// A BPF program was rejected.
    #[error("cannot trace: {0}")]
    Bpf(String),
    /// The memory for samples exceeds the limit on locked memory.
    #[error("cannot lock memory for samples: needs CAP_IPC_LOCK (or a higher `ulimit -l`)")]
    LockedMemory,
    /// The kernel rejected an event.
    #[error("cannot sample (perf_event_open): {0}")]
    Event(io::Error),
    /// A thread could not be started.
    #[error("cannot start the thread that reads samples: {0}")]
    Thread(io::Error),
}

impl StartError {
    pub(crate) fn of_event(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::NoPerfmon,
            _ => Self::Event(error),
        }
    }

    /// `error` comes from mapping the ring buffer of an event.
    pub(crate) fn of_ring(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::LockedMemory,
            _ => Self::Event(error),
        }
    }

    pub(crate) fn of_bpf(error: &libbpf_rs::Error) -> Self {
        match error.kind() {
            libbpf_rs::ErrorKind::PermissionDenied => Self::NoTracing,
            _ => Self::Bpf(format!("{error:#}")),
        }
    }
}

impl From<SymbolError> for StartError {
    fn from(error: SymbolError) -> Self {
        match error {
            SymbolError::Hidden => Self::HiddenSymbols,
            SymbolError::Io(error) => Self::Symbols(error),
        }
    }
}
