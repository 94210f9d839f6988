//! Stage configurations and stage plans.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_spanned::Spanned;
use xdpfwd_wire::{MacAddr, ethernet};

use crate::capability::{Inspectable, Maintained, QueueBound, ResourceOwner, XdpOffload};
use crate::ports::{PortInfo, Ports};
use crate::reason::ReasonError;
use crate::stage::Stage;
use crate::verdict::PortId;

/// A stage's table in the configuration file, without `kind`. Derive `Deserialize` with
/// `deny_unknown_fields`.
///
/// ```
/// use std::sync::Arc;
/// use xdpfwd_pipeline::{BuildCx, Cx, PlanCx, PlanError, Reason};
/// use xdpfwd_pipeline::{Stage, StageConfig, StagePlan, View};
///
/// /// `kind = "longest"`, `bytes = 1000`: drops longer packets.
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct LongestConfig { bytes: u16 }
///
/// #[derive(Clone, Debug)]
/// struct Longest(usize);
///
/// impl StageConfig for LongestConfig {
///     const KIND: &'static str = "longest";
///     fn plan(self, _: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError> {
///         if self.bytes < 14 {
///             return Err(PlanError::new("bytes must be at least 14, the Ethernet header"));
///         }
///         Ok(Arc::new(Longest(self.bytes.into())))
///     }
/// }
///
/// impl StagePlan for Longest {
///     fn build(&self, _: &BuildCx<'_>) -> Box<dyn Stage> { Box::new(self.clone()) }
///     fn summary(&self) -> String { format!("at most {} bytes", self.0) }
/// }
///
/// impl Stage for Longest {
///     fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
///         for mut packet in view.packets() {
///             if packet.frame.len() > self.0 { packet.drop(Reason::POLICY); }
///         }
///     }
/// }
/// ```
pub trait StageConfig: DeserializeOwned {
    /// The value of `kind` in the configuration.
    const KIND: &'static str;

    /// Validates the configuration and creates the plan, once, on the control thread: read files,
    /// compile rules and register drop reasons here.
    fn plan(self, cx: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError>;
}

/// The context in which a stage is planned.
#[derive(Clone, Copy, Debug)]
pub struct PlanCx<'a> {
    /// The folder that relative file names in the configuration refer to.
    pub directory: &'a Path,
    /// The number of workers, each with a copy of the stage. A limit in the configuration applies
    /// to all copies together.
    pub workers: usize,
    /// The ports. Properties of their interfaces may change before the stage is built.
    pub ports: &'a Ports,
}

impl<'a> PlanCx<'a> {
    /// Creates a context without ports.
    pub fn new(directory: &'a Path, workers: usize) -> Self {
        Self { directory, workers, ports: Ports::NONE }
    }
}

/// The context in which a stage is built.
#[derive(Clone, Copy, Debug)]
pub struct BuildCx<'a> {
    /// The number of the worker, from 0.
    pub worker: usize,
    /// The number of workers.
    pub workers: usize,
    /// Whether the XDP program does the stage's work, see [`StagePlan::as_xdp_offload`].
    pub in_kernel: bool,
    /// The ingress port of the stage's path.
    pub from: PortId,
    /// The egress port of the stage's path.
    pub to: PortId,
    /// All ports, with the current properties of their interfaces.
    pub ports: &'a Ports,
}

/// The context of a single worker without ports.
impl Default for BuildCx<'_> {
    fn default() -> Self {
        Self {
            worker: 0,
            workers: 1,
            in_kernel: false,
            from: PortId(0),
            to: PortId(0),
            ports: Ports::NONE,
        }
    }
}

impl<'a> BuildCx<'a> {
    /// Returns the path's ingress port; `None` if the context has no ports, as in tests.
    pub fn from_port(&self) -> Option<&'a PortInfo> {
        self.ports.get(self.from)
    }

    /// Returns the path's egress port; `None` if the context has no ports, as in tests.
    pub fn to_port(&self) -> Option<&'a PortInfo> {
        self.ports.get(self.to)
    }

    /// Returns an Ethernet header from the path's egress port to a neighbor, for
    /// [`PacketMut::encapsulate`](crate::PacketMut::encapsulate), which fills in the EtherType. The
    /// source address is zero if that of the port is unknown.
    pub fn ethernet_to(&self, next_hop: MacAddr) -> ethernet::Repr {
        let source = self.to_port().and_then(|port| port.mac).unwrap_or_default();
        ethernet::Repr::new(source, next_hop)
    }
}

