//! `esp`: what ESP costs a packet, by each backend, next to the cryptography alone and to `dpdk-test-crypto-perf`.
//!
//! Every variant has the same frames, and its turn in each round. The figure of a round is the median of its passes over the frames, so that
//! what interrupts a pass does not count; what the table shows is the median of the rounds.

mod contender;
mod dpdk;

use std::collections::BTreeMap;
use std::thread;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use ipsec::Transform;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

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
    /// Packets that dpdk-test-crypto-perf seals or opens of each size in a round
    #[arg(long, default_value_t = 1_000_000)]
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

/// Nanoseconds a packet of one round: the cryptography alone, and ESP.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) alone: f64,
    pub(crate) esp: f64,
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
    /// What ESP adds, in a round.
    own_ns: Option<Median>,
    esp_cycles: Option<Median>,
    dpdk_cycles: Option<Median>,
    /// ESP's cycles, of dpdk-test-crypto-perf's, in a round.
    ratio: Option<Median>,
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

    let mut own: BTreeMap<Place, Vec<Pair>> = BTreeMap::new();
    let mut peers: BTreeMap<(Direction, usize), Vec<f64>> = BTreeMap::new();
    let mut gigahertz = Vec::new();
    let texts: Vec<usize> = arguments.sizes.iter().map(|size| contender::text(*size)).collect();
    for round in 0..arguments.rounds {
        stop.check()?;
        note(&format!("round {} of {}", round + 1, arguments.rounds));
        let mut order: Vec<&Contender> = contenders.iter().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (&size, &text) in arguments.sizes.iter().zip(&texts) {
            let figures = on_core(arguments.core, || {
                let mut frames = Frames::new(arguments.frames, size);
                order
                    .iter()
                    .map(|contender| (contender.backend, contender.round(&mut frames, arguments.passes)))
                    .collect::<Vec<_>>()
            })?;
            for (backend, [sealed, opened]) in figures {
                own.entry((Direction::Seal, text, backend)).or_default().push(sealed);
                own.entry((Direction::Open, text, backend)).or_default().push(opened);
            }
        }
        for direction in Direction::ALL {
            if missing.contains_key(dpdk::NAME) {
                continue;
            }
            match dpdk::round(arguments, direction, &texts) {
                Ok(run) => {
                    gigahertz.push(run.gigahertz);
                    for (text, cycles) in run.cycles {
                        peers.entry((direction, text)).or_default().push(cycles);
                    }
                }
                Err(why) => drop(missing.insert(dpdk::NAME, format!("{why:#}"))),
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
            ipsec::BATCH,
            arguments.rounds,
            machine.load_average
        );
        Row::print_head();
    }
    for direction in Direction::ALL {
        for (&size, &text) in arguments.sizes.iter().zip(&texts) {
            for contender in &contenders {
                let backend = contender.backend;
                let pairs = own.get(&(direction, text, backend)).map(Vec::as_slice).unwrap_or_default();
                let peer = peers.get(&(direction, text)).map(Vec::as_slice).unwrap_or_default();
                let row = Row {
                    transform: arguments.transform,
                    direction,
                    payload: size,
                    text,
                    backend,
                    alone_ns: Median::of(pairs.iter().map(|pair| pair.alone)),
                    esp_ns: Median::of(pairs.iter().map(|pair| pair.esp)),
                    own_ns: Median::of(pairs.iter().map(|pair| pair.esp - pair.alone)),
                    esp_cycles: Median::of(pairs.iter().map(|pair| pair.esp * gigahertz)),
                    dpdk_cycles: Median::of(peer.iter().copied()),
                    ratio: Median::of(pairs.iter().zip(peer).map(|(pair, peer)| pair.esp * gigahertz / peer)),
                };
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
    let largest = contender::LARGEST;
    if let Some(size) = arguments.sizes.iter().find(|size| !(1..=largest).contains(*size)) {
        anyhow::bail!("--sizes {size}: a payload has from 1 to {largest} bytes");
    }
    let (frames, batch) = (arguments.frames, ipsec::BATCH);
    ensure!(frames >= batch && frames.is_multiple_of(batch), "--frames {frames}: must be a multiple of {batch}");
    let cores = thread::available_parallelism().map_or(1, Into::into);
    ensure!(arguments.core < cores, "--core {}: there are {cores}, from 0", arguments.core);
    Ok(())
}

/// Runs it in a thread of its own that stays on a core; who waits may go where it wants.
fn on_core<T: Send>(core: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    let mut set = CpuSet::new();
    set.set(core).with_context(|| format!("core {core}"))?;
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("staying on core {core}"))?;
            Ok(work())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Row {
    fn print_head() {
        println!(
            "{:<6}{:>8}{:>6}  {:<12}{:<22}{:<22}{:<22}{:<24}{:<24}ratio",
            "", "payload", "text", "backend", "alone, ns", "ESP, ns", "ESP's own, ns", "ESP, cycles", "DPDK, cycles"
        );
    }

    fn print(&self) {
        let shown = |median: &Option<Median>, digits: usize| {
            median
                .map_or("-".to_owned(), |m| format!("{:.digits$} [{:.digits$}, {:.digits$}]", m.median, m.low, m.high))
        };
        println!(
            "{:<6}{:>8}{:>6}  {:<12}{:<22}{:<22}{:<22}{:<24}{:<24}{}",
            self.direction.name(),
            self.payload,
            self.text,
            self.backend.name(),
            shown(&self.alone_ns, 1),
            shown(&self.esp_ns, 1),
            shown(&self.own_ns, 1),
            shown(&self.esp_cycles, 0),
            shown(&self.dpdk_cycles, 0),
            shown(&self.ratio, 2)
        );
    }
}
