//! From a plan to a running data plane: XDP programs attached, sockets bound, workers on their cores, and a report of it
//! all. What the binary `xdpfwd` does with a file, another binary can do with a [`Plan`] made in Rust, and with stages of
//! its own.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::{Duration, Instant};
//!
//! use engine::{Control, DataPlane, Io, Keep, Mode, PathPlan, Plan, PortPlan, wait_until_up};
//! use pipeline::{Idle, PortId};
//!
//! let port = |name: &str, interface: &str| PortPlan {
//!     name: name.into(),
//!     interface: interface.into(),
//!     io: Io::AfXdp,
//!     queues: 1,
//!     keep: Keep::new(),
//!     promiscuous: true,
//! };
//! let path = |from, to| PathPlan { from: PortId(from), to: PortId(to), stages: vec![] };
//! let plan = Plan {
//!     mode: Mode::Auto,
//!     workers: vec![None],
//!     busy_poll: false,
//!     idle: Idle::Poll,
//!     ledger: true,
//!     umem: xsk::UmemConfig::default(),
//!     ports: vec![port("lan", "eth1"), port("wan", "eth2")],
//!     paths: vec![path(0, 1), path(1, 0)],
//!     control: None,
//! };
//! let mut control = Control::new()?;
//! wait_until_up(&plan, &mut control, None)?;
//! let data_plane = DataPlane::start(plan, &control)?;
//! control.wait(Instant::now() + Duration::from_secs(10))?;
//! println!("{:?}", data_plane.stop().frames);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod attach;
mod control;
mod data_plane;
mod driver;
mod error;
mod exchange;
mod generic;
mod holder;
mod host;
mod interface;
mod keep;
mod kernel_filter;
mod ledger;
mod lockout;
mod netlink;
mod plan;
mod program;
mod reload;
mod report;
mod socket;
mod tally;
mod thread;
mod up;

pub use control::{Control, Event};
pub use data_plane::{DataPlane, Probe};
pub use driver::{Channels, Ethtool, XdpFeatures, is_veth};
pub use error::{StartError, WorkerFailure};
pub use holder::{AttachedProgram, Keeper, Process, QueueHolders, attached_program};
pub use host::{GoodFor, OwnAddresses};
pub use keep::{Keep, KeepRule, KeepRuleError};
pub use kernel_filter::{fill_tables, prepare_tables};
pub use ledger::{Ledger, TaskReport, WorkerLedger};
pub use lockout::{Carried, Lockout, lockouts};
pub use plan::{Io, Mode, PathPlan, Plan, PortPlan, StageOnPath};
pub use program::{FollowError, Judgement, XdpCounters, XdpProgram};
pub use reload::ReloadError;
pub use report::{
    Fallback, KernelReport, PortKernelReport, PortMode, PortReport, Report, ReportKind, RuleReport, Rules, SCHEMA,
    StageReport,
};
pub use socket::{ControlSocket, Request};
pub use up::{Waited, wait_until_up};
