//! `forward`: packets per second of each forwarder, and the ratio to the bare loop in C
//! (peers/bare_loop.c) in the same round.

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
    common::{Common, Stop, TrafficOptions, note, print, settle},
    forwarders::{ALL, ForwarderKind, PreparedForwarder, brief},
    stats::Median,
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Rounds with 60 bytes and 16 flows; each runs every forwarder once
    #[arg(long, value_name = "N", default_value_t = 9)]
    rounds: u32,
    /// Rounds for each remaining combination of size and number of flows
    #[arg(long, value_name = "N", default_value_t = 3)]
    other_rounds: u32,
    /// Frame lengths in memory, in bytes without FCS
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_values_t = [60, 512, 1514])]
    sizes: Vec<u16>,
    /// Numbers of flows
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 16, 1000])]
    flows: Vec<u32>,
    /// Skip the checks with two queues
    #[arg(long)]
    one_queue: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Debug, Serialize)]
struct Run {
    #[serde(rename = "peer")]
    forwarder: &'static str,
    size: u16,
    flows: u32,
    round: u32,
    offered_pps: f64,
    forwarded_pps: f64,
    /// System calls per received packet, from xdpfwd's final report, which includes the warm-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    syscalls_per_packet: Option<f64>,
}

/// Frame length and number of flows of the main result.
const HEADLINE: (u16, u32) = (60, 16);

