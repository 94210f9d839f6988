//! The tables of `copies`.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{calibration::Calibration, memory::Costs};
use crate::{
    paths::{Caches, Copy, Core, Measured, PATHS, PacketPath, PathRun},
    stats::{Median, slope},
};

/// Slopes are printed in cycles per 1000 bytes.
const UNIT: f64 = 1000.0;

/// Returns the slope over length in each round, in cycles per [`UNIT`]. `points` are round, length
/// and cycles.
fn slopes(points: impl Iterator<Item = (u32, u16, f64)>) -> BTreeMap<u32, f64> {
    let mut rounds: BTreeMap<u32, Vec<(f64, f64)>> = BTreeMap::new();
    for (round, size, cycles) in points {
        rounds.entry(round).or_default().push((size.into(), cycles));
    }
    let slopes = rounds.into_iter().filter_map(|(round, points)| Some((round, slope(&points)?)));
    slopes.map(|(round, slope)| (round, slope * UNIT)).collect()
}

/// Returns the calibrated slope in each round.
fn calibrated(
    calibrations: &[Calibration],
    get: impl Fn(&Calibration) -> f64,
) -> BTreeMap<u32, f64> {
    slopes(calibrations.iter().map(|run| (run.round, run.size, get(run))))
}

type Kind = (&'static str, fn(&Calibration) -> f64);

const KINDS: [Kind; 5] = [
    ("warm", |run| run.costs.warm),
    ("cold", |run| run.costs.cold),
    ("source of other core", |run| run.costs.source_of_other_core),
    ("target of other core", |run| run.costs.target_of_other_core),
    ("no copy: dropped at fwd0", |run| run.dropped),
];

pub(super) fn calibrations(calibrations: &[Calibration], sizes: &[u16]) -> String {
    let mut text = String::from("\nCalibration: cycles of one copy by the kernel\n");
    let _ = write!(text, "  {:<26}", "bytes");
    for size in sizes {
        let _ = write!(text, "{size:>7}");
    }
    let _ = writeln!(text, "   per 1000 bytes");
    for (name, get) in KINDS {
        let _ = write!(text, "  {name:<26}");
        for &size in sizes {
            let costs = calibrations.iter().filter(|run| run.size == size).map(get);
            let _ = write!(text, "{:>7.0}", Median::of(costs).map_or(f64::NAN, |m| m.median));
        }
        let _ = writeln!(text, "   {}", interval(calibrated(calibrations, get).into_values(), 0));
    }
    text + "warm: in the L1 cache. cold: memory of this core that does not fit into its L2 cache. \
            source, target of other core:\nthe other core has just written the source, or read the \
            target, in a UMEM's order. The cost of the system call is included\nand does not \
            depend on the length.\n"
}

fn interval(values: impl Iterator<Item = f64>, digits: usize) -> String {
    Median::of(values).map_or("n/a".to_owned(), |m| {
        format!("{:.digits$} [{:.digits$}, {:.digits$}]", m.median, m.low, m.high)
    })
}

/// A core's cycles per packet over length.
struct Line<'a> {
    path: &'a PacketPath,
    core: Core,
    cycles: fn(&PathRun) -> f64,
}

impl Line<'_> {
    fn copies(&self) -> impl Iterator<Item = &Copy> {
        self.path.copies.iter().filter(|copy| copy.core == self.core)
    }

    /// Returns the slope that the counted copies together should have, in each round.
    fn expected(&self, calibrations: &[Calibration]) -> BTreeMap<u32, f64> {
        let mut sum: BTreeMap<u32, f64> = BTreeMap::new();
        for copy in self.copies() {
            let cost: fn(&Costs) -> f64 = match copy.caches {
                Caches::Warm => |costs| costs.warm,
                Caches::SourceOfOtherCore => |costs| costs.source_of_other_core,
                Caches::TargetOfOtherCore => |costs| costs.target_of_other_core,
            };
            for (round, slope) in calibrated(calibrations, |run| cost(&run.costs)) {
                *sum.entry(round).or_default() += slope;
            }
        }
        sum
    }
}

