//! The running data plane: start, worker threads, reload, control thread, report.

pub(crate) mod carry;
pub(crate) mod control;
pub(crate) mod data_plane;
pub(crate) mod descriptors;
mod exchange;
pub(crate) mod handle;
pub(crate) mod inspect;
pub(crate) mod kernel_ledger;
pub(crate) mod ledger;
pub(crate) mod outage;
pub(crate) mod recovery;
pub(crate) mod reload;
pub(crate) mod report;
pub(crate) mod socket;
pub(crate) mod start;
mod thread;
pub(crate) mod up;
