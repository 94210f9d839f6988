//! A cell of the matrix: a packet path with a kind of security processing.

use std::{thread, time::Duration};

use anyhow::{Result, bail};
use xdpfwd_bench::results;
use xdpfwd_lab::{
    Chain, Counters, Generator, GeneratorKind, Histogram, IMIX, PacketAccounting, Reading, Sink,
    SinkCounters, Traffic, VethDropCounts, Window,
};
use xdpfwd_perf::Switches;
use xdpfwd_xsk::clock;

use super::{
    columns::{COLUMNS, Column},
    paced::{Attempts, Decision, SampleCounts},
    rows::{
        self,
        row::{ConfiguredPath, FinalCounts, MTU, Progress, Row, RunningPath},
    },
    sampled::{self, Measured, Sampling},
};
use crate::{
    common::{Common, settle},
    forwarders::Environment,
    obstacle::Obstacle,
    passing::passing,
    threads::Thread,
};

/// Returns all rows, in the order of tables.
pub(crate) fn all_rows() -> Vec<Box<dyn Row>> {
    rows::rows()
}

/// Returns all columns, in the order of tables.
pub(crate) fn all_columns() -> &'static [Column] {
    &COLUMNS
}

/// Frame lengths of a run, in memory, without FCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameSize {
    Fixed(u16),
    /// 7 frames of 60 bytes, 4 of 590, 1 of 1514.
    Imix,
}

impl FrameSize {
    /// Returns the name in options and results.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Fixed(bytes) => bytes.to_string(),
            Self::Imix => "imix".to_owned(),
        }
    }

    /// Parses a name.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        if name == "imix" {
            return Ok(Self::Imix);
        }
        let limits = xdpfwd_lab::MIN_SIZE..=1514;
        match name.parse() {
            Ok(bytes) if limits.contains(&bytes) => Ok(Self::Fixed(bytes)),
            _ => bail!(
                "invalid frame length {name:?}; use {} to {} bytes, or imix",
                limits.start(),
                limits.end()
            ),
        }
    }

    /// Returns the size in the format of results.
    pub(crate) fn describe(self) -> results::Size {
        let mean_bytes = match self {
            Self::Fixed(bytes) => f64::from(bytes),
            Self::Imix => {
                IMIX.iter().map(|&bytes| f64::from(bytes)).sum::<f64>() / IMIX.len() as f64
            }
        };
        results::Size { name: self.name(), mean_bytes }
    }

    /// Sets the frame lengths of traffic.
    fn of(self, traffic: Traffic) -> Traffic {
        match self {
            Self::Fixed(bytes) => traffic.size(bytes),
            Self::Imix => traffic.sizes(&IMIX),
        }
    }
}

/// A cell whose configuration is written.
pub(crate) struct Cell {
    row: String,
    pub(crate) column: &'static Column,
    path: Box<dyn ConfiguredPath>,
}

/// Writes the configuration of a cell.
pub(crate) fn prepare(
    row: &dyn Row,
    column: &'static Column,
    environment: &Environment,
) -> Result<Cell, Obstacle> {
    let path = row.prepare(column, environment)?;
    Ok(Cell { row: row.describe().name, column, path })
}

impl Cell {
    /// Measures one run, in a new lab; see [`results::Run`]. Fails if other programs disturb the
    /// second window, unless `accept_disturbed`.
    pub(crate) fn run(
        &self,
        common: &Common,
        size: &FrameSize,
        round: u32,
        accept_disturbed: bool,
    ) -> Result<results::Run> {
        let mut lab = Lab::start(self, common, *size, false)?;
        let first = lab.measure_rate()?;
        if first.forwarded.packets == 0 {
            lab.running.check()?;
            bail!(
                "no packet arrived at the sink, of {} offered; the commands: {}",
                first.offered.packets,
                self.path.commands()
            );
        }
        let mut attempts = Attempts::new(&first, lab.running.pid().is_some());
        let second = loop {
            let second = lab.measure_cost(attempts.pps(), &first)?;
            let samples =
                second.measured.map(|m| SampleCounts { samples: m.cycles.samples, lost: m.lost });
            match attempts.judge(&second.window, samples) {
                Decision::Accept => break second,
                Decision::Repeat => lab.running.check()?,
                Decision::Fail(_) if accept_disturbed && second.window.forwarded.packets > 0 => {
                    break second;
                }
                Decision::Fail(reason) => bail!(
                    "the second window is invalid at every attempt: {reason}; check whether other \
                     programs use both cores, then measure this row again"
                ),
            }
        };
        let end = lab.stop()?;
        let mean_bytes = first.offered.bytes as f64 / first.offered.packets.max(1) as f64;
        let [voluntary, involuntary] = second.switches_per_packet();
        Ok(results::Run {
            row: self.row.clone(),
            column: self.column.name.into(),
            size: size.name(),
            round,
            offered_pps: first.offered_pps(),
            forwarded_pps: first.forwarded_pps(),
            forwarded_gbps: first.forwarded_pps() * mean_bytes * 8.0 / 1e9,
            paced_offered_pps: second.window.offered_pps(),
            paced_forwarded_pps: second.window.forwarded_pps(),
            paced_factor: Some(attempts.paced_factor()),
            path_pps: second
                .measured
                .map(|measured| clock::cycles_per_second() / measured.forwarding_core)
                .filter(|pps| pps.is_finite()),
            cycles: second.measured.map(|measured| measured.cycles),
            stage_cycles: second
                .progress
                .filter(|_| !self.column.stages.is_empty())
                .map(|progress| progress.stage_cycles / progress.transmitted.max(1.0)),
            syscalls: second.syscalls,
            voluntary_switches: voluntary,
            involuntary_switches: involuntary,
            tool_transmitted: end.stopped.transmitted,
            sink_received: end.seen.arrived.packets + end.seen.foreign,
            unexplained: end.unexplained(),
            command: self.path.commands(),
        })
    }

