//! `run`: measures any forwarder.

use std::{
    os::unix::process::ExitStatusExt,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use xdpfwd_lab::{
    Chain, Error, Forwarder, ForwarderExit, SentTotals, Sink, SinkCounters, Window,
    bits_per_second, grouped,
};

use super::{
    options::{TrafficArguments, seconds},
    screen::{Progress, bits, check_results, print, rate},
    stop::Stop,
    watch::watch,
};

/// Maximum time to wait for the forwarder's XDP programs. A forwarder without XDP programs (a
/// bridge, a router) is measured after this time.
const XDP_DEADLINE: Duration = Duration::from_secs(3);
const STOP_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct Arguments {
    /// Length of the measured window in seconds
    #[arg(long, default_value = "5", value_parser = seconds)]
    seconds: Duration,
    /// Seconds of traffic before the measured window
    #[arg(long, default_value = "1", value_name = "SECONDS", value_parser = seconds)]
    warmup: Duration,
    #[command(flatten)]
    traffic: TrafficArguments,
    /// Queues of every veth; the generator sends to queue CORE mod N
    #[arg(long, default_value_t = 1, value_name = "N")]
    queues: u16,
    /// Check every frame at the sink for corruption, order within its flow, and duplicates (slower)
    #[arg(long)]
    check: bool,
    /// Count all frames at the sink, also those that it does not recognise (tunnels)
    #[arg(long, conflicts_with = "check")]
    anything: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
    /// The forwarder and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, stop: &Stop) -> Result<ExitCode> {
    if arguments.seconds.is_zero() {
        bail!(Error::Value {
            parameter: "--seconds",
            value: "0".into(),
            accepted: "use more than 0".into()
        });
    }
    let progress = Progress::new(arguments.json);
    let chain = Chain::builder().queues(arguments.queues).mtu(arguments.traffic.mtu()).build()?;
    let sink = Sink::builder()
        .check(arguments.check)
        .anything(arguments.anything)
        .attach(chain.sink(), "sink0")?;
    stop.check()?;
    let mut forwarder = Forwarder::spawn(chain.fwd(), &arguments.command)?;
    match forwarder.wait_for_xdp(chain.fwd(), &["fwd0", "fwd1"], XDP_DEADLINE) {
        Err(Error::Timeout { .. }) => {
            progress.show("no XDP program on fwd0 and fwd1; measuring without")
        }
        other => other?,
    }
    let generator = arguments.traffic.traffic().start(chain.gen_(), "gen0")?;
    stop.sleep_until(Instant::now(), arguments.warmup);

    let window = watch(&generator, &sink, &mut forwarder, arguments.seconds, stop, &progress)?;
    progress.done();
    let sent = generator.stop()?;
    // Let frames in rings and queues reach the sink.
    stop.sleep_until(Instant::now(), Duration::from_millis(200));
    let exit = forwarder.stop(STOP_DEADLINE)?;
    let seen = sink.seen()?;
    if exit.killed {
        xdpfwd_lab::print_error(&format!(
            "xdpfwd-lab: the forwarder did not end within {} s of SIGINT and was killed",
            STOP_DEADLINE.as_secs()
        ));
    } else if !has_ended_as_requested(&exit) {
        xdpfwd_lab::print_error(&format!(
            "xdpfwd-lab: the forwarder ended with {}:\n{}",
            exit.status,
            forwarder.stderr().join("\n")
        ));
    }
    print(&if arguments.json {
        format!("{}\n", as_json(arguments, &window, &sent, &seen, &forwarder))
    } else {
        as_text(arguments, &window, &sent, &seen, &forwarder)
    })?;
    let is_good = window.forwarded.packets > 0 && seen.is_clean() && has_ended_as_requested(&exit);
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Accepts success, or SIGINT if the forwarder does not handle it.
fn has_ended_as_requested(exit: &ForwarderExit) -> bool {
    !exit.killed
        && (exit.status.success() || exit.status.signal() == Some(signal_hook::consts::SIGINT))
}

fn as_json(
    arguments: &Arguments,
    window: &Window,
    sent: &SentTotals,
    seen: &SinkCounters,
    forwarder: &Forwarder,
) -> serde_json::Value {
    let counters = |c: xdpfwd_lab::Counters| json!({"packets": c.packets, "bytes": c.bytes});
    let mut result = json!({
        "schema": 1,
        "type": "run",
        "command": arguments.command,
        "size": arguments.traffic.size.json(),
        "flows": arguments.traffic.flows,
        "rate": arguments.traffic.rate,
        "queues": arguments.queues,
        "window": {
            "seconds": window.seconds,
            "offered": counters(window.offered),
            "forwarded": counters(window.forwarded),
            "offered_pps": window.offered_pps(),
            "forwarded_pps": window.forwarded_pps(),
        },
        "total": {
            "offered": sent.packets,
            "seconds": sent.seconds,
            "forwarded": seen.arrived.packets,
            "foreign": seen.foreign,
        },
        "stdout": forwarder.stdout(),
    });
    if arguments.check {
        result["check"] = json!({"corrupt": seen.corrupt, "reordered": seen.reordered, "duplicates": seen.duplicates});
    }
    result
}

fn as_text(
    arguments: &Arguments,
    window: &Window,
    sent: &SentTotals,
    seen: &SinkCounters,
    forwarder: &Forwarder,
) -> String {
    let mut text = format!(
        "{}, {} flows, {:.2} s measured after {:.1} s of warm-up\n",
        arguments.traffic.size,
        arguments.traffic.flows,
        window.seconds,
        arguments.warmup.as_secs_f64()
    );
    for (name, counters, pps) in [
        ("offered", window.offered, window.offered_pps()),
        ("forwarded", window.forwarded, window.forwarded_pps()),
    ] {
        let (l2, wire) = bits_per_second(counters, window.seconds);
        text += &format!(
            "  {name:<10}{:>12}   {:>13}, on the wire {}\n",
            rate(pps),
            bits(l2),
            bits(wire)
        );
    }
    text += &format!(
        "  whole run: {} offered, {} forwarded, {} foreign frames at the sink\n",
        grouped(sent.packets),
        grouped(seen.arrived.packets),
        grouped(seen.foreign)
    );
    if arguments.check {
        text += &format!("  checked: {}\n", check_results(seen));
    }
    for line in forwarder.stdout() {
        text += &format!("  | {line}\n");
    }
    text
}
