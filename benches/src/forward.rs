//! `forward`: packets per second of each forwarder, relative to the bare loop of the same round.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use xdpfwd_lab::{Chain, Reading, Sink, Window, grouped};

use crate::{
    common::{Common, Stop, note, settle},
    forwarders::{ALL, ForwarderKind, PreparedForwarder, brief},
    stats::Median,
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Rounds with 60 bytes and 16 flows; each runs every forwarder once
    #[arg(long, value_name = "N", default_value_t = 9)]
    rounds: u32,
    /// Rounds with every other size and number of flows
    #[arg(long, value_name = "N", default_value_t = 3)]
    other_rounds: u32,
    /// Frame lengths in memory, in bytes without FCS
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_values_t = [60, 512, 1514])]
    sizes: Vec<u16>,
    /// Numbers of flows
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 16, 1000])]
    flows: Vec<u32>,
    /// Skip the run with two queues
    #[arg(long)]
    one_queue: bool,
    #[command(flatten)]
    common: Common,
}

/// A measurement of one forwarder.
#[derive(Clone, Debug, Serialize)]
struct Run {
    peer: &'static str,
    size: u16,
    flows: u32,
    round: u32,
    offered_pps: f64,
    forwarded_pps: f64,
    /// Transmit and receive system calls per received packet, as xdpfwd counts them over its whole
    /// run.
    #[serde(skip_serializing_if = "Option::is_none")]
    syscalls_per_packet: Option<f64>,
}

const HEADLINE: (u16, u32) = (60, 16);

pub(crate) fn run(arguments: &Arguments, stop: &Stop) -> Result<()> {
    let common = &arguments.common;
    let mut output = common.begin("forward")?;
    let environment = common.environment()?;
    let (ready, missing) = common.prepare_selected(&ALL, &environment);
    let mut cells: Vec<(u16, u32)> = Vec::new();
    for &size in &arguments.sizes {
        cells.extend(arguments.flows.iter().map(|&flows| (size, flows)));
    }
    // Measure the headline first, so that an interrupted run has it.
    cells.sort_by_key(|&cell| cell != HEADLINE);
    let mut runs = Vec::new();
    let mut failed = Vec::new();
    for &(size, flows) in &cells {
        let rounds =
            if (size, flows) == HEADLINE { arguments.rounds } else { arguments.other_rounds };
        for round in 0..rounds {
            let mut order: Vec<&PreparedForwarder> = ready.iter().collect();
            if round % 2 == 1 {
                // Reverse the order in every other round, so that its effect cancels out.
                order.reverse();
            }
            for ready in order {
                stop.check()?;
                match measure_once(ready, common, size, flows, round) {
                    Ok(run) => {
                        note(&format!(
                            "{size} bytes, {flows} flows, round {} of {rounds}: {:<22} \
                             {:>7.3} Mpps of {:.2} offered",
                            round + 1,
                            run.peer,
                            run.forwarded_pps / 1e6,
                            run.offered_pps / 1e6
                        ));
                        runs.push(run);
                    }
                    Err(error) => {
                        let name = ready.kind.name();
                        note(&format!(
                            "{size} bytes, {flows} flows, round {}: {name}: FAILED: {error:#}",
                            round + 1
                        ));
                        let error = brief(&error);
                        failed.push(format!(
                            "{name}, {size} bytes, {flows} flows, round {}: {error}",
                            round + 1
                        ));
                    }
                }
            }
        }
    }
    let mut queues = Vec::new();
    if !arguments.one_queue {
        for kind in common.selected(&ALL) {
            stop.check()?;
            let outcome = match missing.get(kind.name()) {
                Some(_) => "missing".to_owned(),
                None => two_queues(kind, common),
            };
            note(&format!("two queues: {}: {outcome}", kind.name()));
            queues.push((kind.name(), outcome));
        }
    }
    let text = table(&cells, &ready, &missing, &runs, &failed, &queues);
    print!("{text}");
    output.text(&text)?;
    let notes: BTreeMap<_, _> = ready.iter().map(|r| (r.kind.name(), r.kind.differs())).collect();
    let commands: BTreeMap<_, _> =
        ready.iter().map(|r| (r.kind.name(), r.command_lines())).collect();
    let path = output.json(&json!({
        "schema": 1,
        "what": "forward",
        "seconds": common.seconds,
        "warmup": common.warmup,
        "commands": commands,
        "differs": notes,
        "missing": missing,
        "failed": failed,
        "runs": runs,
        "two_queues": queues.iter().map(|(name, outcome)| json!({"peer": name, "outcome": outcome})).collect::<Vec<_>>(),
    }))?;
    note(&format!("raw numbers: {}", path.display()));
    if let Some(why) = missing.get("xdpfwd") {
        bail!("xdpfwd was not measured: {why}");
    }
    if let Some((name, outcome)) = queues.iter().find(|(_, outcome)| {
        !outcome.starts_with("good") && outcome.starts_with(char::is_uppercase)
    }) {
        bail!("{name}, two queues: {outcome}");
    }
    if !failed.is_empty() {
        bail!("{} of {} runs failed, see above", failed.len(), failed.len() + runs.len());
    }
    Ok(())
}

