//! One run of xdpfwd, during which this process samples in every other window.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use xdpfwd_bench::machine::stolen_seconds;
use xdpfwd_lab::{Chain, Sink, Traffic};
use xdpfwd_perf::{Core, FREQUENCY_HZ, RunTimeStatistics, Sampler, Symbols};

use super::options::Arguments;
use crate::{
    common::Stop,
    forwarders::Environment,
    launch::{STOP_DEADLINE, start_xdpfwd},
    stats::Median,
    threads::Thread,
};

/// Whether each of four successive windows is sampled: a drift of the rate cancels out. Every other
/// four have the opposite order.
const ORDER: [bool; 4] = [false, true, true, false];
/// The shortest time between a change and a window.
const SETTLE_TIME: Duration = Duration::from_millis(10);
/// A reading that takes longer was interrupted, and is repeated.
const READING_TIME: Duration = Duration::from_micros(50);
const READING_ATTEMPTS: u32 = 50;

/// The figures of [`Sampler`] about itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Sampling {
    pub(super) frequency_hz: u64,
    pub(super) sample_nanoseconds: u64,
    pub(super) cost_percent: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Window {
    sampled: bool,
    packets: u64,
    seconds: f64,
    /// CPU time of xdpfwd's workers, of their core's ksoftirqd and of the threads that measure:
    /// without the time for which other threads or the hypervisor had the workers' core. The kernel
    /// updates it every few milliseconds.
    cpu_seconds: f64,
    /// Time for which the hypervisor did not run xdpfwd's core, in steps of 10 ms.
    stolen_seconds: f64,
}

impl Window {
    fn rate(&self) -> f64 {
        self.packets as f64 / self.seconds
    }

    fn rate_of_cpu_time(&self) -> f64 {
        self.packets as f64 / self.cpu_seconds
    }
}

/// The windows of a run, in fours.
#[derive(Debug, Serialize)]
pub(super) struct WindowRun {
    windows: Vec<Window>,
    pub(super) sampling: Sampling,
}

impl WindowRun {
    pub(super) fn measure(
        arguments: &Arguments,
        environment: &Environment,
        config: &Path,
        stop: &Stop,
    ) -> Result<Self> {
        let common = &arguments.common;
        let chain = Chain::builder().build()?;
        let sink = Sink::attach(chain.sink(), "sink0")?;
        let mut forwarder = start_xdpfwd(&chain, &environment.xdpfwd, config, "1")?;
        let traffic = Traffic::new().size(arguments.size).core(environment.generator);
        let generator = traffic.start(chain.gen_(), "gen0")?;
        thread::sleep(common.warmup());

        // As xdpfwd does with kernel_ledger = "sampled": its XDP program is called `xdpfwd`.
        let symbols = Symbols::read(&["xdpfwd"])?;
        let core = |number, has_worker| Core {
            number,
            has_worker,
            only_veths: true,
            polls_other_end: false,
        };
        let cores = [core(environment.generator, false), core(environment.core, true)];
        let lab = Lab {
            sink,
            core: environment.core,
            workers: Thread::workers(forwarder.pid())?,
            softirqs: Thread::softirqs(environment.core),
        };
        let (mut windows, mut sampling) = (Vec::new(), None);
        for four in 0..arguments.pairs.div_ceil(2) {
            stop.check()?;
            for (index, sampled) in ORDER.into_iter().enumerate() {
                let sampled = sampled != (four % 2 == 1);
                // Starting takes up to 100 ms of CPU time: so start before the other windows, too.
                let statistics = RunTimeStatistics::start()?;
                let workers = lab.workers.iter().map(|thread| thread.tid);
                let sampler = Sampler::start(symbols.clone(), &cores, workers)?;
                let measurement = Some((statistics, sampler)).filter(|_| sampled);
                // The sampler reads its samples every 200 ms: the read takes place in every part
                // of a window.
                let step = u64::from(four) * ORDER.len() as u64 + index as u64;
                thread::sleep(SETTLE_TIME + Duration::from_millis(step * 37 % 200));
                let time = Duration::from_millis(arguments.window);
                windows.push(lab.window(time, sampled)?);
                if let Some((_, sampler)) = &measurement {
                    let counts = sampler.counts();
                    sampling = Some(Sampling {
                        frequency_hz: FREQUENCY_HZ,
                        sample_nanoseconds: counts.sample_cost.as_nanos() as u64,
                        cost_percent: counts.cost_percent(),
                    });
                }
            }
        }
        generator.stop()?;
        forwarder.check_running()?;
        forwarder.stop(STOP_DEADLINE)?;
        if windows.iter().any(|window| window.packets == 0) {
            bail!("no packet arrived in a window; use a longer --window");
        }
        Ok(Self { windows, sampling: sampling.context("no pair was measured; use --pairs")? })
    }

