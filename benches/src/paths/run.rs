//! One run of a packet path: cycles, system calls and context switches per packet.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::Value;
use xdpfwd_lab::Traffic;

use super::table::PreparedPath;
use crate::{
    common::Common,
    forwarders::Environment,
    lab_run::{LabRun, sum},
};

/// Numbers are per packet that xdpfwd received, unless they say otherwise.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PathRun {
    pub(crate) path: &'static str,
    pub(crate) size: u16,
    pub(crate) round: u32,
    pub(crate) offered_pps: f64,
    pub(crate) forwarded_pps: f64,
    pub(crate) syscalls: f64,
    /// Cycles of xdpfwd's core, without idle time, from the ledger.
    pub(crate) forwarding_cycles: f64,
    /// Cycles of the generator's core, without idle time, per packet that the generator sent.
    pub(crate) receiving_cycles: f64,
    /// From the field `kernel_ledger`; `None` if it is off or not available.
    pub(crate) kernel: Option<KernelShare>,
    /// Why frames are missing, if any are.
    pub(crate) unexplained: Option<String>,
}

/// The kernel's share, per packet that xdpfwd received.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct KernelShare {
    /// Cycles by account.
    pub(crate) accounts: BTreeMap<String, f64>,
    /// Cycles of the group `copy` in all accounts.
    pub(crate) copy_cycles: f64,
    pub(crate) voluntary_switches: f64,
    pub(crate) involuntary_switches: f64,
}

/// Returns the increase of a number during the window, per packet that xdpfwd received.
type PerPacket<'a> = dyn Fn(&dyn Fn(&Value) -> Option<f64>) -> f64 + 'a;

impl PathRun {
    pub(crate) fn measure(
        path: &PreparedPath,
        common: &Common,
        environment: &Environment,
        size: u16,
        round: u32,
    ) -> Result<Self> {
        let run =
            LabRun::measure(common, &environment.xdpfwd, &path.config, &Traffic::new().size(size))?;
        let received = run.received();
        if received <= 0.0 {
            bail!("xdpfwd received no packet; the last report: {}", run.last());
        }
        let per_packet = |get: &dyn Fn(&Value) -> Option<f64>| run.increase(get) / received;
        let accounting = &run.accounting;
        let unexplained = (!accounting.is_good()).then(|| accounting.verdict(None));
        Ok(Self {
            path: path.path.name,
            size,
            round,
            offered_pps: run.window.offered_pps(),
            forwarded_pps: run.window.forwarded_pps(),
            syscalls: per_packet(&|report| report["kernel"]["syscalls"].as_f64()),
            forwarding_cycles: run.busy_tasks().values().sum::<f64>() / received,
            receiving_cycles: run.generator_core_cycles / run.window.offered.packets as f64,
            kernel: KernelShare::new(run.last(), &per_packet),
            unexplained,
        })
    }
}

impl KernelShare {
    /// Reads the field `kernel_ledger`.
    fn new(report: &Value, per_packet: &PerPacket<'_>) -> Option<Self> {
        let accounts = report["kernel_ledger"]["accounts"].as_array()?;
        let names = accounts.iter().filter_map(|account| account["name"].as_str());
        let accounts: BTreeMap<String, f64> = names
            .map(|name| {
                let cycles = per_packet(&|report| {
                    sum(&report["kernel_ledger"]["accounts"], |account| {
                        account["cycles"].as_f64().filter(|_| account["name"] == name)
                    })
                });
                (name.to_owned(), cycles)
            })
            .collect();
        if accounts.is_empty() {
            return None;
        }
        let switches = |kind: &str| {
            per_packet(&|report| {
                sum(&report["kernel_ledger"]["workers"], |worker| worker[kind].as_f64())
            })
        };
        Some(Self {
            accounts,
            copy_cycles: per_packet(&|report| {
                sum(&report["kernel_ledger"]["groups"], |group| {
                    group["cycles"].as_f64().filter(|_| group["name"] == "copy")
                })
            }),
            voluntary_switches: switches("voluntary_switches"),
            involuntary_switches: switches("involuntary_switches"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kernel_share_sums_copies_of_all_accounts_and_switches_of_all_workers() {
        let report = json!({"kernel_ledger": {
            "accounts": [{"name": "user", "cycles": 100}, {"name": "far_end", "cycles": 50}],
            "groups": [
                {"account": "system_call", "name": "copy", "cycles": 30},
                {"account": "system_call", "name": "scheduler", "cycles": 7},
                {"account": "far_end", "name": "copy", "cycles": 10},
            ],
            "workers": [
                {"worker": 0, "voluntary_switches": 4, "involuntary_switches": 1},
                {"worker": 1, "voluntary_switches": 6, "involuntary_switches": 1},
            ],
        }});
        let per_packet = |get: &dyn Fn(&Value) -> Option<f64>| get(&report).unwrap_or(0.0) / 10.0;
        let share = KernelShare::new(&report, &per_packet).unwrap();
        let accounts = [("user".to_owned(), 10.0), ("far_end".to_owned(), 5.0)];
        assert_eq!(share.accounts, BTreeMap::from(accounts));
        assert_eq!((share.copy_cycles, share.voluntary_switches), (4.0, 1.0));
        assert_eq!(share.involuntary_switches, 0.2);
    }

    #[test]
    fn kernel_share_is_missing_without_accounts() {
        let none = |report: &Value| KernelShare::new(report, &|_| 0.0);
        assert_eq!(none(&json!({})), None);
        assert_eq!(none(&json!({"kernel_ledger": {"mode": "off", "accounts": []}})), None);
    }
}
