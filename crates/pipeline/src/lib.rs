//! The forwarding pipeline: what happens to packets between one port and another.
//!
//! A [`Worker`] owns some ports, the frames of one [`xsk::Umem`], and the paths between the ports. Each path is a [`Chain`] of
//! [`Stage`]s; a stage sees packets a batch at a time and gives each a [`Verdict`]. What is dropped is counted under a [`Reason`],
//! what it cost under the stage's [`StageAccount`].
//!
//! The chain is a tuple where it is known in Rust, compiled as one piece of code; the example `own_stage` shows a stage of
//! one's own in one. From a configuration file it is a vector, made by a [`Registry`] of stage kinds.

#![forbid(unsafe_code)]

mod chain;
mod egress;
mod kind;
mod ledger;
mod mailbox;
mod meta;
mod reason;
mod report;
mod run;
mod stage;
pub mod stages;
mod verdict;
mod view;
pub mod wire;
mod worker;

pub use chain::{Chain, NamedStage, Visitor};
pub use kind::{
    BuildCx, Claim, ForKernel, KindError, PlanCx, PlanError, PrepareError, Registry, Remark, StageConfig, StagePlan,
    Whereabouts,
};
pub use ledger::{LedgerReport, StageAccount, Task, TaskAccount, stamp_cost};
pub use mailbox::{Idle, LONGEST_SPIN, Mailbox, Remote, SPIN, Stopped, mailbox};
pub use meta::Meta;
pub use reason::{Drops, Reason};
pub use report::{FrameCensus, PathReport, QueueReport, SaReport, StageReport, WorkerReport};
pub use stage::{Cx, Matched, SnapshotError, Stage};
pub use verdict::{PortId, Verdict};
pub use view::{Packet, View};
pub use worker::{BuildError, Worker, WorkerBuilder};
