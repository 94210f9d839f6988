//! `latency`: latency at fractions of the no-drop rate, and CPU use when idle.
//!
//! The no-drop rate is the highest rate at which a forwarder loses at most the fraction of frames
//! given by `--tolerance`.

use std::{collections::BTreeMap, fmt::Write as _, thread, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use xdpfwd_bench::machine::cpu_nanoseconds;
use xdpfwd_lab::{Chain, Histogram, Sink, Traffic};

use crate::{
    common::{Common, Stop, note, print, settle},
    forward::syscalls_per_packet,
    forwarders::{ForwarderKind, PreparedForwarder, RunningForwarder, brief},
    rate_search::{self, Limits, TrialCounts},
    stats::Median,
};

const FORWARDERS: [ForwarderKind; 4] = [
    ForwarderKind::Xdpfwd { io: "af_xdp", idle: "poll" },
    ForwarderKind::Testpmd { busy_poll: true },
    ForwarderKind::Xdpfwd { io: "af_xdp", idle: "spin" },
    ForwarderKind::BareLoop,
];
/// A rate in packets per second at which the generator sends as fast as it can.
const OVERLOAD_RATE: u64 = 100_000_000;
/// Packets per second of the measurement at a low rate.
const LOW_RATE: u64 = 1000;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Rounds; each measures every load of every forwarder once
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// Loads in percent of the no-drop rate
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', default_values_t = [10, 50, 90])]
    loads: Vec<u32>,
    /// Frame length in memory, in bytes without FCS
    #[arg(long, value_name = "BYTES", default_value_t = 60)]
    size: u16,
    /// Number of flows
    #[arg(long, value_name = "N", default_value_t = 16)]
    flows: u32,
    /// Maximum fraction of frames lost at the no-drop rate
    #[arg(long, value_name = "FRACTION", default_value_t = 0.001)]
    tolerance: f64,
    /// Attempts at a rate before it counts as too high (a shared machine may preempt a core)
    #[arg(long, value_name = "N", default_value_t = 2)]
    attempts: u32,
    /// Seconds of each trial that confirms the no-drop rate; trials before take a quarter of it
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    search_seconds: f64,
    /// Skip the measurements without traffic and at a low rate
    #[arg(long)]
    no_idle: bool,
    #[command(flatten)]
    common: Common,
}

struct LatencyBench {
    // Field order matters: the forwarder ends before its namespace is removed.
    running: RunningForwarder,
    sink: Sink,
    chain: Chain,
    traffic: Traffic,
}

#[derive(Serialize)]
struct Run {
    #[serde(rename = "peer")]
    forwarder: &'static str,
    /// In per cent of the no-drop rate; `None` for `LOW_RATE`.
    load: Option<u32>,
    round: u32,
    offered_pps: f64,
    /// Fraction lost.
    lost: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
    /// The forwarder's CPU use, as a fraction of one core.
    cpu: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    syscalls_per_packet: Option<f64>,
    #[serde(skip)]
    histogram: Histogram,
}