/// Runs one measurement in a new lab.
fn measure_once(
    ready: &PreparedForwarder,
    common: &Common,
    size: u16,
    flows: u32,
    round: u32,
) -> Result<Run> {
    let chain = Chain::builder().build()?;
    let sink = Sink::attach(chain.sink(), "sink0")?;
    let mut running = ready.start(&chain)?;
    let traffic = ready.kind.traffic().size(size).flows(flows).core(common.generator_core);
    let generator = traffic.start(chain.gen_(), "gen0")?;
    thread::sleep(common.warmup());
    let window = Window::measure(&generator, &sink, common.seconds())?;
    running.check()?;
    generator.stop()?;
    let last = running.stop()?;
    if window.forwarded.packets == 0 {
        bail!("no frame arrived at the sink");
    }
    Ok(Run {
        peer: ready.kind.name(),
        size,
        flows,
        round,
        offered_pps: window.offered_pps(),
        forwarded_pps: window.forwarded_pps(),
        syscalls_per_packet: last.as_ref().and_then(syscalls_per_packet),
    })
}

/// Returns the system calls per received packet, from a final report.
pub(crate) fn syscalls_per_packet(report: &serde_json::Value) -> Option<f64> {
    let calls = report["kernel"]["syscalls"].as_f64()?;
    let received: f64 =
        report["ports"].as_array()?.iter().filter_map(|port| port["rx_packets"].as_f64()).sum();
    (received > 0.0).then(|| calls / received)
}

/// Checks forwarding with two queues, with a generator on each of two cores: all frames arrive
/// intact, once and in order, at a rate that all forwarders support. Does not measure speed,
/// because a generator shares the forwarder's core.
fn two_queues(kind: ForwarderKind, common: &Common) -> String {
    const RATE: u64 = 20_000;
    if !kind.supports_two_queues() {
        return "not applicable: it supports one queue only".into();
    }
    let ready = match common
        .environment()
        .map_err(|error| error.to_string())
        .and_then(|environment| kind.prepare(&environment, 2))
    {
        Ok(ready) => ready,
        Err(missing) => return format!("missing: {missing}"),
    };
    let measure = || -> Result<String> {
        let chain = Chain::builder().queues(2).build()?;
        let sink = Sink::builder().check(true).attach(chain.sink(), "sink0")?;
        let mut running = ready.start(&chain)?;
        thread::sleep(common.warmup());
        let before = sink.seen()?.arrived.packets;
        let mut sent = 0;
        // One generator after the other: the sink tracks one stream per flow at a time.
        for core in [common.generator_core, common.core] {
            let generator =
                kind.traffic().flows(16).rate(RATE).core(core).start(chain.gen_(), "gen0")?;
            thread::sleep(common.seconds());
            sent += generator.stop()?.packets;
            settle(&sink)?;
        }
        running.check()?;
        let seen = sink.seen()?;
        running.stop()?;
        let arrived = seen.arrived.packets - before;
        let lost = sent.saturating_sub(arrived);
        let word = if seen.is_clean() && lost == 0 { "good" } else { "BAD" };
        Ok(format!(
            "{word}: {} sent to each of two queues in turn, {} lost, {} corrupt, {} reordered, \
             {} duplicates",
            grouped(sent / 2),
            grouped(lost),
            seen.corrupt,
            seen.reordered,
            seen.duplicates
        ))
    };
    measure().unwrap_or_else(|error| format!("FAILED: {}", brief(&error)))
}

