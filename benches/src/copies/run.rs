//! One run of a packet path: the cost per packet of each core.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use xdpfwd_lab::{Chain, Forwarder, Sink, Traffic};
use xdpfwd_perf::{Account, Group};
use xdpfwd_xsk::clock;

use crate::{
    common::Common,
    forwarders::Environment,
    launch::{STOP_DEADLINE, start_xdpfwd},
    matrix::sampled::Sampling,
    stats::lower_quartile,
    threads::Thread,
};

/// Parts of the first window.
const PARTS: u32 = 12;
/// The lowest share of the requested rate that the generator must reach.
const MIN_RATE: f64 = 0.5;
/// The highest share of packets that the second window may lose.
const MAX_LOSS: f64 = 0.02;

/// Cycles per packet with one length.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CopyRun {
    pub(super) path: &'static str,
    pub(super) size: u16,
    pub(super) round: u32,
    /// Packets per second at the sink while the generator sent as fast as it could.
    pub(super) forwarded_pps: f64,
    /// CPU time of xdpfwd's worker and of its core's ksoftirqd meanwhile, per packet at the sink:
    /// the lower quartile of the parts of the window. The worker was never idle.
    pub(super) forwarding_cycles: f64,
    /// Packets per second that the generator sent in the second window, at a rate that the path can
    /// forward.
    pub(super) paced_pps: f64,
    /// Softirqs on the generator's core meanwhile, per packet sent: the receive work of fwd0.
    pub(super) receiving_cycles: f64,
    /// Functions of the group `copy` meanwhile, on both cores.
    pub(super) copy_cycles: f64,
    /// Share of the packets that were lost meanwhile.
    pub(super) lost: f64,
}

/// The setup that all runs share.
pub(super) struct CopyLab<'a> {
    pub(super) common: &'a Common,
    pub(super) environment: &'a Environment,
    pub(super) largest: u16,
}

/// A figure of each window.
struct Paced {
    pps: f64,
    softirq_cycles: f64,
    copy_cycles: f64,
    lost: f64,
}

