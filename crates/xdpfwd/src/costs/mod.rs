//! CPU cycles by task, stage and account, as read from a report: since the start, or between two
//! reports.
//!
//! The fields are those of docs/report.md. A report of another version may lack some of them.

mod difference;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use difference::ratio;
#[cfg(feature = "top")]
pub(crate) use difference::{delta, sum};

/// The answer to `ctl ledger`, and the same part of a report.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Costs {
    /// Seconds that the counters cover.
    pub(crate) elapsed_seconds: f64,
    /// Packets received by all ports.
    pub(crate) rx_packets: u64,
    /// System calls of the workers.
    pub(crate) syscalls: u64,
    pub(crate) ledger: Ledger,
    pub(crate) stages: Vec<Stage>,
    /// `None` in the report of a version without this field.
    pub(crate) kernel_ledger: Option<KernelLedger>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Ledger {
    pub(crate) on: bool,
    pub(crate) cycles_per_second: f64,
    pub(crate) stamp_cycles: u64,
    pub(crate) busy_cycles: u64,
    pub(crate) idle_cycles: u64,
    pub(crate) tasks: Vec<Task>,
    pub(crate) workers: Vec<Worker>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) calls: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) cycles: u64,
    pub(crate) cycles_per_packet: f64,
    pub(crate) packets_per_call: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Worker {
    pub(crate) worker: usize,
    pub(crate) wall_cycles: u64,
    pub(crate) busy_cycles: u64,
    pub(crate) idle_cycles: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Stage {
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) place: String,
    pub(crate) calls: u64,
    pub(crate) packets: u64,
    pub(crate) drops: u64,
    pub(crate) cycles: u64,
    pub(crate) cycles_per_packet: f64,
    pub(crate) packets_per_call: f64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) counters: BTreeMap<String, u64>,
}

/// The share of the kernel: `kernel_ledger` of a report.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct KernelLedger {
    pub(crate) mode: String,
    pub(crate) unavailable: Option<String>,
    pub(crate) seconds: f64,
    pub(crate) sampling: Option<Sampling>,
    pub(crate) tracing: Option<Tracing>,
    pub(crate) accounts: Vec<Account>,
    pub(crate) groups: Vec<Account>,
    pub(crate) cores: Vec<Core>,
    pub(crate) workers: Vec<Switches>,
    pub(crate) syscalls_per_packet: f64,
    pub(crate) xdp_programs: Vec<XdpProgram>,
    pub(crate) xdp_unavailable: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Sampling {
    pub(crate) frequency_hz: u64,
    pub(crate) samples: u64,
    pub(crate) lost: u64,
    pub(crate) sample_nanoseconds: u64,
    pub(crate) cost_percent: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Tracing {
    pub(crate) events: u64,
    pub(crate) event_nanoseconds: u64,
    pub(crate) cost_percent: f64,
}

/// An account such as `system_call`, or a function group of one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Account {
    /// The account of a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<String>,
    pub(crate) name: String,
    pub(crate) samples: u64,
    pub(crate) cycles: u64,
    pub(crate) cycles_per_packet: f64,
    pub(crate) share_percent: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Core {
    pub(crate) core: usize,
    pub(crate) workers: Vec<usize>,
    pub(crate) accounts: Vec<Account>,
}

/// The context switches of a worker.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Switches {
    pub(crate) worker: usize,
    pub(crate) voluntary_switches: u64,
    pub(crate) involuntary_switches: u64,
    pub(crate) voluntary_switches_per_packet: f64,
    pub(crate) involuntary_switches_per_packet: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct XdpProgram {
    pub(crate) port: String,
    pub(crate) interface: String,
    pub(crate) runs: u64,
    pub(crate) nanoseconds: u64,
    pub(crate) cycles_per_run: f64,
}

impl Task {
    /// Returns whether the task is idle time.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(&*self.name, "poll" | "wait")
    }
}

impl KernelLedger {
    /// Returns why there are no accounts, with the remedy; `None` if there are.
    pub(crate) fn why_empty(ledger: Option<&Self>) -> Option<String> {
        const HOW: &str = "set kernel_ledger = \"sampled\" in [engine] and restart";
        match ledger {
            None => Some("not measured by this version".to_owned()),
            Some(Self { unavailable: Some(reason), .. }) => Some(format!("unavailable: {reason}")),
            Some(ledger) if matches!(&*ledger.mode, "off" | "") => Some(format!("off: {HOW}")),
            Some(ledger) if ledger.accounts.is_empty() => Some("no figures yet".to_owned()),
            Some(_) => None,
        }
    }

    /// Describes how the figures were measured, such as `"sampled at 241 Hz, 2,410 samples"`.
    pub(crate) fn method(&self) -> String {
        let grouped = crate::text_table::grouped;
        match (&self.sampling, &self.tracing) {
            (Some(sampling), _) => {
                let lost = match sampling.lost {
                    0 => String::new(),
                    lost => format!(", {} lost", grouped(lost)),
                };
                let (hertz, samples) = (sampling.frequency_hz, grouped(sampling.samples));
                format!("sampled at {hertz} Hz, {samples} samples{lost}")
            }
            (None, Some(tracing)) => format!("exact, {} events", grouped(tracing.events)),
            (None, None) => self.mode.clone(),
        }
    }

    /// Returns the measured share of time that measuring took, in percent.
    pub(crate) fn cost_percent(&self) -> Option<f64> {
        let sampling = self.sampling.as_ref().map(|sampling| sampling.cost_percent);
        sampling.or(self.tracing.as_ref().map(|tracing| tracing.cost_percent))
    }
}
