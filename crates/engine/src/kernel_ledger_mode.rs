//! How the kernel's share of the work is measured.

use std::fmt;

/// How the kernel ledger (where the kernel spends the time of the workers' cores) is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KernelLedgerMode {
    /// Not at all.
    #[default]
    Off,
    /// By samples of the cores' call chains: cheap, and divided into groups of functions.
    Sampled,
    /// By BPF programs on tracepoints: exact, at a high cost per system call and softirq.
    Exact,
}

impl KernelLedgerMode {
    /// Returns the name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Sampled => "sampled",
            Self::Exact => "exact",
        }
    }
}

impl fmt::Display for KernelLedgerMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
