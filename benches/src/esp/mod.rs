//! `esp`: the cost of ESP per packet for each backend, compared with the AEAD alone and with
//! `dpdk-test-crypto-perf`.
//!
//! Each round runs several passes of every variant (backend and payload length). The result of a
//! variant in a round is the median of its passes, so that interrupted passes do not count. The
//! table shows the median of the rounds.

mod backend;
mod dpdk;
mod options;
pub(crate) mod stage;

use std::collections::BTreeMap;
use std::thread;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use strum::IntoEnumIterator as _;
use xdpfwd_bench::machine::Machine;

use crate::common::{Stop, note, on_core, print};
use crate::stats::Median;
use backend::{BackendBench, Frames};
pub(crate) use options::Arguments;
pub(crate) use options::Backend;
use options::{Cipher, Direction, Timing};

/// A backend's results in one round, for one direction and payload length.
struct Figures {
    timing: Timing,
    /// Nanoseconds per packet of the stage.
    stage: f64,
    /// Cycles per packet of dpdk-test-crypto-perf.
    dpdk: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Row {
    transform: Cipher,
    direction: Direction,
    payload: usize,
    /// Bytes of payload and ESP trailer.
    text: usize,
    backend: Backend,
    alone_ns: Option<Median>,
    esp_ns: Option<Median>,
    stage_ns: Option<Median>,
    /// `esp_ns` - `alone_ns` within a round.
    esp_adds_ns: Option<Median>,
    /// `stage_ns` - `alone_ns` within a round.
    stage_adds_ns: Option<Median>,
    alone_cycles: Option<Median>,
    esp_cycles: Option<Median>,
    stage_cycles: Option<Median>,
    dpdk_cycles: Option<Median>,
    /// `esp_cycles` / `dpdk_cycles` within a round.
    esp_ratio: Option<Median>,
    /// `stage_cycles` / `dpdk_cycles` within a round.
    stage_ratio: Option<Median>,
}

/// Direction, bytes of encrypted text, backend.
type RowKey = (Direction, usize, Backend);

pub(crate) fn run(arguments: &Arguments, stop: &Stop) -> Result<()> {
    check(arguments)?;
    let machine = Machine::detect();
    let mut benches = Vec::new();
    let mut missing: BTreeMap<&str, String> = BTreeMap::new();
    for &backend in &arguments.backends {
        match BackendBench::new(backend, arguments.transform) {
            Ok(bench) => benches.push(bench),
            Err(reason) => drop(missing.insert(backend.into(), format!("{reason:#}"))),
        }
    }
    ensure!(!benches.is_empty(), "no backend is available: {missing:?}");

    let mut figures_by_row: BTreeMap<RowKey, Vec<Figures>> = BTreeMap::new();
    let mut gigahertz = Vec::new();
    let texts: Vec<usize> = arguments.sizes.iter().map(|size| backend::text_len(*size)).collect();
    for round in 0..arguments.rounds {
        stop.check()?;
        note(&format!("round {} of {}", round + 1, arguments.rounds));
        let mut dpdk_cycles: BTreeMap<(Direction, usize), f64> = BTreeMap::new();
        for direction in Direction::iter() {
            if missing.contains_key(dpdk::NAME) {
                continue;
            }
            match dpdk::round(arguments, direction, &texts) {
                Ok(run) => {
                    gigahertz.push(run.gigahertz);
                    dpdk_cycles.extend(
                        run.cycles.into_iter().map(|(text, cycles)| ((direction, text), cycles)),
                    );
                }
                Err(reason) => drop(missing.insert(dpdk::NAME, format!("{reason:#}"))),
            }
        }
        let mut order: Vec<&BackendBench> = benches.iter().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (&size, &text) in arguments.sizes.iter().zip(&texts) {
            for bench in &order {
                let (timings, stages) = on_core(arguments.core, || {
                    let mut frames = Frames::new(arguments.frames, size);
                    let timings = bench.round(&mut frames, arguments.passes);
                    let transform = arguments.transform.transform();
                    let mut stages =
                        stage::StageBench::new(bench.backend, transform, arguments.frames, size)?;
                    Ok((timings, stages.round(arguments.passes)?))
                })?;
                for ((direction, timing), stage) in Direction::iter().zip(timings).zip(stages) {
                    let dpdk = dpdk_cycles.get(&(direction, text)).copied();
                    figures_by_row
                        .entry((direction, text, bench.backend))
                        .or_default()
                        .push(Figures { timing, stage, dpdk });
                }
            }
        }
    }

    let (gigahertz, source) = match Median::of(gigahertz) {
        Some(measured) => (measured.median, "measured by dpdk-test-crypto-perf"),
        None => (
            machine.megahertz().context("/proc/cpuinfo has no cpu MHz")? / 1000.0,
            "from /proc/cpuinfo",
        ),
    };
    if !arguments.json {
        print(
            &(format!(
                "{}: per packet in batches of {}, medians of {} rounds [95 % interval]; \
             {gigahertz:.3} GHz, {source}; load average {}",
                arguments.transform.transform().name(),
                xdpfwd_ipsec::BATCH,
                arguments.rounds,
                machine.load_average
            ) + "\n"),
        )?;
        Row::print_header()?;
    }
    for direction in Direction::iter() {
        for (&size, &text) in arguments.sizes.iter().zip(&texts) {
            for bench in &benches {
                let backend = bench.backend;
                let figures = figures_by_row
                    .get(&(direction, text, backend))
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                let row = Row::new(
                    arguments.transform,
                    direction,
                    (size, text),
                    backend,
                    figures,
                    gigahertz,
                );
                if arguments.json {
                    print(&(serde_json::to_string(&row)? + "\n"))?
                } else {
                    row.print()?
                }
            }
        }
    }
    for (name, reason) in &missing {
        note(&format!("{name}: missing: {reason}"));
    }
    Ok(())
}

fn check(arguments: &Arguments) -> Result<()> {
    let (smallest, largest) = (stage::MIN_SIZE, backend::MAX_PAYLOAD);
    if let Some(size) = arguments.sizes.iter().find(|size| !(smallest..=largest).contains(*size)) {
        anyhow::bail!("invalid --sizes {size}: use {smallest} to {largest} bytes");
    }
    let (frames, batch) = (arguments.frames, xdpfwd_ipsec::BATCH);
    ensure!(
        frames >= batch && frames.is_multiple_of(batch),
        "invalid --frames {frames}: use a multiple of {batch}"
    );
    let cores = thread::available_parallelism().map_or(1, Into::into);
    ensure!(arguments.core < cores, "invalid --core {}: use a core below {cores}", arguments.core);
    Ok(())
}

impl Row {
    fn new(
        transform: Cipher,
        direction: Direction,
        (payload, text): (usize, usize),
        backend: Backend,
        figures: &[Figures],
        gigahertz: f64,
    ) -> Self {
        let median = |value: &dyn Fn(&Figures) -> f64| Median::of(figures.iter().map(value));
        let ratio_to_dpdk = |value: &dyn Fn(&Figures) -> f64| {
            Median::of(
                figures
                    .iter()
                    .filter_map(|figures| Some(value(figures) * gigahertz / figures.dpdk?)),
            )
        };
        Self {
            transform,
            direction,
            payload,
            text,
            backend,
            alone_ns: median(&|figures| figures.timing.alone),
            esp_ns: median(&|figures| figures.timing.esp),
            stage_ns: median(&|figures| figures.stage),
            esp_adds_ns: median(&|figures| figures.timing.esp - figures.timing.alone),
            stage_adds_ns: median(&|figures| figures.stage - figures.timing.alone),
            alone_cycles: median(&|figures| figures.timing.alone * gigahertz),
            esp_cycles: median(&|figures| figures.timing.esp * gigahertz),
            stage_cycles: median(&|figures| figures.stage * gigahertz),
            dpdk_cycles: Median::of(figures.iter().filter_map(|figures| figures.dpdk)),
            esp_ratio: ratio_to_dpdk(&|figures| figures.timing.esp),
            stage_ratio: ratio_to_dpdk(&|figures| figures.stage),
        }
    }