    /// Starts the path in a new lab for several trials. `latency`: the sink measures latencies, if
    /// packets can carry the send time.
    pub(crate) fn session(
        &self,
        common: &Common,
        size: &FrameSize,
        latency: bool,
    ) -> Result<Session> {
        // ESP hides the send time in the packets, and pktgen writes none.
        let is_live = common.traffic.generator().kind() == GeneratorKind::Live;
        let can_have_latency = is_live && !self.path.encapsulates();
        let has_latency = latency && can_have_latency;
        let lab = Lab::start(self, common, *size, has_latency)?;
        Ok(Session { lab, has_latency, can_have_latency })
    }
}

/// A running path.
pub(crate) struct Session {
    lab: Lab,
    has_latency: bool,
    /// Whether packets can carry the send time.
    pub(crate) can_have_latency: bool,
}

/// The result of sending at one rate for some time.
pub(crate) struct Trial {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Packets per second that the generator sent: up to 2 % less than asked for, or its maximum.
    pub(crate) offered_pps: f64,
    /// `None` if the session does not measure it.
    pub(crate) latency: Option<Histogram>,
}

impl Session {
    /// Sends at a rate.
    pub(crate) fn trial(&mut self, pps: u64, seconds: f64) -> Result<Trial> {
        let lab = &mut self.lab;
        let before = lab.sink.seen()?.arrived.packets;
        let latency = self.has_latency.then(|| lab.sink.latency()).transpose()?;
        let generator = lab.traffic.clone().rate(pps.max(1)).start(lab.chain.gen_(), "gen0")?;
        thread::sleep(Duration::from_secs_f64(seconds.clamp(0.01, 3600.0)));
        let sent = generator.stop()?;
        settle(&lab.sink)?;
        lab.running.check()?;
        lab.offered.packets += sent.packets;
        lab.offered.bytes += sent.bytes;
        let latency = match latency {
            Some(before) => Some(lab.sink.latency()?.since(&before)),
            None => None,
        };
        let received = lab.sink.seen()?.arrived.packets - before;
        Ok(Trial { sent: sent.packets, received, offered_pps: sent.pps(), latency })
    }

    /// Stops the path. Fails if packets are missing without an explanation.
    pub(crate) fn stop(self) -> Result<()> {
        match self.lab.stop()?.unexplained() {
            None => Ok(()),
            Some(unexplained) => bail!("{unexplained}"),
        }
    }
}

/// A path in a lab. The fields are dropped in this order.
struct Lab {
    running: Box<dyn RunningPath>,
    sink: Sink,
    chain: Chain,
    traffic: Traffic,
    common: Common,
    /// Before the first packet.
    veth: VethDropCounts,
    /// Packets of all generators so far.
    offered: Counters,
}

/// The results of the second window.
struct Cost {
    window: Window,
    measured: Option<Measured>,
    /// The increase of xdpfwd's own counters.
    progress: Option<Progress>,
    syscalls: Option<f64>,
    switches: Option<Switches>,
}

impl Cost {
    /// Returns voluntary and involuntary context switches per forwarded packet.
    fn switches_per_packet(&self) -> [Option<f64>; 2] {
        let packets = self.window.forwarded.packets.max(1) as f64;
        [
            self.switches.map(|switches| switches.voluntary as f64 / packets),
            self.switches.map(|switches| switches.involuntary as f64 / packets),
        ]
    }
}