pub(crate) fn run(arguments: &Arguments, stop: &Stop) -> Result<()> {
    let common = &arguments.common;
    common.traffic.require_live("pktgen writes no send time that the sink could read")?;
    let mut output = common.begin("latency")?;
    let environment = common.environment()?;
    let (forwarders, missing) = common.prepare_selected(&FORWARDERS, &environment);

    let mut no_drop = BTreeMap::new();
    let mut steps = Vec::new();
    for forwarder in &forwarders {
        let rate =
            find_no_drop_rate(forwarder, arguments, stop, &mut steps).with_context(|| {
                format!("searching for the no-drop rate of {}", forwarder.kind.name())
            })?;
        note(&format!("{}: no-drop rate {:.3} Mpps", forwarder.kind.name(), rate / 1e6));
        no_drop.insert(forwarder.kind.name(), rate);
    }

    let (mut runs, mut idle, mut low_rate_runs, mut failed) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..arguments.rounds {
        let mut order: Vec<&PreparedForwarder> = forwarders.iter().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for &load in &arguments.loads {
            for forwarder in &order {
                stop.check()?;
                let rate = no_drop[forwarder.kind.name()] * f64::from(load) / 100.0;
                match measure_at_rate(forwarder, arguments, rate as u64, Some(load), round) {
                    Ok(run) => runs.push(run),
                    Err(error) => failed.push(format!(
                        "{}, {load} %: {}",
                        forwarder.kind.name(),
                        brief(&error)
                    )),
                }
            }
        }
        if !arguments.no_idle {
            for forwarder in &order {
                stop.check()?;
                let share = idle_share(forwarder, arguments)?;
                note(&format!(
                    "round {}: {:<14} idle: {:.2} % of a core",
                    round + 1,
                    forwarder.kind.name(),
                    100.0 * share
                ));
                idle.push((forwarder.kind.name(), share));
                match measure_at_rate(forwarder, arguments, LOW_RATE, None, round) {
                    Ok(run) => low_rate_runs.push(run),
                    Err(error) => failed.push(format!(
                        "{}, {LOW_RATE} pps: {}",
                        forwarder.kind.name(),
                        brief(&error)
                    )),
                }
            }
        }
    }

    let text =
        table(arguments, &forwarders, &missing, &no_drop, &runs, &idle, &low_rate_runs, &failed);
    print(&text)?;
    output.text(&text)?;
    let path = output.json(&json!({
        "schema": 1,
        "what": "latency",
        "size": arguments.size,
        "flows": arguments.flows,
        "seconds": common.traffic.seconds,
        "tolerance": arguments.tolerance,
        "commands": forwarders
            .iter()
            .map(|forwarder| (forwarder.kind.name(), forwarder.command_lines()))
            .collect::<BTreeMap<_, _>>(),
        "missing": missing,
        "failed": failed,
        "no_drop_pps": no_drop,
        "search": steps,
        "runs": runs,
        "idle_cpu": idle.iter().map(|(forwarder, share)| json!({"peer": forwarder, "cpu": share})).collect::<Vec<_>>(),
        "trickle": low_rate_runs,
    }))?;
    note(&format!("raw numbers: {}", path.display()));
    if let Some(reason) = missing.get("xdpfwd") {
        bail!("xdpfwd was not measured: {reason}");
    }
    if !failed.is_empty() {
        bail!("{} runs failed, see above", failed.len());
    }
    Ok(())
}

impl LatencyBench {
    fn new(forwarder: &PreparedForwarder, arguments: &Arguments) -> Result<Self> {
        let chain = Chain::builder().build()?;
        let sink = Sink::builder().latency(true).attach(chain.sink(), "sink0")?;
        let running = forwarder.start(&chain)?;
        let traffic = forwarder
            .kind
            .traffic()
            .size(arguments.size)
            .flows(arguments.flows)
            .core(arguments.common.traffic.generator_core);
        Ok(Self { running, sink, chain, traffic })
    }

    /// Sends at `rate` for `time`.
    fn trial(&mut self, rate: u64, time: Duration) -> Result<TrialCounts> {
        let before = self.sink.seen()?.arrived.packets;
        let generator = self.traffic.clone().rate(rate).start(self.chain.gen_(), "gen0")?;
        thread::sleep(time);
        let sent = generator.stop()?;
        settle(&self.sink)?;
        self.running.check()?;
        let received = self.sink.seen()?.arrived.packets - before;
        Ok(TrialCounts { sent: sent.packets, offered_pps: sent.pps(), received })
    }
}

/// Finds the highest rate with a loss within the tolerance.
fn find_no_drop_rate(
    forwarder: &PreparedForwarder,
    arguments: &Arguments,
    stop: &Stop,
    steps: &mut Vec<serde_json::Value>,
) -> Result<f64> {
    let mut bench = LatencyBench::new(forwarder, arguments)?;
    let seconds = arguments.search_seconds.clamp(0.01, 3600.0);
    let limits = Limits {
        seconds: vec![seconds / 4.0, seconds],
        attempts: arguments.attempts as usize,
        ..Limits::new(LOW_RATE as f64, OVERLOAD_RATE as f64)
    };
    let rates = rate_search::search(&limits, &[arguments.tolerance], |pps, seconds| {
        stop.check()?;
        let counts = bench.trial(pps as u64, Duration::from_secs_f64(seconds))?;
        note(&format!(
            "{}: {:.3} Mpps requested for {seconds} s, {:.3} offered, {:.4} % lost",
            forwarder.kind.name(),
            pps / 1e6,
            counts.offered_pps / 1e6,
            100.0 * counts.loss()
        ));
        steps.push(json!({
            "peer": forwarder.kind.name(),
            "rate": pps,
            "seconds": seconds,
            "offered_pps": counts.offered_pps,
            "lost": counts.loss(),
        }));
        Ok(counts)
    })?;
    drop(bench.running.stop()?);
    rates.first().and_then(|rate| rate.pps).with_context(|| {
        format!(
            "every trial lost more than {} % of the frames, down to {LOW_RATE} packets per second \
             or until {} trials were run",
            100.0 * arguments.tolerance,
            limits.max_trials
        )
    })
}

