//! `esp`: what ESP costs a packet, by each backend, next to the cryptography alone and to `dpdk-test-crypto-perf`.
//!
//! Every variant has the same frames, and its turn in each round. The figure of a round is the median of its passes over the frames, so that
//! what interrupts a pass does not count; what the table shows is the median of the rounds.

mod contender;
mod dpdk;
mod stage;

use std::collections::BTreeMap;
use std::thread;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;
use xdpfwd_ipsec::Transform;

use crate::common::{Stop, note};
use crate::machine::Machine;
use crate::stats::Median;
use contender::{Contender, Frames};

/// Options of the subcommand.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Bytes of payload
    #[arg(long, value_delimiter = ',', default_values_t = [64, 256, 512, 1400])]
    sizes: Vec<usize>,
    /// How the packets are protected
    #[arg(long, value_enum, default_value_t = Cipher::Aes128Gcm)]
    transform: Cipher,
    /// Whose cryptography
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Backend::AwsLc, Backend::Rustcrypto, Backend::IpsecMb])]
    backends: Vec<Backend>,
    /// Packets that passes go over, and that dpdk-test-crypto-perf has: its least is 1024
    #[arg(long, default_value_t = 1024)]
    frames: usize,
    /// Passes of each variant in a round
    #[arg(long, default_value_t = 100)]
    passes: usize,
    /// Rounds
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Packets that dpdk-test-crypto-perf seals or opens of each size in a round: few, so that it is seldom interrupted, whose figure is a mean
    #[arg(long, default_value_t = 10_000)]
    dpdk_packets: usize,
    /// The core that is measured on; dpdk-test-crypto-perf waits on another meanwhile
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// Print JSON, a line for each row
    #[arg(long)]
    json: bool,
}

