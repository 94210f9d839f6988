//! `demo`: sends traffic through xdpfwd and accounts for every frame.

use std::{
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use xdpfwd_lab::{
    Chain, Counters, Error, Forwarder, PacketAccounting, Report, Sink, VethDropCounts,
};

use super::{
    demo_text::{self, Outcome},
    options::{TrafficArguments, seconds},
    screen::{Progress, print},
    stop::Stop,
    watch::watch,
};

const READY_DEADLINE: Duration = Duration::from_secs(15);
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// After this long without a frame at the sink, no more frames are expected there.
const SETTLE_TIME: Duration = Duration::from_millis(300);
const SETTLE_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(crate) struct Arguments {
    /// The xdpfwd binary
    #[arg(long, value_name = "PATH")]
    xdpfwd: PathBuf,
    /// Configuration that forwards from a port on fwd0 to a port on fwd1
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Seconds of traffic
    #[arg(long, default_value = "5", value_parser = seconds)]
    seconds: Duration,
    #[command(flatten)]
    traffic: TrafficArguments,
    /// Queues of every veth; the generator sends to queue CORE mod N
    #[arg(long, default_value_t = 1, value_name = "N")]
    queues: u16,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, stop: &Stop) -> Result<ExitCode> {
    xdpfwd_lab::require_root("the demo")?;
    // `ip netns exec` searches a bare name in PATH, not in the current directory.
    let absolute = |path: &PathBuf| {
        path.canonicalize()
            .with_context(|| {
                format!("cannot find `{}`; give the path of an existing file", path.display())
            })
            .map(|path| path.to_string_lossy().into_owned())
    };
    let command = [
        &absolute(&arguments.xdpfwd)?,
        "--config",
        &absolute(&arguments.config)?,
        "--json",
        "--interval",
        "1",
    ]
    .map(str::to_owned);
    let progress = Progress::new(arguments.json);
    let outcome = measure(arguments, &command, stop, &progress)?;
    progress.done();
    print(&if arguments.json {
        format!("{}\n", demo_text::as_json(&arguments.traffic, &outcome))
    } else {
        demo_text::as_text(&arguments.traffic, &outcome)
    })?;
    let is_good = outcome.accounting.is_good() && outcome.exit.status.success();
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(
    arguments: &Arguments,
    command: &[String],
    stop: &Stop,
    progress: &Progress,
) -> Result<Outcome> {
    progress.show("building the lab …");
    let chain = Chain::builder().queues(arguments.queues).mtu(arguments.traffic.mtu()).build()?;
    let sink = Sink::attach(chain.sink(), "sink0")?;
    stop.check()?;
    progress.show("starting xdpfwd …");
    let mut forwarder = Forwarder::spawn(chain.fwd(), command)?;
    wait_until_ready(&mut forwarder, stop)?;

    let before = VethDropCounts::read(&chain)?;
    let generator = arguments.traffic.traffic().start(chain.gen_(), "gen0")?;
    watch(&generator, &sink, &mut forwarder, arguments.seconds, stop, progress)?;
    let sent = generator.stop()?;
    settle(&sink)?;
    forwarder.check_running()?;
    let exit = forwarder.stop(STOP_DEADLINE)?;
    let seen = sink.seen()?;
    let veth = VethDropCounts::read(&chain)?.since(&before);

    let line = forwarder.last_line(|line| report_kind(line).as_deref() == Some("final"));
    let Some((report, line)) =
        line.and_then(|line| Report::parse(&line).map(|report| (report, line)))
    else {
        bail!(
            "xdpfwd ended with {}{} without a final report; the end of its stderr:\n{}",
            exit.status,
            if exit.killed { " (killed: SIGINT did not end it)" } else { "" },
            tail(&forwarder.stderr())
        );
    };
    if !exit.status.success() {
        xdpfwd_lab::print_error(&format!(
            "xdpfwd ended with {}; the end of its stderr:\n{}",
            exit.status,
            tail(&forwarder.stderr())
        ));
    }
    let offered = Counters { packets: sent.packets, bytes: sent.bytes };
    let accounting = PacketAccounting::new(offered, &seen, &report, Some(&veth));
    let final_report_json = serde_json::from_str(&line).context("reading xdpfwd's final line")?;
    Ok(Outcome { sent, seen, report, final_report_json, accounting, exit })
}

fn wait_until_ready(forwarder: &mut Forwarder, stop: &Stop) -> Result<()> {
    let start = Instant::now();
    loop {
        stop.check()?;
        match forwarder.wait_for_line(Duration::from_millis(100), |line| {
            report_kind(line).as_deref() == Some("interval")
        }) {
            Ok(_) => return Ok(()),
            Err(Error::Timeout { event, hint, .. }) => {
                if start.elapsed() > READY_DEADLINE {
                    bail!(Error::Timeout { event, hint, seconds: READY_DEADLINE.as_secs_f64() });
                }
            }
            Err(other) => return Err(other.into()),
        }
    }
}

fn report_kind(line: &str) -> Option<String> {
    Report::parse(line).map(|report| report.kind)
}

fn tail(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Waits until no more frames arrive. Gives up after [`SETTLE_DEADLINE`]: a forwarder may also
/// generate frames.
fn settle(sink: &Sink) -> Result<()> {
    let start = Instant::now();
    let (mut seen, mut last_change) = (sink.seen()?, Instant::now());
    while last_change.elapsed() < SETTLE_TIME && start.elapsed() < SETTLE_DEADLINE {
        thread::sleep(Duration::from_millis(20));
        let now = sink.seen()?;
        if now != seen {
            (seen, last_change) = (now, Instant::now());
        }
    }
    Ok(())
}
