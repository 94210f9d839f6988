//! Commands for a persistent lab, in which the user starts generator and sink.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use xdpfwd_lab::{Chain, Counters, Sink, grouped, sweep, take_down};

use super::{
    options::{TrafficArguments, seconds},
    screen::{check_results, print, rate},
    stop::Stop,
};

#[derive(Args)]
pub(crate) struct Up {
    /// Name of the lab; its namespaces are xdpfwd-NAME-gen, -fwd and -sink
    name: String,
    /// Queues of every veth
    #[arg(long, default_value_t = 1, value_name = "N")]
    queues: u16,
    /// MTU of every veth
    #[arg(long, default_value_t = 1500, value_name = "BYTES")]
    mtu: u16,
    /// Enable IPv6, with fd77::1 and fd77::2
    #[arg(long)]
    ipv6: bool,
}

#[derive(Args)]
pub(crate) struct Down {
    /// Name of the lab
    name: String,
}

#[derive(Args)]
pub(crate) struct Generate {
    /// Interface to send out of; its veth peer needs an XDP program or GRO, which enable NAPI
    interface: String,
    #[command(flatten)]
    traffic: TrafficArguments,
    /// Stop after this many seconds [default: Ctrl-C]
    #[arg(long, value_parser = seconds)]
    seconds: Option<Duration>,
    /// Stop after this many packets
    #[arg(long, value_name = "PACKETS")]
    count: Option<u64>,
}

#[derive(Args)]
pub(crate) struct SinkArguments {
    /// Interface on which to count frames
    interface: String,
    /// Check every frame for corruption, order within its flow, and duplicates
    #[arg(long)]
    check: bool,
    /// Count and drop all frames, not only the generator's
    #[arg(long, conflicts_with = "check")]
    anything: bool,
}

pub(crate) fn up(arguments: &Up) -> Result<ExitCode> {
    let chain = Chain::builder()
        .queues(arguments.queues)
        .mtu(arguments.mtu)
        .addresses(true)
        .ipv6(arguments.ipv6)
        .keep_as(&arguments.name)
        .build()?;
    let (generator, forwarder, sink) =
        (chain.gen_().name(), chain.fwd().name(), chain.sink().name());
    print(&format!(
        "\
namespaces  {generator}: gen0 02:00:00:00:00:01 10.77.0.1/24
            {forwarder}: fwd0 02:00:00:00:00:02, fwd1 02:00:00:00:00:03
            {sink}: sink0 02:00:00:00:00:04 10.77.0.2/24

start a forwarder  ip netns exec {forwarder} xdpfwd --config FILE
ping through it    ip netns exec {generator} ping 10.77.0.2
count frames       ip netns exec {sink} xdpfwd-lab sink sink0 --check
send traffic       ip netns exec {generator} xdpfwd-lab generate gen0 --rate 100000
remove the lab     xdpfwd-lab down {}
",
        arguments.name
    ))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn down(arguments: &Down) -> Result<ExitCode> {
    report_removed(&take_down(&arguments.name)?)
}

pub(crate) fn clean() -> Result<ExitCode> {
    report_removed(&sweep()?)
}

fn report_removed(names: &[String]) -> Result<ExitCode> {
    let lines: String = names.iter().map(|name| format!("removed {name}\n")).collect();
    print(if lines.is_empty() { "nothing to remove\n" } else { &lines })?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn generate(arguments: &Generate, stop: &Stop) -> Result<ExitCode> {
    let mut traffic = arguments.traffic.traffic();
    if let Some(count) = arguments.count {
        traffic = traffic.count(count);
    }
    let generator = traffic.start_here(&arguments.interface)?;
    let start = Instant::now();
    let time = arguments.seconds.unwrap_or(Duration::MAX);
    let mut previous = Counters::default();
    let mut read_at = start;
    while !stop.is_set() && generator.is_running() && start.elapsed() < time {
        let remaining = time.saturating_sub(start.elapsed());
        stop.sleep_until(Instant::now(), remaining.min(Duration::from_secs(1)));
        let now = generator.sent()?;
        let pps = (now - previous).packets as f64 / read_at.elapsed().as_secs_f64();
        (previous, read_at) = (now, Instant::now());
        print(&format!("{} sent, {}\n", grouped(now.packets), rate(pps)))?;
        if arguments.count.is_some_and(|count| now.packets >= count) {
            break;
        }
    }
    let sent = generator.stop()?;
    print(&format!(
        "{} sent in {:.3} s, {}\n",
        grouped(sent.packets),
        sent.seconds,
        rate(sent.pps())
    ))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn sink(arguments: &SinkArguments, stop: &Stop) -> Result<ExitCode> {
    let sink = Sink::builder()
        .check(arguments.check)
        .anything(arguments.anything)
        .attach_here(&arguments.interface)?;
    let mut previous = Counters::default();
    let mut read_at = Instant::now();
    while !stop.is_set() {
        stop.sleep_until(read_at, Duration::from_secs(1));
        let seen = sink.seen()?;
        let pps = (seen.arrived - previous).packets as f64 / read_at.elapsed().as_secs_f64();
        (previous, read_at) = (seen.arrived, Instant::now());
        let mut line = format!(
            "{} arrived, {}, {} foreign",
            grouped(previous.packets),
            rate(pps),
            grouped(seen.foreign)
        );
        if arguments.check {
            line += &format!(", {}", check_results(&seen));
        }
        print(&format!("{line}\n"))?;
    }
    Ok(if sink.seen()?.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