/// Measures in an open loop: the generator sends on schedule, whether earlier frames arrived or
/// not.
fn measure_at_rate(
    forwarder: &PreparedForwarder,
    arguments: &Arguments,
    rate: u64,
    load: Option<u32>,
    round: u32,
) -> Result<Run> {
    let common = &arguments.common;
    let mut bench = LatencyBench::new(forwarder, arguments)?;
    let generator = bench.traffic.clone().rate(rate).start(bench.chain.gen_(), "gen0")?;
    thread::sleep(common.warmup());
    let pid = bench.running.forwarder.as_ref().map(xdpfwd_lab::Forwarder::pid);
    let (latency_before, arrived_before) =
        (bench.sink.latency()?, bench.sink.seen()?.arrived.packets);
    let (sent_before, cpu_before, start) =
        (generator.sent()?.packets, pid.map(cpu_nanoseconds), std::time::Instant::now());
    thread::sleep(common.seconds());
    let (cpu_after, elapsed) = (pid.map(cpu_nanoseconds), start.elapsed().as_secs_f64());
    bench.running.check()?;
    let sent = generator.stop()?.packets;
    settle(&bench.sink)?;
    let histogram = bench.sink.latency()?.since(&latency_before);
    let arrived = bench.sink.seen()?.arrived.packets - arrived_before;
    let offered = sent.saturating_sub(sent_before);
    let final_report = bench.running.stop()?;
    let quantile_us =
        |q: f64| histogram.quantile(q).map_or(f64::NAN, |time| time.as_nanos() as f64 / 1e3);
    let run = Run {
        forwarder: forwarder.kind.name(),
        load,
        round,
        offered_pps: offered as f64 / elapsed,
        lost: (1.0 - arrived as f64 / offered.max(1) as f64).max(0.0),
        p50_us: quantile_us(0.5),
        p99_us: quantile_us(0.99),
        p999_us: quantile_us(0.999),
        max_us: quantile_us(1.0),
        cpu: cpu_after
            .zip(cpu_before)
            .map_or(0.0, |(after, before)| after.saturating_sub(before) as f64 / 1e9 / elapsed),
        syscalls_per_packet: final_report.as_ref().and_then(syscalls_per_packet),
        histogram,
    };
    let load_text = load.map_or(format!("{LOW_RATE} pps"), |load| format!("{load} %"));
    note(&format!(
        "round {}: {:<14} {load_text:>9}: {:.3} Mpps, p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs, \
         {:.3} % lost",
        round + 1,
        run.forwarder,
        run.offered_pps / 1e6,
        run.p50_us,
        run.p99_us,
        run.p999_us,
        100.0 * run.lost
    ));
    Ok(run)
}

/// Returns the forwarder's CPU use without traffic, as a share of one core.
fn idle_share(forwarder: &PreparedForwarder, arguments: &Arguments) -> Result<f64> {
    let bench = LatencyBench::new(forwarder, arguments)?;
    thread::sleep(arguments.common.warmup());
    let Some(pid) = bench.running.forwarder.as_ref().map(xdpfwd_lab::Forwarder::pid) else {
        return Ok(0.0);
    };
    let (cpu_before, start) = (cpu_nanoseconds(pid), std::time::Instant::now());
    thread::sleep(arguments.common.seconds());
    let share = (cpu_nanoseconds(pid) - cpu_before) as f64 / 1e9 / start.elapsed().as_secs_f64();
    bench.running.stop()?;
    Ok(share)
}