/// A validated stage configuration, shared by all workers.
///
/// There is one plan per stage; [`build`](Self::build) runs once per worker. Optional capabilities
/// are traits: an `as_…` method returns the plan as such a trait, or `None`.
pub trait StagePlan: Any + Send + Sync + fmt::Debug {
    /// Creates the stage for one worker.
    ///
    /// Runs on the worker's thread between two batches, so it must be fast: read files in
    /// [`StageConfig::plan`].
    fn build(&self, cx: &BuildCx<'_>) -> Box<dyn Stage>;

    /// Describes the stage for `xdpfwd --check` and `xdpfwd ctl status`, for example
    /// `"1000 rules; default drop"`.
    fn summary(&self) -> String {
        String::new()
    }

    /// Returns the settings that decide about packets, as keys and values, for `--check`. Includes
    /// settings that have their default values.
    fn settings(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }

    /// Returns whether the stage compares VLAN tags. If so, its path must not start at an interface
    /// that removes tags from received frames.
    fn needs_vlan_tags(&self) -> bool {
        false
    }

    /// Returns diagnostics that do not prevent the stage from running.
    fn warnings(&self) -> &[PlanDiagnostic] {
        &[]
    }

    /// Returns the files that decide what the stage does: those from which the plan was made, and
    /// those that the stage reads or writes while it runs. A start as root refuses files that other
    /// users can change.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Returns the length of the longest IP packet that leaves the stage if packets of up to `mtu`
    /// bytes enter it. The default suits stages that do not change the length.
    fn longest_packet(&self, mtu: u32) -> u32 {
        mtu
    }

    /// Returns which packets the stage drops, for comparison on a reload.
    fn verdicts(&self) -> Verdicts {
        Verdicts::Unknown
    }

    /// Returns the plan as `XdpOffload` if the XDP program can do its work.
    fn as_xdp_offload(&self) -> Option<&dyn XdpOffload> {
        None
    }

    /// Returns the plan as `ResourceOwner` if it needs resources outside the process.
    fn as_resource_owner(&self) -> Option<&dyn ResourceOwner> {
        None
    }

    /// Returns the plan as `Maintained` if it has periodic work.
    fn as_maintained(&self) -> Option<&dyn Maintained> {
        None
    }

    /// Returns the plan as `Inspectable` if it has inspection tables.
    fn as_inspectable(&self) -> Option<&dyn Inspectable> {
        None
    }

    /// Returns the plan as `QueueBound` if it has flows that must arrive on certain queues.
    fn as_queue_bound(&self) -> Option<&dyn QueueBound> {
        None
    }
}

/// The packets that a stage drops, for comparison on a reload.
///
/// A reload may change a filter in the XDP program, or move a filter into it. It replaces the XDP
/// program and the stages in user space at different moments. In between, packets could pass that
/// both the old and the new rules drop. Therefore the reload compares the verdicts of the old and
/// the new stages in user space. If such packets could pass, it moves the new filter to user space
/// or fails.
#[derive(Clone, Debug)]
pub enum Verdicts {
    /// The stage drops no packet.
    AlwaysPass,
    /// Stages with equal keys drop the same packets.
    Key(String),
    /// Not known, so not equal to any verdicts, not even to another `Unknown`.
    Unknown,
}

impl PartialEq for Verdicts {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::AlwaysPass, Self::AlwaysPass) => true,
            (Self::Key(key), Self::Key(other_key)) => key == other_key,
            _ => false,
        }
    }
}

/// Why a stage configuration is invalid: a diagnostic for each problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct PlanError(pub Vec<PlanDiagnostic>);

impl PlanError {
    /// Creates an error about the stage as a whole.
    pub fn new(message: impl Into<String>) -> Self {
        Self(vec![PlanDiagnostic { location: Location::Stage, message: message.into() }])
    }

    /// Creates an error at a value in the configuration file.
    ///
    /// ```
    /// use xdpfwd_pipeline::{PlanError, Spanned};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct LimitConfig { percent: Spanned<u8> }
    ///
    /// fn check(config: &LimitConfig) -> Result<(), PlanError> {
    ///     if *config.percent.get_ref() > 100 {
    ///         return Err(PlanError::at(&config.percent, "must be at most 100"));
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn at<T>(value: &Spanned<T>, message: impl Into<String>) -> Self {
        let location = Location::Configuration(value.span());
        Self(vec![PlanDiagnostic { location, message: message.into() }])
    }
}

impl From<ReasonError> for PlanError {
    fn from(error: ReasonError) -> Self {
        Self::new(error.to_string())
    }
}

/// A diagnostic about a stage's configuration, with its location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanDiagnostic {
    /// Where the problem is.
    pub location: Location,
    /// What is wrong.
    pub message: String,
}

/// A location in a stage's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// The stage's table in the configuration file, as a whole.
    Stage,
    /// A byte range of the configuration file.
    Configuration(Range<usize>),
    /// A position in a file that the configuration names.
    File {
        /// The name of the file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
    },
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage => f.write_str("the stage"),
            Self::Configuration(bytes) => write!(f, "byte {} of the configuration", bytes.start),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
        }
    }
}

impl fmt::Display for PlanDiagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Location::Stage => f.write_str(&self.message),
            location => write!(f, "{location}: {}", self.message),
        }
    }
}