pub(crate) fn run(arguments: &Arguments, stop: &Stop) -> Result<()> {
    let common = &arguments.common;
    let mut output = common.begin("forward")?;
    let environment = common.environment()?;
    let (forwarders, missing) = common.prepare_selected(&ALL, &environment);
    let mut combinations: Vec<(u16, u32)> = Vec::new();
    for &size in &arguments.sizes {
        combinations.extend(arguments.flows.iter().map(|&flows| (size, flows)));
    }
    // Measure the main result first, so that an interrupted run includes it.
    combinations.sort_by_key(|&combination| combination != HEADLINE);
    let mut runs = Vec::new();
    let mut failed = Vec::new();
    for &(size, flows) in &combinations {
        let rounds =
            if (size, flows) == HEADLINE { arguments.rounds } else { arguments.other_rounds };
        for round in 0..rounds {
            let mut order: Vec<&PreparedForwarder> = forwarders.iter().collect();
            if round % 2 == 1 {
                // Reverse the order in every other round, to cancel the effect of the order.
                order.reverse();
            }
            for forwarder in order {
                stop.check()?;
                match measure_once(forwarder, common, size, flows, round) {
                    Ok(run) => {
                        note(&format!(
                            "{size} bytes, {flows} flows, round {} of {rounds}: {:<22} \
                             {:>7.3} Mpps of {:.2} offered",
                            round + 1,
                            run.forwarder,
                            run.forwarded_pps / 1e6,
                            run.offered_pps / 1e6
                        ));
                        runs.push(run);
                    }
                    Err(error) => {
                        let name = forwarder.kind.name();
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
    let mut two_queue_outcomes = Vec::new();
    if !arguments.one_queue {
        for kind in common.selected(&ALL) {
            stop.check()?;
            let outcome = match missing.get(kind.name()) {
                Some(_) => "missing".to_owned(),
                None => two_queues(kind, common),
            };
            note(&format!("two queues: {}: {outcome}", kind.name()));
            two_queue_outcomes.push((kind.name(), outcome));
        }
    }
    let text = table(&combinations, &forwarders, &missing, &runs, &failed, &two_queue_outcomes);
    print(&text)?;
    output.text(&text)?;
    let differences: BTreeMap<_, _> = forwarders
        .iter()
        .map(|forwarder| (forwarder.kind.name(), forwarder.kind.differences()))
        .collect();
    let commands: BTreeMap<_, _> = forwarders
        .iter()
        .map(|forwarder| (forwarder.kind.name(), forwarder.command_lines()))
        .collect();
    let path = output.json(&json!({
        "schema": 1,
        "what": "forward",
        "seconds": common.traffic.seconds,
        "warmup": common.traffic.warmup,
        "commands": commands,
        "differs": differences,
        "missing": missing,
        "failed": failed,
        "runs": runs,
        "two_queues": two_queue_outcomes.iter().map(|(name, outcome)| json!({"peer": name, "outcome": outcome})).collect::<Vec<_>>(),
    }))?;
    note(&format!("raw numbers: {}", path.display()));
    if let Some(reason) = missing.get("xdpfwd") {
        bail!("xdpfwd was not measured: {reason}");
    }
    // A failed check starts with BAD or FAILED.
    if let Some((name, outcome)) = two_queue_outcomes.iter().find(|(_, outcome)| {
        !outcome.starts_with("good") && outcome.starts_with(char::is_uppercase)
    }) {
        bail!("{name}, two queues: {outcome}");
    }
    if !failed.is_empty() {
        bail!("{} of {} runs failed, see above", failed.len(), failed.len() + runs.len());
    }
    Ok(())
}

fn measure_once(
    forwarder: &PreparedForwarder,
    common: &Common,
    size: u16,
    flows: u32,
    round: u32,
) -> Result<Run> {
    let chain = Chain::builder().build()?;
    let sink = Sink::attach(chain.sink(), "sink0")?;
    let mut running = forwarder.start(&chain)?;
    let traffic = common.traffic.prepare(forwarder.kind.traffic().size(size).flows(flows));
    let generator = traffic.start(chain.gen_(), "gen0")?;
    thread::sleep(common.warmup());
    let window = Window::measure(&generator, &sink, common.seconds())?;
    running.check()?;
    generator.stop()?;
    let final_report = running.stop()?;
    if window.forwarded.packets == 0 {
        bail!("no frame arrived at the sink");
    }
    Ok(Run {
        forwarder: forwarder.kind.name(),
        size,
        flows,
        round,
        offered_pps: window.offered_pps(),
        forwarded_pps: window.forwarded_pps(),
        syscalls_per_packet: final_report.as_ref().and_then(syscalls_per_packet),
    })
}

pub(crate) fn syscalls_per_packet(report: &serde_json::Value) -> Option<f64> {
    let calls = report["kernel"]["syscalls"].as_f64()?;
    let received: f64 =
        report["ports"].as_array()?.iter().filter_map(|port| port["rx_packets"].as_f64()).sum();
    (received > 0.0).then(|| calls / received)
}

/// Checks forwarding with two queues: all frames must arrive intact, once and in order, at a rate
/// that all forwarders support. Does not measure speed, because the second generator shares the
/// forwarder's core.
fn two_queues(kind: ForwarderKind, common: &Common) -> String {
    const RATE: u64 = 20_000;
    if !kind.supports_two_queues() {
        return "not applicable: supports only one queue".into();
    }
    let forwarder = match common
        .environment()
        .map_err(|error| error.to_string())
        .and_then(|environment| kind.prepare(&environment, 2))
    {
        Ok(forwarder) => forwarder,
        Err(missing) => return format!("missing: {missing}"),
    };
    let measure = || -> Result<String> {
        let chain = Chain::builder().queues(2).build()?;
        let sink = Sink::builder().check(true).attach(chain.sink(), "sink0")?;
        let mut running = forwarder.start(&chain)?;
        thread::sleep(common.warmup());
        let before = sink.seen()?.arrived.packets;
        let mut sent = 0;
        // One generator after the other: both send the same flows, and the sink expects the frames
        // of a flow in ascending order.
        for core in [common.traffic.generator_core, common.core] {
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
        let verdict = if seen.is_clean() && lost == 0 { "good" } else { "BAD" };
        Ok(format!(
            "{verdict}: {} sent to each of two queues in turn, {} lost, {} corrupt, {} reordered, \
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
    combinations: &[(u16, u32)],
    forwarders: &[PreparedForwarder],
    missing: &BTreeMap<&'static str, String>,
    runs: &[Run],
    failed: &[String],
    two_queue_outcomes: &[(&'static str, String)],
) -> String {
    let mut text = String::new();
    let runs_of = |name: &str, combination: (u16, u32)| -> BTreeMap<u32, &Run> {
        runs.iter()
            .filter(|run| run.forwarder == name && (run.size, run.flows) == combination)
            .map(|run| (run.round, run))
            .collect()
    };
    for &combination in combinations {
        let bare = runs_of(ForwarderKind::BareLoop.name(), combination);
        let _ = writeln!(
            text,
            "\n{} bytes, {} flows, one queue, one core",
            combination.0, combination.1
        );
        let _ = writeln!(
            text,
            "  {:<22}{:>10}   {:<28}{:>10}  {:>8}",
            "", "Mpps", "ratio to the bare loop", "rounds", "syscalls"
        );
        for kind in forwarders.iter().map(|forwarder| forwarder.kind) {
            let own_runs = runs_of(kind.name(), combination);
            let Some(rate) = Median::of(own_runs.values().map(|run| run.forwarded_pps / 1e6))
            else {
                continue;
            };
            let pairs = own_runs.iter().filter_map(|(round, run)| {
                Some(run.forwarded_pps / bare.get(round)?.forwarded_pps)
            });
            let ratio = match Median::of(pairs) {
                Some(ratio) if kind != ForwarderKind::BareLoop => {
                    let (low, high, per_cent) = (ratio.low, ratio.high, 100.0 * ratio.coverage);
                    format!("{:.3}  [{low:.3}, {high:.3}] {per_cent:.0} %", ratio.median)
                }
                _ => String::new(),
            };
            let calls = Median::of(own_runs.values().filter_map(|run| run.syscalls_per_packet));
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
        for (name, reason) in missing {
            let _ = writeln!(text, "  {name:<22}{reason}");
        }
    }
    if !two_queue_outcomes.is_empty() {
        text += "\ntwo queues (correctness only)\n";
        for (name, outcome) in two_queue_outcomes {
            let _ = writeln!(text, "  {name:<22}{outcome}");
        }
    }
    text += "\nMpps: median of the rounds. Ratio: median of the ratios within each round, \
             [confidence interval] and its confidence level.\n";
    text += "All forwarders use the same veths, generator and core. Differences:\n";
    for kind in forwarders
        .iter()
        .map(|forwarder| forwarder.kind)
        .filter(|kind| !kind.differences().is_empty())
    {
        let _ = writeln!(text, "  {:<22}{}", kind.name(), kind.differences());
    }
    for failure in failed {
        let _ = writeln!(text, "FAILED: {failure}");
    }
    text
}

/// Options of `pairs`, which runs two commands in alternation.
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
    traffic: TrafficOptions,
}

pub(crate) fn pairs(arguments: &PairsArguments, stop: &Stop) -> Result<()> {
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..arguments.rounds {
        for position in 0..2 {
            stop.check()?;
            let index = (position + round as usize) % 2;
            let words: Vec<&str> = [&arguments.a, &arguments.b][index].split_whitespace().collect();
            let chain = Chain::builder().build()?;
            let sink = Sink::attach(chain.sink(), "sink0")?;
            let mut forwarder = xdpfwd_lab::Forwarder::spawn(chain.fwd(), &words)?;
            forwarder.wait_for_xdp(chain.fwd(), &["fwd0", "fwd1"], Duration::from_secs(30))?;
            let traffic = xdpfwd_lab::Traffic::new().size(arguments.size).flows(arguments.flows);
            let traffic = arguments.traffic.prepare(traffic);
            let generator = traffic.start(chain.gen_(), "gen0")?;
            thread::sleep(arguments.traffic.warmup());
            let before = Reading::take(&generator, &sink)?;
            let start = Instant::now();
            thread::sleep(arguments.traffic.seconds());
            let window = before.until(&Reading::take(&generator, &sink)?);
            note(&format!(
                "pair {}, {}: {:.3} Mpps in {:.2} s",
                round + 1,
                ["first", "second"][index],
                window.forwarded_pps() / 1e6,
                start.elapsed().as_secs_f64()
            ));
            forwarder.check_running()?;
            rates[index].push(window.forwarded_pps());
        }
    }
    let ratio = Median::of(rates[0].iter().zip(&rates[1]).map(|(a, b)| a / b));
    let Some(ratio) = ratio else { bail!("invalid --rounds 0: use at least 1") };
    print(
        &(format!(
            "first / second: median of {} pairs {:.4}, {:.1} % confidence interval [{:.4}, {:.4}]; \
         first {:.3} Mpps, second {:.3} Mpps",
            ratio.n,
            ratio.median,
            100.0 * ratio.coverage,
            ratio.low,
            ratio.high,
            Median::of(rates[0].iter().copied()).map_or(0.0, |rate| rate.median / 1e6),
            Median::of(rates[1].iter().copied()).map_or(0.0, |rate| rate.median / 1e6),
        ) + "\n"),
    )?;
    Ok(())
}