#[expect(clippy::too_many_arguments, reason = "each argument is a different result")]
fn table(
    arguments: &Arguments,
    forwarders: &[PreparedForwarder],
    missing: &BTreeMap<&'static str, String>,
    no_drop: &BTreeMap<&'static str, f64>,
    runs: &[Run],
    idle: &[(&'static str, f64)],
    low_rate_runs: &[Run],
    failed: &[String],
) -> String {
    let mut text = format!(
        "\n{} bytes, {} flows, one queue, one core, open loop; microseconds from the generator's \
         BPF program to the sink's\n",
        arguments.size, arguments.flows
    );
    let heading = format!(
        "  {:<14}{:>9}{:>9}{:>9}{:>9}{:>9}   {:<30}{:>9}{:>7}{:>10}\n",
        "",
        "Mpps",
        "p50",
        "p99",
        "p99.9",
        "max",
        "median p99 of the rounds",
        "lost",
        "CPU",
        "syscalls"
    );
    for &load in &arguments.loads {
        let _ = write!(text, "\nat {load} % of the no-drop rate\n{heading}");
        for name in forwarders.iter().map(|forwarder| forwarder.kind.name()) {
            let own_runs: Vec<&Run> =
                runs.iter().filter(|run| run.forwarder == name && run.load == Some(load)).collect();
            text += &row(name, &own_runs);
        }
        let p99 = |name: &str| -> BTreeMap<u32, f64> {
            let own_runs =
                runs.iter().filter(|run| run.forwarder == name && run.load == Some(load));
            own_runs.map(|run| (run.round, run.p99_us)).collect()
        };
        let (xdpfwd_p99, testpmd_p99) = (p99("xdpfwd"), p99("testpmd"));
        let ratios =
            xdpfwd_p99.iter().filter_map(|(round, p99)| Some(p99 / testpmd_p99.get(round)?));
        if let Some(ratio) = Median::of(ratios) {
            let (low, high, per_cent) = (ratio.low, ratio.high, 100.0 * ratio.coverage);
            let _ = writeln!(
                text,
                "  p99 of xdpfwd / p99 of testpmd within each round: {:.2}  [{low:.2}, {high:.2}] \
                 {per_cent:.0} %",
                ratio.median
            );
        }
    }
    if !low_rate_runs.is_empty() {
        let _ = write!(text, "\nat {LOW_RATE} packets per second\n{heading}");
        for name in forwarders.iter().map(|forwarder| forwarder.kind.name()) {
            text += &row(
                name,
                &low_rate_runs.iter().filter(|run| run.forwarder == name).collect::<Vec<_>>(),
            );
        }
        text += "\nwithout traffic, share of a core\n";
        for name in forwarders.iter().map(|forwarder| forwarder.kind.name()) {
            if let Some(share) = Median::of(
                idle.iter()
                    .filter(|(forwarder, _)| *forwarder == name)
                    .map(|(_, share)| 100.0 * share),
            ) {
                let _ = writeln!(
                    text,
                    "  {name:<14}{:.3} %  [{:.3}, {:.3}]",
                    share.median, share.low, share.high
                );
            }
        }
    }
    let _ = writeln!(
        text,
        "\nno-drop rate: at most {} % lost, {} s per trial",
        100.0 * arguments.tolerance,
        arguments.search_seconds
    );
    for (name, rate) in no_drop {
        let _ = writeln!(text, "  {name:<14}{:.3} Mpps", rate / 1e6);
    }
    for (name, reason) in missing {
        let _ = writeln!(text, "  {name:<14}missing: {reason}");
    }
    for failure in failed {
        let _ = writeln!(text, "FAILED: {failure}");
    }
    text
}

/// Formats quantiles over all frames, and the median of the rounds' p99.
fn row(name: &str, runs: &[&Run]) -> String {
    let Some(p99) = Median::of(runs.iter().map(|run| run.p99_us)) else { return String::new() };
    let mut all = Histogram::default();
    runs.iter().for_each(|run| all.add(&run.histogram));
    let quantile_us =
        |q: f64| all.quantile(q).map_or(f64::NAN, |time| time.as_nanos() as f64 / 1e3);
    let mean =
        |value: fn(&Run) -> f64| runs.iter().map(|run| value(run)).sum::<f64>() / runs.len() as f64;
    let calls = Median::of(runs.iter().filter_map(|run| run.syscalls_per_packet));
    format!(
        "  {name:<14}{:>9.3}{:>9.1}{:>9.1}{:>9.1}{:>9.0}   {:<30}{:>8.3}%{:>6.0}%{:>10}\n",
        mean(|run| run.offered_pps) / 1e6,
        quantile_us(0.5),
        quantile_us(0.99),
        quantile_us(0.999),
        quantile_us(1.0),
        format!(
            "{:.1}  [{:.1}, {:.1}] {:.0} %",
            p99.median,
            p99.low,
            p99.high,
            100.0 * p99.coverage
        ),
        100.0 * mean(|run| run.lost),
        100.0 * mean(|run| run.cpu),
        calls.map_or(String::new(), |calls| format!("{:.3}", calls.median)),
    )
}
