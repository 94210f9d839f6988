//! The forwarding pipeline: packet processing between ports.
//!
//! A [`Worker`] owns ports, the frames of one [`xdpfwd_xsk::Umem`], and the paths between the
//! ports. Each path has a [`Chain`] of [`Stage`]s, which process packets in batches and give each a
//! [`Verdict`]. A dropped packet is counted under a [`Reason`]. A [`StageAccount`] counts packets
//! and CPU cycles of a stage.
//!
//! A chain known at compile time is a tuple, compiled as one piece of code; see the example
//! `own_stage` of `xdpfwd-stages`. A chain from a configuration file is a vector of
//! [`NamedStage`]s, planned by a [`Registry`] of stage kinds.

#![forbid(unsafe_code)]

mod capability;
mod chain;
mod cx;
mod egress;
#[cfg(feature = "testing")]
mod frame_log;
mod icmp;
mod ledger;
mod meta;
mod plan;
mod plan_fn;
mod port_name;
mod ports;
mod reason;
mod registry;
mod report;
mod shared_counters;
mod shared_table;
mod stage;
#[cfg(feature = "testing")]
pub mod testing;
mod verdict;
mod view;
mod worker;

pub use capability::{
    Cell, Column, ExclusiveResource, Inspectable, IntoRow, LongTable, Maintained, QueueBinding,
    QueueBound, ResourceError, ResourceOwner, Table, Unit, XdpArray, XdpImage, XdpOffload,
    XdpTables,
};
pub use chain::{Chain, NamedStage, Visitor};
pub use cx::Cx;
pub use icmp::IcmpErrors;
pub use ledger::{LedgerReport, StageAccount, Task, TaskAccount, stamp_cost};
pub use meta::Meta;
pub use plan::{
    BuildCx, Location, PlanCx, PlanDiagnostic, PlanError, StageConfig, StagePlan, Verdicts,
};
pub use plan_fn::PlanFn;
pub use port_name::PortName;
pub use ports::{PortAddress, PortInfo, Ports};
pub use reason::{DropReason, Drops, MAX_REASONS, Reason, ReasonError};
pub use registry::{PlanResult, Registry, StagePlanError, TableFormat};
pub use report::{FrameCounts, PathReport, QueueReport, StageReport, WorkerReport};
pub use shared_counters::SharedCounters;
pub use shared_table::{Loaded, SharedTable};
pub use stage::{SnapshotError, Stage};
pub use verdict::{PortId, Verdict};
pub use view::{PacketMut, View};
pub use worker::{
    BuildError, Idle, MAX_SPIN, Mailbox, OpenPortError, Remote, SPIN_PER_PACKET, Stopped,
    SwapResult, Transmission, Worker, WorkerBuilder, mailbox,
};

/// A configuration value with its location, for [`PlanError::at`].
pub use serde_spanned::Spanned;
/// The packet buffer, as in [`PacketMut::frame`].
pub use xdpfwd_xsk::Frame;

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