    fn print_header() -> Result<()> {
        print(
            &(format!(
                "{:<5}{:>8}{:>6}  {:<11}{:<21}{:<21}{:<21}{:<14}{:<16}{:<20}{:<20}{:<18}stage/DPDK",
                "",
                "payload",
                "text",
                "backend",
                "alone, ns",
                "ESP, ns",
                "stage, ns",
                "ESP adds, ns",
                "stage adds, ns",
                "stage, cycles",
                "DPDK, cycles",
                "ESP/DPDK"
            ) + "\n"),
        )
    }

    fn print(&self) -> Result<()> {
        let format_median = |median: &Option<Median>, digits: usize| {
            median.map_or("-".to_owned(), |m| {
                format!("{:.digits$} [{:.digits$}, {:.digits$}]", m.median, m.low, m.high)
            })
        };
        let format_value =
            |median: &Option<Median>| median.map_or("-".to_owned(), |m| format!("{:.1}", m.median));
        print(
            &(format!(
                "{:<5}{:>8}{:>6}  {:<11}{:<21}{:<21}{:<21}{:<14}{:<16}{:<20}{:<20}{:<18}{}",
                self.direction,
                self.payload,
                self.text,
                self.backend,
                format_median(&self.alone_ns, 1),
                format_median(&self.esp_ns, 1),
                format_median(&self.stage_ns, 1),
                format_value(&self.esp_adds_ns),
                format_value(&self.stage_adds_ns),
                format_median(&self.stage_cycles, 0),
                format_median(&self.dpdk_cycles, 0),
                format_median(&self.esp_ratio, 2),
                format_median(&self.stage_ratio, 2)
            ) + "\n"),
        )
    }
}