/// The transforms that something else can be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cipher {
    /// AES-GCM with a key of 128 bits
    #[value(name = "aes-128-gcm")]
    Aes128Gcm,
    /// AES-GCM with a key of 256 bits
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl Cipher {
    fn transform(self) -> Transform {
        match self {
            Self::Aes128Gcm => Transform::Aes128Gcm,
            Self::Aes256Gcm => Transform::Aes256Gcm,
            Self::ChaCha20Poly1305 => Transform::ChaCha20Poly1305,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Backend {
    /// AWS-LC
    AwsLc,
    /// RustCrypto's crates
    Rustcrypto,
    /// libipsec-mb
    IpsecMb,
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::AwsLc => "aws-lc",
            Self::Rustcrypto => "rustcrypto",
            Self::IpsecMb => "ipsec-mb",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    Seal,
    Open,
}

impl Direction {
    const ALL: [Self; 2] = [Self::Seal, Self::Open];

    fn name(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::Open => "open",
        }
    }
}

/// Nanoseconds a packet: the cryptography alone, and ESP.
#[derive(Clone, Copy)]
struct Pair {
    alone: f64,
    esp: f64,
}

/// What one round says of a backend, a direction and a size.
struct Figures {
    pair: Pair,
    stage: f64,
    dpdk: Option<f64>,
}

/// A line of the table.
#[derive(Debug, Serialize)]
struct Row {
    transform: Cipher,
    direction: Direction,
    /// Bytes of payload, and those that are encrypted: with padding and trailer.
    payload: usize,
    text: usize,
    backend: Backend,
    alone_ns: Option<Median>,
    esp_ns: Option<Median>,
    stage_ns: Option<Median>,
    /// What ESP and the stage add to the cryptography alone, in a round.
    esp_adds_ns: Option<Median>,
    stage_adds_ns: Option<Median>,
    alone_cycles: Option<Median>,
    esp_cycles: Option<Median>,
    stage_cycles: Option<Median>,
    dpdk_cycles: Option<Median>,
    /// Of dpdk-test-crypto-perf's cycles, in a round.
    esp_ratio: Option<Median>,
    stage_ratio: Option<Median>,
}

type Place = (Direction, usize, Backend);

pub(crate) fn run(arguments: &Arguments, stop: &Stop) -> Result<()> {
    check(arguments)?;
    let machine = Machine::here();
    let mut contenders = Vec::new();
    let mut missing: BTreeMap<&str, String> = BTreeMap::new();
    for &backend in &arguments.backends {
        match Contender::new(backend, arguments.transform) {
            Ok(contender) => contenders.push(contender),
            Err(why) => drop(missing.insert(backend.name(), format!("{why:#}"))),
        }
    }
    ensure!(!contenders.is_empty(), "no backend is left: {missing:?}");

    let mut all: BTreeMap<Place, Vec<Figures>> = BTreeMap::new();
    let mut gigahertz = Vec::new();
    let texts: Vec<usize> = arguments.sizes.iter().map(|size| contender::text(*size)).collect();
    for round in 0..arguments.rounds {
        stop.check()?;
        note(&format!("round {} of {}", round + 1, arguments.rounds));
        let mut peers: BTreeMap<(Direction, usize), f64> = BTreeMap::new();
        for direction in Direction::ALL {
            if missing.contains_key(dpdk::NAME) {
                continue;
            }
            match dpdk::round(arguments, direction, &texts) {
                Ok(run) => {
                    gigahertz.push(run.gigahertz);
                    peers.extend(run.cycles.into_iter().map(|(text, cycles)| ((direction, text), cycles)));
                }
                Err(why) => drop(missing.insert(dpdk::NAME, format!("{why:#}"))),
            }
        }
        let mut order: Vec<&Contender> = contenders.iter().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (&size, &text) in arguments.sizes.iter().zip(&texts) {
            for contender in &order {
                let (pairs, stages) = on_core(arguments.core, || {
                    let mut frames = Frames::new(arguments.frames, size);
                    let pairs = contender.round(&mut frames, arguments.passes);
                    let transform = arguments.transform.transform();
                    let mut stages = stage::Round::new(contender.backend, transform, arguments.frames, size)?;
                    Ok((pairs, stages.round(arguments.passes)?))
                })?;
                for ((direction, pair), stage) in Direction::ALL.into_iter().zip(pairs).zip(stages) {
                    let dpdk = peers.get(&(direction, text)).copied();
                    all.entry((direction, text, contender.backend)).or_default().push(Figures { pair, stage, dpdk });
                }
            }
        }
    }

    let (gigahertz, from) = match Median::of(gigahertz) {
        Some(measured) => (measured.median, "as dpdk-test-crypto-perf counts them"),
        None => (machine.megahertz().context("there is no cpu MHz in /proc/cpuinfo")? / 1000.0, "by /proc/cpuinfo"),
    };
    if !arguments.json {
        println!(
            "{}: a packet's share of batches of {}, medians of {} rounds with their intervals; {gigahertz:.3} GHz, {from}; load {}",
            arguments.transform.transform().name(),
            xdpfwd_ipsec::BATCH,
            arguments.rounds,
            machine.load_average
        );
        Row::print_head();
    }
    for direction in Direction::ALL {
        for (&size, &text) in arguments.sizes.iter().zip(&texts) {
            for contender in &contenders {
                let backend = contender.backend;
                let figures = all.get(&(direction, text, backend)).map(Vec::as_slice).unwrap_or_default();
                let row = Row::new(arguments.transform, direction, (size, text), backend, figures, gigahertz);
                if arguments.json { println!("{}", serde_json::to_string(&row)?) } else { row.print() }
            }
        }
    }
    for (name, why) in &missing {
        note(&format!("{name}: missing: {why}"));
    }
    Ok(())
}

fn check(arguments: &Arguments) -> Result<()> {
    let (smallest, largest) = (stage::SMALLEST, contender::LARGEST);
    if let Some(size) = arguments.sizes.iter().find(|size| !(smallest..=largest).contains(*size)) {
        anyhow::bail!("--sizes {size}: a payload has from {smallest} to {largest} bytes");
    }
    let (frames, batch) = (arguments.frames, xdpfwd_ipsec::BATCH);
    ensure!(frames >= batch && frames.is_multiple_of(batch), "--frames {frames}: must be a multiple of {batch}");
    let cores = thread::available_parallelism().map_or(1, Into::into);
    ensure!(arguments.core < cores, "--core {}: there are {cores}, from 0", arguments.core);
    Ok(())
}

/// Runs it in a thread of its own that stays on a core; who waits may go where it wants.
fn on_core<T: Send>(core: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let mut set = CpuSet::new();
    set.set(core).with_context(|| format!("core {core}"))?;
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("staying on core {core}"))?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
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
        let of_dpdk = |value: &dyn Fn(&Figures) -> f64| {
            Median::of(figures.iter().filter_map(|figures| Some(value(figures) * gigahertz / figures.dpdk?)))
        };
        Self {
            transform,
            direction,
            payload,
            text,
            backend,
            alone_ns: median(&|figures| figures.pair.alone),
            esp_ns: median(&|figures| figures.pair.esp),
            stage_ns: median(&|figures| figures.stage),
            esp_adds_ns: median(&|figures| figures.pair.esp - figures.pair.alone),
            stage_adds_ns: median(&|figures| figures.stage - figures.pair.alone),
            alone_cycles: median(&|figures| figures.pair.alone * gigahertz),
            esp_cycles: median(&|figures| figures.pair.esp * gigahertz),
            stage_cycles: median(&|figures| figures.stage * gigahertz),
            dpdk_cycles: Median::of(figures.iter().filter_map(|figures| figures.dpdk)),
            esp_ratio: of_dpdk(&|figures| figures.pair.esp),
            stage_ratio: of_dpdk(&|figures| figures.stage),
        }
    }

    fn print_head() {
        println!(
            "{:<5}{:>8}{:>6}  {:<11}{:<21}{:<21}{:<21}{:<9}{:<9}{:<20}{:<20}{:<18}stage/DPDK",
            "",
            "payload",
            "text",
            "backend",
            "alone, ns",
            "ESP, ns",
            "stage, ns",
            "adds, ns",
            "",
            "stage, cycles",
            "DPDK, cycles",
            "ESP/DPDK"
        );
    }

    fn print(&self) {
        let shown = |median: &Option<Median>, digits: usize| {
            median
                .map_or("-".to_owned(), |m| format!("{:.digits$} [{:.digits$}, {:.digits$}]", m.median, m.low, m.high))
        };
        let alone = |median: &Option<Median>| median.map_or("-".to_owned(), |m| format!("{:.1}", m.median));
        println!(
            "{:<5}{:>8}{:>6}  {:<11}{:<21}{:<21}{:<21}{:<9}{:<9}{:<20}{:<20}{:<18}{}",
            self.direction.name(),
            self.payload,
            self.text,
            self.backend.name(),
            shown(&self.alone_ns, 1),
            shown(&self.esp_ns, 1),
            shown(&self.stage_ns, 1),
            alone(&self.esp_adds_ns),
            alone(&self.stage_adds_ns),
            shown(&self.stage_cycles, 0),
            shown(&self.dpdk_cycles, 0),
            shown(&self.esp_ratio, 2),
            shown(&self.stage_ratio, 2)
        );
    }
}
