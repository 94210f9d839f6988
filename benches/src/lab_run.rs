//! One run of xdpfwd in the lab: its reports at both ends of a measured window, and an account of
//! every frame.

use std::{collections::BTreeMap, path::Path, thread};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use xdpfwd_bench::machine::busy_seconds;
use xdpfwd_lab::{
    Chain, Counters, Forwarder, PacketAccounting, Reading, Report, Sink, Traffic, VethDropCounts,
    Window,
};
use xdpfwd_xsk::clock;

use crate::{
    common::{Common, settle},
    launch::{REPORT_INTERVAL, STOP_DEADLINE, start_xdpfwd},
};

/// The results of a run.
pub(crate) struct LabRun {
    /// Reports at the start and at the end of the window. Counters are cumulative.
    first: Value,
    last: Value,
    /// Frames at generator and sink during the window.
    pub(crate) window: Window,
    /// Cycles of the generator's core during the window, without idle time.
    pub(crate) generator_core_cycles: f64,
    /// The account of all frames of the run.
    pub(crate) accounting: PacketAccounting,
}

impl LabRun {
    /// Runs xdpfwd with a configuration that forwards from fwd0 to fwd1, and sends traffic.
    pub(crate) fn measure(
        common: &Common,
        xdpfwd: &Path,
        config: &Path,
        traffic: &Traffic,
    ) -> Result<Self> {
        let chain = Chain::builder().build()?;
        let sink = Sink::attach(chain.sink(), "sink0")?;
        let mut forwarder = start_xdpfwd(&chain, xdpfwd, config, REPORT_INTERVAL)?;
        let veth = VethDropCounts::read(&chain)?;
        let core = common.traffic.generator_core;
        let traffic = common.traffic.prepare(traffic.clone());
        let generator = traffic.start(chain.gen_(), "gen0")?;
        thread::sleep(common.warmup());
        let (first, start) =
            (last_report(&forwarder, "interval")?, Reading::take(&generator, &sink)?);
        let busy = busy_seconds(Some(core))?;
        thread::sleep(common.seconds());
        let busy = busy_seconds(Some(core))? - busy;
        let (last, end) = (last_report(&forwarder, "interval")?, Reading::take(&generator, &sink)?);
        let sent = generator.stop()?;
        settle(&sink)?;
        forwarder.check_running()?;
        forwarder.stop(STOP_DEADLINE)?;
        let offered = Counters { packets: sent.packets, bytes: sent.bytes };
        let report: Report = serde_json::from_value(last_report(&forwarder, "final")?)?;
        let veth = VethDropCounts::read(&chain)?.since(&veth);
        let accounting = PacketAccounting::new(offered, &sink.seen()?, &report, Some(&veth));
        let run = Self {
            first,
            last,
            window: start.until(&end),
            generator_core_cycles: busy * clock::cycles_per_second(),
            accounting,
        };
        if run.seconds() <= 0.0 {
            bail!("xdpfwd printed no second report; use a longer --seconds");
        }
        Ok(run)
    }

    /// Returns how much a number in the report increased during the window. A missing number counts
    /// as 0.
    pub(crate) fn increase(&self, get: impl Fn(&Value) -> Option<f64>) -> f64 {
        let number = |report| get(report).unwrap_or(0.0);
        number(&self.last) - number(&self.first)
    }

    /// Returns the time between the two reports.
    pub(crate) fn seconds(&self) -> f64 {
        self.increase(|report| report["elapsed_seconds"].as_f64())
    }

    /// Returns the packets that xdpfwd received on all ports.
    pub(crate) fn received(&self) -> f64 {
        self.increase(|report| sum(&report["ports"], |port| port["rx_packets"].as_f64()))
    }

    /// Returns the packets that xdpfwd gave to the kernel on all ports.
    pub(crate) fn transmitted(&self) -> f64 {
        self.increase(|report| sum(&report["ports"], |port| port["tx_packets"].as_f64()))
    }

    /// Returns the cycles by task of the ledger, without the idle tasks `poll` and `wait`.
    pub(crate) fn busy_tasks(&self) -> BTreeMap<String, f64> {
        let tasks = self.last["ledger"]["tasks"].as_array().into_iter().flatten();
        tasks
            .enumerate()
            .filter_map(|(index, task)| Some((index, task["name"].as_str()?)))
            .filter(|(_, name)| !matches!(*name, "poll" | "wait"))
            .map(|(index, name)| {
                let cycles = |report: &Value| report["ledger"]["tasks"][index]["cycles"].as_f64();
                (name.to_owned(), self.increase(cycles))
            })
            .collect()
    }

    /// Returns the cycles per packet of the first path's first stage.
    pub(crate) fn stage_cycles(&self) -> f64 {
        let packets = |report: &Value| report["stages"][0]["packets"].as_f64();
        let cycles = |report: &Value| {
            Some(packets(report)? * report["stages"][0]["cycles_per_packet"].as_f64()?)
        };
        self.increase(cycles) / self.increase(packets)
    }

    /// Returns the report at the end of the window.
    pub(crate) fn last(&self) -> &Value {
        &self.last
    }
}

/// Returns the sum of a number over the elements of a list.
pub(crate) fn sum(list: &Value, get: impl Fn(&Value) -> Option<f64>) -> Option<f64> {
    Some(list.as_array()?.iter().filter_map(get).sum())
}

/// Returns the last report of this kind that xdpfwd printed.
pub(crate) fn last_report(forwarder: &Forwarder, kind: &str) -> Result<Value> {
    let pattern = format!(r#""type":"{kind}""#);
    let line = forwarder
        .last_line(|line| line.contains(&pattern))
        .with_context(|| format!("xdpfwd printed no {kind} report"))?;
    Ok(serde_json::from_str(&line)?)
}