impl Lab {
    fn start(cell: &Cell, common: &Common, size: FrameSize, latency: bool) -> Result<Self> {
        let chain = Chain::builder().mtu(MTU).build()?;
        let sink = Sink::builder()
            .anything(cell.path.encapsulates())
            .latency(latency)
            .attach(chain.sink(), "sink0")?;
        let running = cell.path.start(&chain)?;
        let veth = VethDropCounts::read(&chain)?;
        let rules = cell.column.filter().map(|(rules, _)| rules);
        let traffic = passing(rules, common.traffic.generator().kind())?;
        let traffic = common.traffic.prepare(size.of(cell.path.address(traffic)));
        let (common, offered) = (common.clone(), Counters::default());
        Ok(Self { running, sink, chain, traffic, common, veth, offered })
    }

    fn stop_generator(&mut self, generator: Generator) -> Result<()> {
        let sent = generator.stop()?;
        self.offered.packets += sent.packets;
        self.offered.bytes += sent.bytes;
        Ok(())
    }

    /// Sends as fast as possible.
    fn measure_rate(&mut self) -> Result<Window> {
        let generator = self.traffic.clone().start(self.chain.gen_(), "gen0")?;
        thread::sleep(self.common.warmup());
        let window = Window::measure(&generator, &self.sink, self.common.seconds())?;
        self.stop_generator(generator)?;
        Ok(window)
    }

    /// Sends at a rate, if the generator can. `first` is the window without a limit.
    fn measure_cost(&mut self, pps: f64, first: &Window) -> Result<Cost> {
        let mut traffic = self.traffic.clone();
        if pps < first.offered_pps() {
            traffic = traffic.rate((pps as u64).max(1));
        }
        let generator = traffic.start(self.chain.gen_(), "gen0")?;
        thread::sleep(self.common.warmup());
        let pid = self.running.pid();
        let switches = || pid.map(Switches::of_process).transpose();
        let threads = pid.map(Thread::of_process).transpose()?.unwrap_or_default();
        let threads: Vec<u32> = threads.iter().map(|thread| thread.tid).collect();
        let before = self.running.progress()?;
        let sampling = Sampling::start(&self.common, &threads);
        // Next to the counts of packets: starting and reading the sampler takes milliseconds.
        let switches_before = switches()?;
        let start = Reading::take(&generator, &self.sink)?;
        thread::sleep(self.common.seconds());
        let window = start.until(&Reading::take(&generator, &self.sink)?);
        let switches_after = switches()?;
        let packets = window.forwarded.packets;
        let measured =
            sampling.map(|sampling| sampled::cycles(&sampling.counts(), self.common.core, packets));
        let after = self.running.progress()?;
        let progress = after.zip(before).map(|(after, before)| after.since(&before));
        let syscalls = match (progress, self.running.count_system_calls()?) {
            (Some(progress), _) => Some(progress.syscalls / progress.transmitted.max(1.0)),
            (None, Some(counter)) => Some(counter.per_packet(&generator, &self.sink)?),
            (None, None) => None,
        };
        let switches = switches_after.zip(switches_before).map(|(after, before)| Switches {
            voluntary: after.voluntary.saturating_sub(before.voluntary),
            involuntary: after.involuntary.saturating_sub(before.involuntary),
        });
        self.stop_generator(generator)?;
        Ok(Cost { window, measured, progress, syscalls, switches })
    }

    fn stop(mut self) -> Result<End> {
        settle(&self.sink)?;
        self.running.check()?;
        let stopped = self.running.stop(&self.chain)?;
        let veth = VethDropCounts::read(&self.chain)?.since(&self.veth);
        Ok(End { stopped, seen: self.sink.seen()?, offered: self.offered, veth })
    }
}

/// The end of a lab.
struct End {
    stopped: FinalCounts,
    seen: SinkCounters,
    offered: Counters,
    veth: VethDropCounts,
}

impl End {
    /// Returns why frames are missing, if any are. Only xdpfwd accounts for every frame.
    fn unexplained(&self) -> Option<String> {
        let report = self.stopped.report.as_ref()?;
        let accounting = PacketAccounting::new(self.offered, &self.seen, report, Some(&self.veth));
        (!accounting.is_good()).then(|| accounting.verdict(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_names_parse_to_themselves() {
        for size in [FrameSize::Fixed(60), FrameSize::Fixed(1514), FrameSize::Imix] {
            assert_eq!(FrameSize::parse(&size.name()).unwrap(), size);
        }
        for invalid in ["59", "1515", "", "IMIX"] {
            assert!(FrameSize::parse(invalid).is_err(), "{invalid}");
        }
    }
}
