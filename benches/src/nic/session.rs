//! Traffic through a forwarder between two interfaces of this machine.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::Value;
use xdpfwd_bench::results::NicPort;
use xdpfwd_lab::{
    Counters, Forwarder, Generator, GeneratorKind, Histogram, Pktgen, PktgenRun, SentTotals, Sink,
    Traffic,
};

use super::{
    cells::{Cell, Placement, TUNNEL},
    ports::{statistic, wait_for_carriers},
};
use crate::{
    common::settle,
    lab_run::last_report,
    launch::{REPORT_INTERVAL, STOP_DEADLINE, wait_until_ready, xdpfwd_command},
};

/// Drivers reset their queues for some time after a program is attached.
const FORWARDING_DEADLINE: Duration = Duration::from_secs(20);
/// Packets per second of the test whether packets arrive.
const TEST_RATE: f64 = 1000.0;
/// Some drivers read their counters from the device once per second.
const STATISTICS_TIME: Duration = Duration::from_millis(1100);

/// The settings that all sessions of a measurement share.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) tx: String,
    pub(super) rx: String,
    pub(super) ports: Vec<NicPort>,
    pub(super) xdpfwd: PathBuf,
    pub(super) generator: GeneratorKind,
    pub(super) generator_cores: Vec<usize>,
    pub(super) clones: u32,
    pub(super) flows: u32,
    pub(super) source_mac: [u8; 6],
    pub(super) destination_mac: [u8; 6],
    pub(super) addresses: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Count all frames at the sink.
    pub(super) anything: bool,
    pub(super) warmup: Duration,
    pub(super) seconds: Duration,
}

/// A running forwarder with generator and sink. Dropping it stops all of them.
pub(super) struct Session<'a> {
    // Field order matters: the forwarder ends before the sinks detach.
    forwarder: Option<Forwarder>,
    sink: Sink,
    /// Drivers send redirected frames only from interfaces with an XDP program.
    _tx_program: Sink,
    setup: &'a Setup,
    size: u16,
    /// Whether the driver of the generator's interface counts the frames that the generator sends.
    has_tx_count: bool,
    /// The forwarder's command line.
    pub(super) command: String,
}

/// What a trial counted.
#[derive(Debug)]
pub(super) struct Trial {
    /// Frames that left the generator's interface.
    pub(super) sent: u64,
    /// Frames that the generator passed to its interface, but that did not leave it.
    pub(super) unsent: u64,
    pub(super) offered_pps: f64,
    pub(super) received: u64,
    /// Frames that the sink's interface lost, if its driver counts them.
    pub(super) sink_lost: u64,
    pub(super) latency: Histogram,
}

/// Rates between two readings in the middle of a trial, and the forwarder's reports at both.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) offered_pps: f64,
    pub(super) forwarded_pps: f64,
    pub(super) first: Value,
    pub(super) last: Value,
    /// The whole trial.
    pub(super) trial: Trial,
}

impl Window {
    /// Returns the increase of a number in xdpfwd's report.
    pub(super) fn increase(&self, get: impl Fn(&Value) -> Option<f64>) -> Option<f64> {
        Some(get(&self.last)? - get(&self.first)?)
    }
}

impl<'a> Session<'a> {
    /// Starts the forwarder, if it is to be started here (`local`), and waits until frames of `size`
    /// bytes arrive.
    pub(super) fn start(
        setup: &'a Setup,
        local: Option<(Cell, &Placement)>,
        size: u16,
        latency: bool,
    ) -> Result<Self> {
        let encrypts = local.is_some_and(|(cell, _)| cell.encrypts());
        let tx_program = Sink::builder().attach_here(&setup.tx)?;
        let mut sink = Sink::builder().anything(setup.anything);
        if encrypts {
            let [source, destination] = TUNNEL;
            sink = sink.esp(source, destination);
        }
        let sink = sink.latency(latency && !encrypts).attach_here(&setup.rx)?;
        let mut command = String::new();
        let forwarder = match local {
            None => None,
            Some((cell, placement)) => {
                let config = placement.config(&cell)?;
                let words = xdpfwd_command(&setup.xdpfwd, &config, REPORT_INTERVAL);
                command = words.join(" ");
                let mut forwarder = Forwarder::spawn_here(&words)?;
                wait_until_ready(&mut forwarder)?;
                Some(forwarder)
            }
        };
        wait_for_carriers(&setup.ports)?;
        let has_tx_count = false;
        let mut session =
            Self { forwarder, sink, _tx_program: tx_program, setup, size, has_tx_count, command };
        session.wait_until_forwarding()?;
        Ok(session)
    }