pub(super) fn paths(measured: &Measured, calibrations: &[Calibration], sizes: &[u16]) -> String {
    let mut text = String::from("\nPaths: cycles per packet over length, and copies\n");
    let _ = write!(text, "  {:<12}{:<12}", "path", "core");
    for size in sizes {
        let _ = write!(text, "{size:>7}");
    }
    let _ =
        writeln!(text, "   {:<24}{:>8}   {:<22} counted", "per 1000 bytes", "as warm", "measured");
    let warm = calibrated(calibrations, |run| run.costs.warm);
    let dropped = calibrated(calibrations, |run| run.dropped);
    for path in &PATHS {
        if let Some(reason) = measured.missing.get(path.name) {
            let _ = writeln!(text, "  {:<12}n/a: {reason}", path.name);
            continue;
        }
        let lines = [
            Line { path, core: Core::Receiving, cycles: |run| run.receiving_cycles },
            Line { path, core: Core::Forwarding, cycles: |run| run.forwarding_cycles },
        ];
        for line in lines {
            let points = measured
                .runs
                .iter()
                .filter(|run| run.path == path.name)
                .map(|run| (run.round, run.size, (line.cycles)(run)));
            let mut own = slopes(points.clone());
            if own.is_empty() {
                continue;
            }
            let name = if line.core == Core::Receiving { "receiving" } else { "forwarding" };
            write_cycles(&mut text, path.name, name, sizes, points);
            let _ = write!(text, "   {:<24}", interval(own.values().copied(), 0));
            if line.core == Core::Receiving {
                // Sending costs the generator's core something per byte, too.
                for (round, slope) in &mut own {
                    *slope -= dropped.get(round).copied().unwrap_or(0.0);
                }
            }
            let in_copies = |unit: &BTreeMap<u32, f64>, count: f64| {
                let ratios = own.iter().filter_map(|(round, slope)| Some(slope / unit.get(round)?));
                ratios.map(|ratio| ratio * count).collect::<Vec<_>>()
            };
            let as_warm = Median::of(in_copies(&warm, 1.0)).map_or(f64::NAN, |m| m.median);
            let count = line.copies().count();
            let measured_copies = match count {
                0 => "-".to_owned(),
                _ => interval(in_copies(&line.expected(calibrations), count as f64).into_iter(), 1),
            };
            let _ = writeln!(text, "{as_warm:>8.1}   {measured_copies:<22} {count}");
        }
        let sampled = measured
            .runs
            .iter()
            .filter(|run| run.path == path.name)
            .filter_map(|run| Some((run.round, run.size, run.kernel.as_ref()?.copy_cycles)));
        let slopes = slopes(sampled.clone());
        if !slopes.is_empty() {
            write_cycles(&mut text, path.name, "sampled", sizes, sampled);
            let _ = writeln!(text, "   {}", interval(slopes.into_values(), 0));
        }
    }
    text + "receiving: the generator's core, per packet sent; forwarding: xdpfwd's core, per packet \
            received, including the far end.\nas warm: the slope in warm copies. measured: the \
            slope in copies of the memory that each counted copy reads and\nwrites (docs/copies.md), \
            without what sending a packet costs per byte. sampled: the functions of the group copy \
            of the\nreport's kernel_ledger, on both cores.\n"
}

fn write_cycles(
    text: &mut String,
    path: &str,
    core: &str,
    sizes: &[u16],
    points: impl Iterator<Item = (u32, u16, f64)> + Clone,
) {
    let _ = write!(text, "  {path:<12}{core:<12}");
    for &size in sizes {
        let cycles = points.clone().filter(|point| point.1 == size).map(|(.., cycles)| cycles);
        let _ = write!(text, "{:>7.0}", Median::of(cycles).map_or(f64::NAN, |m| m.median));
    }
}