fn table(
    cells: &[(u16, u32)],
    ready: &[PreparedForwarder],
    missing: &BTreeMap<&'static str, String>,
    runs: &[Run],
    failed: &[String],
    queues: &[(&'static str, String)],
) -> String {
    let mut text = String::new();
    let runs_of = |name: &str, cell: (u16, u32)| -> BTreeMap<u32, &Run> {
        runs.iter()
            .filter(|run| run.peer == name && (run.size, run.flows) == cell)
            .map(|run| (run.round, run))
            .collect()
    };
    for &cell in cells {
        let bare = runs_of(ForwarderKind::BareLoop.name(), cell);
        let _ = writeln!(text, "\n{} bytes, {} flows, one queue, one core", cell.0, cell.1);
        let _ = writeln!(
            text,
            "  {:<22}{:>10}   {:<28}{:>10}  {:>8}",
            "", "Mpps", "ratio to the bare loop", "rounds", "syscalls"
        );
        for kind in ready.iter().map(|ready| ready.kind) {
            let own = runs_of(kind.name(), cell);
            let Some(rate) = Median::of(own.values().map(|run| run.forwarded_pps / 1e6)) else {
                continue;
            };
            let pairs = own.iter().filter_map(|(round, run)| {
                Some(run.forwarded_pps / bare.get(round)?.forwarded_pps)
            });
            let ratio = match Median::of(pairs) {
                Some(ratio) if kind != ForwarderKind::BareLoop => {
                    let (low, high, per_cent) = (ratio.low, ratio.high, 100.0 * ratio.coverage);
                    format!("{:.3}  [{low:.3}, {high:.3}] {per_cent:.0} %", ratio.median)
                }
                _ => String::new(),
            };
            let calls = Median::of(own.values().filter_map(|run| run.syscalls_per_packet));
            let calls = calls.map_or(String::new(), |calls| format!("1/{:.0}", 1.0 / calls.median));
            let _ = writeln!(
                text,
                "  {:<22}{:>10.3}   {ratio:<28}{:>10}  {calls:>8}",
                kind.name(),
                rate.median,
                rate.n
            );
        }
        for name in missing.keys() {
            let _ = writeln!(text, "  {name:<22}{:>10}", "missing");
        }
    }
    if !missing.is_empty() {
        text += "\nmissing\n";
        for (name, why) in missing {
            let _ = writeln!(text, "  {name:<22}{why}");
        }
    }
    if !queues.is_empty() {
        text += "\ntwo queues (correctness only)\n";
        for (name, outcome) in queues {
            let _ = writeln!(text, "  {name:<22}{outcome}");
        }
    }
    text += "\nMpps: median of the rounds. Ratio: median of the ratios within each round, with \
             the interval between two order statistics.\n";
    text += "All forwarders use the same veths, generator and core. Differences:\n";
    for kind in ready.iter().map(|ready| ready.kind).filter(|kind| !kind.differs().is_empty()) {
        let _ = writeln!(text, "  {:<22}{}", kind.name(), kind.differs());
    }
    for failure in failed {
        let _ = writeln!(text, "FAILED: {failure}");
    }
    text
}

/// `pairs`: two commands in alternation.
#[derive(Args)]
pub(crate) struct PairsArguments {
    /// The first command, as one argument; it must forward between fwd0 and fwd1
    a: String,
    /// The second command; the result is the ratio first / second
    b: String,
    /// Number of pairs of runs
    #[arg(long, value_name = "N", default_value_t = 9)]
    rounds: u32,
    /// Frame length in memory, in bytes without FCS
    #[arg(long, value_name = "BYTES", default_value_t = 60)]
    size: u16,
    /// Number of flows
    #[arg(long, value_name = "N", default_value_t = 16)]
    flows: u32,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn pairs(arguments: &PairsArguments, stop: &Stop) -> Result<()> {
    let common = &arguments.common;
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..arguments.rounds {
        for position in 0..2 {
            stop.check()?;
            let which = (position + round as usize) % 2;
            let words: Vec<&str> = [&arguments.a, &arguments.b][which].split_whitespace().collect();
            let chain = Chain::builder().build()?;
            let sink = Sink::attach(chain.sink(), "sink0")?;
            let mut forwarder = xdpfwd_lab::Forwarder::spawn(chain.fwd(), &words)?;
            forwarder.wait_for_xdp(chain.fwd(), &["fwd0", "fwd1"], Duration::from_secs(30))?;
            let traffic = xdpfwd_lab::Traffic::new()
                .size(arguments.size)
                .flows(arguments.flows)
                .core(common.generator_core);
            let generator = traffic.start(chain.gen_(), "gen0")?;
            thread::sleep(common.warmup());
            let before = Reading::take(&generator, &sink)?;
            let start = Instant::now();
            thread::sleep(common.seconds());
            let window = before.until(&Reading::take(&generator, &sink)?);
            note(&format!(
                "pair {}, {}: {:.3} Mpps in {:.2} s",
                round + 1,
                ["first", "second"][which],
                window.forwarded_pps() / 1e6,
                start.elapsed().as_secs_f64()
            ));
            forwarder.check_running()?;
            rates[which].push(window.forwarded_pps());
        }
    }
    let ratio = Median::of(rates[0].iter().zip(&rates[1]).map(|(a, b)| a / b));
    let Some(ratio) = ratio else { bail!("invalid --rounds 0: use at least 1") };
    println!(
        "first / second: {:.4} [{:.4}, {:.4}] with {:.1} % of {} pairs; \
         first {:.3} Mpps, second {:.3} Mpps",
        ratio.median,
        ratio.low,
        ratio.high,
        100.0 * ratio.coverage,
        ratio.n,
        Median::of(rates[0].iter().copied()).map_or(0.0, |rate| rate.median / 1e6),
        Median::of(rates[1].iter().copied()).map_or(0.0, |rate| rate.median / 1e6),
    );
    Ok(())
}