impl CopyLab<'_> {
    /// Measures a path. `rate` is that of the second window, for all lengths the same.
    pub(super) fn measure(
        &self,
        path: &'static str,
        config: &Path,
        size: u16,
        round: u32,
        rate: u64,
    ) -> Result<CopyRun> {
        let (chain, mut forwarder) = self.start(config)?;
        let sink = Sink::attach(chain.sink(), "sink0")?;
        let (forwarded_pps, forwarding_cycles) = self.flood(&chain, &sink, &forwarder, size)?;
        let paced = self.paced(&chain, &sink, &forwarder, size, rate)?;
        forwarder.check_running()?;
        forwarder.stop(STOP_DEADLINE)?;
        if paced.lost > MAX_LOSS {
            bail!(
                "{:.1} % of the packets were lost at {rate} packets per second: xdpfwd forwards \
                 less than before; repeat the measurement without other programs",
                100.0 * paced.lost
            );
        }
        Ok(CopyRun {
            path,
            size,
            round,
            forwarded_pps,
            forwarding_cycles,
            paced_pps: paced.pps,
            receiving_cycles: paced.softirq_cycles,
            copy_cycles: paced.copy_cycles,
            lost: paced.lost,
        })
    }

    /// Returns the rate at which a path forwards packets of the largest length.
    pub(super) fn probe(&self, config: &Path) -> Result<f64> {
        let (chain, mut forwarder) = self.start(config)?;
        let sink = Sink::attach(chain.sink(), "sink0")?;
        let (pps, _) = self.flood(&chain, &sink, &forwarder, self.largest)?;
        forwarder.stop(STOP_DEADLINE)?;
        Ok(pps)
    }

    /// Returns the cycles of softirqs on the generator's core per packet that an XDP program drops
    /// at fwd0.
    pub(super) fn dropped(&self, config: &Path, size: u16, rate: u64) -> Result<f64> {
        let (chain, mut forwarder) = self.start(config)?;
        let sink = Sink::attach(chain.sink(), "sink0")?;
        let paced = self.paced(&chain, &sink, &forwarder, size, rate)?;
        forwarder.stop(STOP_DEADLINE)?;
        Ok(paced.softirq_cycles)
    }

    fn start(&self, config: &Path) -> Result<(Chain, Forwarder)> {
        let chain = Chain::builder().mtu(self.mtu()).build()?;
        let forwarder = start_xdpfwd(&chain, &self.environment.xdpfwd, config, "1")?;
        Ok((chain, forwarder))
    }

    /// Returns the size of a frame of the UMEM that has room for all lengths.
    pub(super) fn frame_size(&self) -> u16 {
        // docs/configuration.md: frames of 2048 bytes are enough for an MTU of 1770.
        if self.mtu() <= 1770 { 2048 } else { 4096 }
    }

    /// Returns the table `umem` of the configuration.
    pub(super) fn umem(&self) -> String {
        format!("[umem]\nframe_size = {}\n", self.frame_size())
    }

    /// Returns the MTU for all lengths, so that buffers do not depend on the length.
    fn mtu(&self) -> u16 {
        self.largest.saturating_sub(14).max(1500)
    }

    fn traffic(&self, size: u16) -> Traffic {
        Traffic::new().size(size).core(self.environment.generator)
    }

    /// Sends as fast as possible. Returns packets per second at the sink, and cycles of the worker
    /// and of ksoftirqd per packet.
    fn flood(
        &self,
        chain: &Chain,
        sink: &Sink,
        forwarder: &Forwarder,
        size: u16,
    ) -> Result<(f64, f64)> {
        let mut threads = Thread::workers(forwarder.pid())?;
        threads.extend(Thread::softirqs(self.environment.core));
        let cpu_time = || threads.iter().map(|thread| thread.cpu_time()).sum::<Result<Duration>>();
        let generator = self.traffic(size).start(chain.gen_(), "gen0")?;
        thread::sleep(self.common.warmup());
        let start = std::time::Instant::now();
        let first = sink.seen()?.arrived.packets;
        let (mut before, mut costs) = ((first, cpu_time()?), Vec::new());
        for _ in 0..PARTS {
            thread::sleep(self.common.seconds() / PARTS);
            let now = (sink.seen()?.arrived.packets, cpu_time()?);
            let cycles = (now.1 - before.1).as_secs_f64() * clock::cycles_per_second();
            costs.push(cycles / (now.0 - before.0) as f64);
            before = now;
        }
        let pps = (before.0 - first) as f64 / start.elapsed().as_secs_f64();
        generator.stop()?;
        match lower_quartile(costs) {
            Some(cycles) if pps > 0.0 => Ok((pps, cycles)),
            _ => bail!("no packet arrived at the sink"),
        }
    }

    /// Sends `rate` packets per second, and samples both cores.
    fn paced(
        &self,
        chain: &Chain,
        sink: &Sink,
        forwarder: &Forwarder,
        size: u16,
        rate: u64,
    ) -> Result<Paced> {
        let receiving = self.environment.generator;
        let workers: Vec<u32> =
            Thread::workers(forwarder.pid())?.iter().map(|thread| thread.tid).collect();
        let generator = self.traffic(size).rate(rate.max(1)).start(chain.gen_(), "gen0")?;
        thread::sleep(self.common.warmup());
        let sampling = Sampling::start(self.common, &workers).context("the slopes need samples")?;
        let (sent, arrived) = (generator.sent()?.packets, sink.seen()?.arrived.packets);
        thread::sleep(self.common.seconds());
        let (sent, arrived) =
            (generator.sent()?.packets - sent, sink.seen()?.arrived.packets - arrived);
        let counts = sampling.counts();
        generator.stop()?;
        let pps = sent as f64 / counts.elapsed.as_secs_f64();
        if pps < MIN_RATE * rate as f64 {
            bail!(
                "the generator sent {pps:.0} instead of {rate} packets per second; repeat the \
                 measurement without other programs"
            );
        }
        // Of the number of samples, not of the elapsed time: a core that the hypervisor does not
        // run is not sampled.
        let cycles_per_packet = |samples: u64| {
            samples as f64 / counts.frequency_hz as f64 * clock::cycles_per_second() / sent as f64
        };
        let copies = counts.cores.iter().map(|core| {
            let accounts = Account::ALL.into_iter().filter(|account| account.has_groups());
            accounts.map(|account| core.samples.group(account, Group::Copy)).sum::<u64>()
        });
        let softirq = counts.cores.iter().find(|core| core.core == receiving);
        Ok(Paced {
            pps,
            softirq_cycles: cycles_per_packet(
                softirq.map_or(0, |core| core.samples.account(Account::Softirq)),
            ),
            copy_cycles: cycles_per_packet(copies.sum()),
            lost: 1.0 - arrived as f64 / sent as f64,
        })
    }
}