    /// Returns the ratio of the rates with and without sampling.
    pub(super) fn ratio(&self) -> f64 {
        self.median_ratio(Window::rate)
    }

    /// Returns the ratio of the packets per second of CPU time.
    pub(super) fn cpu_time_ratio(&self) -> f64 {
        self.median_ratio(Window::rate_of_cpu_time)
    }

    /// Returns the median of the ratios of each four windows.
    fn median_ratio(&self, get: fn(&Window) -> f64) -> f64 {
        let fours = self.windows.chunks_exact(ORDER.len()).map(|four| {
            let sum = |sampled| -> f64 {
                four.iter().filter(|window| window.sampled == sampled).map(get).sum()
            };
            sum(true) / sum(false)
        });
        Median::of(fours).map_or(f64::NAN, |median| median.median)
    }

    /// Returns the median rate without sampling, in packets per second.
    pub(super) fn rate_without(&self) -> f64 {
        let windows = self.windows.iter().filter(|window| !window.sampled);
        Median::of(windows.map(Window::rate)).map_or(f64::NAN, |median| median.median)
    }

    /// Returns the share of stolen time.
    pub(super) fn stolen_percent(&self) -> f64 {
        let sum = |get: fn(&Window) -> f64| self.windows.iter().map(get).sum::<f64>();
        100.0 * sum(|window| window.stolen_seconds) / sum(|window| window.seconds)
    }
}

/// The sources of a window's readings.
struct Lab {
    sink: Sink,
    core: usize,
    workers: Vec<Thread>,
    softirqs: Option<Thread>,
}

struct Reading {
    at: Instant,
    packets: u64,
    cpu: Duration,
    stolen_seconds: f64,
}

impl Lab {
    fn window(&self, time: Duration, sampled: bool) -> Result<Window> {
        let mut threads = self.workers.clone();
        threads.extend(self.softirqs);
        // The threads of `Sampler` and `RunTimeStatistics`, if they run.
        threads.extend(Thread::find(std::process::id(), &["kernel-ledger", "bpf-run-time"])?);
        let start = self.read(&threads)?;
        thread::sleep(time);
        let end = self.read(&threads)?;
        Ok(Window {
            sampled,
            packets: end.packets - start.packets,
            seconds: (end.at - start.at).as_secs_f64(),
            cpu_seconds: end.cpu.saturating_sub(start.cpu).as_secs_f64(),
            stolen_seconds: end.stolen_seconds - start.stolen_seconds,
        })
    }

    /// Reads all counters. Both cores are busy, so this thread may be interrupted in between:
    /// repeats the reading until it was short, and returns the shortest.
    fn read(&self, threads: &[Thread]) -> Result<Reading> {
        let mut best: Option<(Duration, Reading)> = None;
        for _ in 0..READING_ATTEMPTS {
            let start = Instant::now();
            let packets = self.sink.seen()?.arrived.packets;
            let cpu = threads.iter().map(|thread| thread.cpu_time()).sum::<Result<Duration>>()?;
            let took = start.elapsed();
            if best.as_ref().is_none_or(|(shortest, _)| took < *shortest) {
                let stolen_seconds = stolen_seconds(self.core)?;
                best = Some((took, Reading { at: start, packets, cpu, stolen_seconds }));
            }
            if took < READING_TIME {
                break;
            }
        }
        best.map(|(_, reading)| reading).context("the sink was not read")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(windows: impl IntoIterator<Item = (bool, u64, f64)>) -> WindowRun {
        let windows = windows.into_iter().map(|(sampled, packets, cpu_seconds)| Window {
            sampled,
            packets,
            seconds: 1.0,
            cpu_seconds,
            stolen_seconds: 0.0,
        });
        let sampling = Sampling { frequency_hz: 241, sample_nanoseconds: 5000, cost_percent: 0.1 };
        WindowRun { windows: windows.collect(), sampling }
    }

    #[test]
    fn ratio_ignores_drift_and_an_interrupted_window() {
        // The rate rises by 10 packets per window; sampling costs a tenth.
        let windows = (0..12).map(|number| {
            let (four, sampled) = (number / 4, ORDER[number % 4] != (number / 4 % 2 == 1));
            let rate = 1000 + 10 * number as u64;
            let packets = if sampled { rate * 9 / 10 } else { rate };
            // The host interrupts the first window.
            (sampled, if four == 0 && number == 0 { packets / 2 } else { packets }, 1.0)
        });
        let run = run(windows);
        assert!((run.ratio() - 0.9).abs() < 0.002, "{}", run.ratio());
    }

    #[test]
    fn cpu_time_ratio_leaves_out_time_of_others() {
        let run = run([(false, 1000, 1.0), (true, 450, 0.5), (true, 900, 1.0), (false, 500, 0.5)]);
        assert!((run.cpu_time_ratio() - 0.9).abs() < 1e-9, "{}", run.cpu_time_ratio());
    }
}
