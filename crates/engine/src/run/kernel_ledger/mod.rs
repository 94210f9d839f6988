//! The kernel ledger of a running data plane: which cores it measures, and what it reports.

mod cores;
mod measurement;
mod report;

pub(crate) use cores::find_cores;
pub(crate) use measurement::KernelLedger;
pub use measurement::kernel_ledger_obstacles;
pub(crate) use report::Traffic;
pub use report::{
    AccountReport, CoreReport, GroupReport, KernelLedgerReport, SamplingReport, SwitchesReport,
    TracingReport, XdpProgramReport,
};
