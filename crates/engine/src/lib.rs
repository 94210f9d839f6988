//! Runs a data plane from a [`Plan`]: attaches XDP programs, binds sockets, starts pinned workers,
//! and reports counters. The binary `xdpfwd` creates the plan from a file; other binaries can
//! create it in Rust, with their own stages.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::{Duration, Instant};
//!
//! use xdpfwd_engine::{
//!     Control, DataPlane, Io, Keep, Mode, PathPlan, Plan, PortPlan, Qdisc, wait_until_up,
//! };
//! use xdpfwd_pipeline::{Idle, PortId};
//!
//! let port = |name: &str, interface: &str| PortPlan {
//!     name: name.into(),
//!     interface: interface.into(),
//!     io: Io::AfXdp,
//!     queues: 1,
//!     keep: Keep::new(), // passes nothing to the kernel
//!     promiscuous: true,
//!     qdisc: Qdisc::Bypass,
//! };
//! let path = |from, to| PathPlan { from: PortId(from), to: PortId(to), stages: vec![] };
//! let plan = Plan {
//!     mode: Mode::Auto,
//!     workers: vec![None], // one worker, not pinned to a core
//!     busy_poll: false,
//!     idle: Idle::Poll,
//!     ledger: true,
//!     kernel_ledger: xdpfwd_engine::KernelLedgerMode::Off,
//!     on_port_loss: xdpfwd_engine::PortLoss::Wait,
//!     umem: xdpfwd_xsk::UmemConfig::default(),
//!     ports: vec![port("lan", "eth1"), port("wan", "eth2")],
//!     paths: vec![path(0, 1), path(1, 0)],
//!     control: None,
//! };
//! let mut control = Control::new()?;
//! wait_until_up(&plan, &mut control, None)?; // no deadline
//! let data_plane = DataPlane::start(plan, &control)?;
//! control.wait(Instant::now() + Duration::from_secs(10))?;
//! println!("{:?}", data_plane.stop().frames);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod attach;
mod error;
mod host;
mod keep;
mod kernel_ledger_mode;
mod plan;
mod run;

pub use attach::conflicts::{
    AttachedProgram, AttachmentHolder, Process, QueueHolders, attached_program,
};
pub use attach::offload::{fill_tables, prepare_tables};
pub use attach::program::{AddressUpdateError, XdpCounters, XdpDecision, XdpProgram};
pub use error::{StartError, WorkerFailure};
pub use host::addresses::{AddressUse, OwnAddresses, describe_ports, ports_without_interfaces};
pub use host::driver::{Channels, Ethtool, XdpFeatures};
pub use host::interface::NoInterface;
pub use host::link::{HardwareType, Link, LinkUser, Links, NotEthernet};
pub use host::lockout::{Lockout, Lockouts, TrafficUse, lockouts};
pub use host::vlan::VlanTagLoss;
pub use keep::{Keep, KeepRule, KeepRuleError};
pub use kernel_ledger_mode::KernelLedgerMode;
pub use plan::{Io, Mode, PathPlan, Plan, PortLoss, PortPlan, StageOnPath};
pub use run::control::{Control, Event};
pub use run::data_plane::DataPlane;
pub use run::descriptors::{TooFewDescriptors, check_descriptors};
pub use run::handle::{Handle, HandleError};
pub use run::inspect::{Inspection, ListedTable, Listing, TableReport};
pub use run::kernel_ledger::{
    AccountReport, CoreReport, GroupReport, KernelLedgerReport, SamplingReport, SwitchesReport,
    TracingReport, XdpProgramReport, kernel_ledger_obstacles,
};
pub use run::ledger::{Ledger, TaskReport, WorkerLedger};
pub use run::recovery::PortLost;
pub use run::reload::ReloadError;
pub use run::report::{
    Fallback, KernelReport, PortKernelReport, PortMode, PortReport, PortState, REPORTED_ROWS,
    Report, ReportKind, SCHEMA, StageReport,
};
pub use run::socket::{ControlSocket, Request};
pub use run::start::Probe;
pub use run::up::{WaitOutcome, wait_until_up};
pub use xdpfwd_packet::Qdisc;

/// Compiles the example in README.md as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