    fn wait_until_forwarding(&mut self) -> Result<()> {
        let start = Instant::now();
        let read = || statistic(&self.setup.tx, "tx_packets");
        loop {
            let before = read()?;
            let trial = self.trial(TEST_RATE, 0.2)?;
            if trial.received > 0 && trial.received * 10 >= trial.sent * 9 {
                let counted = Instant::now();
                while read()?.saturating_sub(before) < trial.sent
                    && counted.elapsed() < STATISTICS_TIME
                {
                    thread::sleep(Duration::from_millis(20));
                }
                let increase = read()?.saturating_sub(before);
                self.has_tx_count = increase >= trial.sent && increase < trial.sent * 2;
                return Ok(());
            }
            if start.elapsed() > FORWARDING_DEADLINE {
                let Setup { tx, rx, .. } = self.setup;
                bail!(
                    "of {} frames sent out of {tx} at {TEST_RATE} packets per second, {} arrived \
                     at {rx}: check the cables ({tx} to the forwarder's input, its output to {rx}), \
                     the forwarder, and the MAC address that it expects (--destination-mac)",
                    trial.sent,
                    trial.received
                );
            }
        }
    }

    fn generate(&self, pps: Option<f64>) -> Result<Source> {
        let setup = self.setup;
        let cores = &setup.generator_cores;
        match setup.generator {
            GeneratorKind::Live => {
                let mut traffic = Traffic::new()
                    .size(self.size)
                    .flows(setup.flows)
                    .source_mac(setup.source_mac)
                    .destination_mac(setup.destination_mac);
                if let Some((source, destination)) = setup.addresses {
                    traffic = traffic.addresses(source, destination);
                }
                if let Some(pps) = pps {
                    traffic = traffic.rate(((pps / cores.len() as f64) as u64).max(1));
                }
                let start = |&core: &usize| traffic.clone().core(core).start_here(&setup.tx);
                Ok(Source::Live(cores.iter().map(start).collect::<Result<_, _>>()?))
            }
            GeneratorKind::Pktgen => {
                let mut pktgen = Pktgen::new()
                    .size(self.size)
                    .flows(setup.flows)
                    .cores(cores)
                    .clones(setup.clones)
                    .source_mac(setup.source_mac)
                    .destination_mac(setup.destination_mac);
                if let Some((source, destination)) = setup.addresses {
                    pktgen = pktgen.addresses(source, destination);
                }
                if let Some(pps) = pps {
                    pktgen = pktgen.rate((pps as u64).max(cores.len() as u64));
                }
                Ok(Source::Pktgen(pktgen.start_here(&setup.tx)?))
            }
        }
    }

    /// Sends at a rate in packets per second for a time in seconds, and waits for all frames.
    pub(super) fn trial(&mut self, pps: f64, seconds: f64) -> Result<Trial> {
        let before = self.counts()?;
        let source = self.generate(Some(pps))?;
        thread::sleep(Duration::from_secs_f64(seconds));
        self.finish(source, &before)
    }

