//! Measures where the kernel spends the time of packet-processing threads ("workers").
//!
//! [`Sampler`] samples the cores of the workers, and those that receive packets for them, with the
//! kernel's `perf_event_open`, and charges each sample to an [`Account`] and a [`Group`] of kernel
//! functions. [`Tracer`] measures the accounts exactly, with BPF programs on tracepoints, at a much
//! higher cost. [`RunTimeStatistics`] and [`RunTime`] measure BPF programs, and [`Switches`] counts
//! context switches.
//!
//! ```no_run
//! use xdpfwd_perf::{Account, Core, Sampler, Symbols};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let worker_thread_ids = [4711];
//! let core = Core { number: 1, has_worker: true, only_veths: false, polls_other_end: false };
//! let sampler = Sampler::start(Symbols::read(&["my_xdp_program"])?, &[core], worker_thread_ids)?;
//! std::thread::sleep(std::time::Duration::from_secs(10));
//! for usage in sampler.counts().cores {
//!     let time = usage.account(Account::SystemCall);
//!     println!("core {}: {time:?} in system calls", usage.core);
//! }
//! # Ok(())
//! # }
//! ```

mod account;
mod calibration;
mod chain;
mod error;
mod event;
mod exact;
mod functions;
mod run_time;
mod sampler;
mod switches;
mod symbols;

pub use account::{Account, CoreUsage, Group, Samples};
pub use chain::{Core, Thread, classify};
pub use error::StartError;
pub use exact::{Traced, Tracer};
pub use run_time::{RunTime, RunTimeStatistics};
pub use sampler::{FREQUENCY_HZ, Sampled, Sampler};
pub use switches::Switches;
pub use symbols::{SymbolError, Symbols};

/// Compiles the example in README.md as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
