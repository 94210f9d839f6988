//! Errors when a test bench is built or reloaded.

use xdpfwd_xsk::UmemError;

use crate::capability::ResourceError;
use crate::worker::BuildError;

/// Maximum number of ports of a test bench: the maximum number of ports on one UMEM.
pub(super) const MAX_PORTS: usize = 126;

/// Why a test bench could not be built or reloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestBenchError {
    /// A path names a port that the bench does not have.
    #[error("no port is called {name:?}; the ports are: {known}")]
    NoSuchPort {
        /// The name in the path.
        name: String,
        /// The names of all ports, as text.
        known: String,
    },
    /// Two ports have the same name.
    #[error("two ports are called {0:?}; give each port a unique name")]
    DuplicatePort(String),
    /// The bench has too many ports.
    #[error("{0} ports are too many for a test bench; the limit is {MAX_PORTS}")]
    TooManyPorts(usize),
    /// Two paths start from one port.
    #[error("two paths start from port {0:?}; a port has at most one")]
    TwoPaths(String),
    /// A stage could not acquire its resources.
    #[error("stage {stage:?}: {source}")]
    Resource {
        /// The name of the stage.
        stage: String,
        /// The stage's error.
        source: ResourceError,
    },
    /// The packet memory could not be created.
    #[error("cannot create the packet memory: {0}")]
    Umem(#[from] UmemError),
    /// The worker could not be built.
    #[error(transparent)]
    Worker(#[from] BuildError),
}