    /// Sends at a rate, or as fast as possible, and measures in the middle.
    pub(super) fn window(&mut self, pps: Option<f64>) -> Result<Window> {
        let before = self.counts()?;
        let source = self.generate(pps)?;
        thread::sleep(self.setup.warmup);
        let first = self.report()?;
        let (start, sent, arrived) =
            (Instant::now(), source.sent()?, self.sink.seen()?.arrived.packets);
        thread::sleep(self.setup.seconds);
        let (seconds, sent_later) = (start.elapsed().as_secs_f64(), source.sent()?);
        let arrived_later = self.sink.seen()?.arrived.packets;
        let last = self.report()?;
        let trial = self.finish(source, &before)?;
        // The share of frames that left the interface.
        let share = trial.sent as f64 / (trial.sent + trial.unsent).max(1) as f64;
        Ok(Window {
            offered_pps: share * sent_later.packets.saturating_sub(sent.packets) as f64 / seconds,
            forwarded_pps: arrived_later.saturating_sub(arrived) as f64 / seconds,
            first,
            last,
            trial,
        })
    }

    fn finish(&mut self, source: Source, before: &Counts) -> Result<Trial> {
        let totals = source.stop()?;
        settle(&self.sink)?;
        if let Some(forwarder) = &mut self.forwarder {
            forwarder.check_running()?;
        }
        let passed: u64 = totals.iter().map(|total| total.packets).sum();
        let offered: f64 = totals.iter().map(SentTotals::pps).sum();
        let mut after = self.counts()?;
        // Frames that the generator's interface dropped never reached the forwarder.
        if self.has_tx_count {
            let mut last_change = Instant::now();
            while after.tx.saturating_sub(before.tx) < passed
                && last_change.elapsed() < STATISTICS_TIME
            {
                thread::sleep(Duration::from_millis(20));
                let now = self.counts()?;
                if now.tx != after.tx {
                    last_change = Instant::now();
                }
                after = now;
            }
        }
        let received = after.arrived.saturating_sub(before.arrived);
        let sent = match self.has_tx_count {
            true => passed.min(after.tx.saturating_sub(before.tx)).max(received.min(passed)),
            false => passed,
        };
        Ok(Trial {
            sent,
            unsent: passed - sent,
            offered_pps: offered * sent as f64 / passed.max(1) as f64,
            received,
            sink_lost: after.sink_lost.saturating_sub(before.sink_lost),
            latency: after.latency.since(&before.latency),
        })
    }

    fn counts(&self) -> Result<Counts> {
        let lost = ["rx_missed_errors", "rx_fifo_errors", "rx_over_errors"];
        let lost = lost.map(|name| statistic(&self.setup.rx, name).unwrap_or(0));
        Ok(Counts {
            tx: statistic(&self.setup.tx, "tx_packets")?,
            arrived: self.sink.seen()?.arrived.packets,
            sink_lost: lost.into_iter().max().unwrap_or(0),
            latency: self.sink.latency()?,
        })
    }

    /// Returns the last report of xdpfwd; null with another forwarder.
    fn report(&self) -> Result<Value> {
        let Some(forwarder) = &self.forwarder else { return Ok(Value::Null) };
        last_report(forwarder, "interval")
    }

    /// Stops the forwarder. Returns its final report, and the number of frames at the sink.
    pub(super) fn stop(mut self) -> Result<(Value, u64)> {
        let mut report = Value::Null;
        if let Some(forwarder) = &mut self.forwarder {
            forwarder.stop(STOP_DEADLINE)?;
            report = last_report(forwarder, "final")?;
        }
        Ok((report, self.sink.seen()?.arrived.packets))
    }
}

struct Counts {
    tx: u64,
    arrived: u64,
    sink_lost: u64,
    latency: Histogram,
}

/// Running generators.
enum Source {
    Live(Vec<Generator>),
    Pktgen(PktgenRun),
}

impl Source {
    fn sent(&self) -> Result<Counters> {
        match self {
            Self::Live(generators) => {
                let mut sum = Counters::default();
                for generator in generators {
                    let sent = generator.sent()?;
                    sum.packets += sent.packets;
                    sum.bytes += sent.bytes;
                }
                Ok(sum)
            }
            Self::Pktgen(run) => Ok(run.sent()?),
        }
    }

    fn stop(self) -> Result<Vec<SentTotals>> {
        match self {
            Self::Live(generators) => {
                Ok(generators.into_iter().map(Generator::stop).collect::<Result<_, _>>()?)
            }
            Self::Pktgen(run) => Ok(vec![run.stop()?]),
        }
    }
}
