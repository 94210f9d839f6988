//! The tables of `copies`.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{calibration::Calibration, memory::Costs, results::Results, run::CopyRun};
use crate::{
    paths::{Caches, Copy, Core, PATHS, PacketPath},
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
    text + "warm: a burst of 64 frames, in the L2 cache. cold: memory of this core that does not \
            fit into its L2 cache. source,\ntarget of other core: the other core has just written \
            the source, or read the target, in a UMEM's order. The cost of the\nsystem call is \
            included and does not depend on the length.\n"
}

fn interval(values: impl Iterator<Item = f64>, digits: usize) -> String {
    Median::of(values).map_or("n/a".to_owned(), |median| show(median, digits))
}

fn show(Median { median, low, high, .. }: Median, digits: usize) -> String {
    format!("{median:.digits$} [{low:.digits$}, {high:.digits$}]")
}

/// The lowest probability of an interval that counts: that of the range of five values.
const MIN_COVERAGE: f64 = 0.93;

/// The accuracy with which a number of copies must be known.
const TOLERANCE: f64 = 0.5;

/// Compares the measured number of copies with the counted one. `unit` is the calibrated slope: no
/// copies can be measured with a slope that may be 0.
fn judge(copies: Median, counted: f64, unit: Option<Median>) -> &'static str {
    if unit.is_none_or(|unit| unit.low <= 0.0) {
        return "inconclusive: the calibrated slope may be 0";
    }
    if copies.coverage < MIN_COVERAGE {
        return "inconclusive: too few rounds";
    }
    let (low, high) = (counted - TOLERANCE, counted + TOLERANCE);
    if copies.low >= low && copies.high <= high {
        "confirmed"
    } else if copies.high < low || copies.low > high {
        "differs"
    } else {
        "inconclusive"
    }
}

/// A core's cycles per packet over length.
struct Line<'a> {
    path: &'a PacketPath,
    core: Core,
    cycles: fn(&CopyRun) -> f64,
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
                Caches::Cold => |costs| costs.cold,
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

pub(super) fn paths(results: &Results, sizes: &[u16]) -> String {
    let calibrations = &results.calibrations;
    let mut text = String::from("\nPaths: cycles per packet over length, and copies\n");
    let _ = write!(text, "  {:<12}{:<12}", "path", "core");
    for size in sizes {
        let _ = write!(text, "{size:>7}");
    }
    let _ = writeln!(
        text,
        "   {:<24}{:>8}   {:<18}{:>8}  result",
        "per 1000 bytes", "as warm", "measured", "counted"
    );
    let warm = calibrated(calibrations, |run| run.costs.warm);
    let dropped = calibrated(calibrations, |run| run.dropped);
    for path in &PATHS {
        if let Some(reason) = results.missing.get(path.name) {
            let _ = writeln!(text, "  {:<12}n/a: {reason}", path.name);
            continue;
        }
        let lines = [
            Line { path, core: Core::Receiving, cycles: |run| run.receiving_cycles },
            Line { path, core: Core::Forwarding, cycles: |run| run.forwarding_cycles },
        ];
        for line in lines {
            let points = results
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
                // What receiving costs per byte without a copy.
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
            let unit = line.expected(calibrations);
            let copies = Median::of(in_copies(&unit, count as f64));
            let (measured, result) = match (count, copies) {
                (0, _) => ("-".to_owned(), "-"),
                (_, None) => ("n/a".to_owned(), "inconclusive"),
                (_, Some(copies)) => {
                    let unit = Median::of(unit.into_values());
                    let result = judge(copies, count as f64, unit);
                    (show(copies, 1), result)
                }
            };
            let _ = writeln!(text, "{as_warm:>8.1}   {measured:<18}{count:>8}  {result}");
        }
        let sampled = results
            .runs
            .iter()
            .filter(|run| run.path == path.name)
            .map(|run| (run.round, run.size, run.copy_cycles));
        let slopes = slopes(sampled.clone());
        if !slopes.is_empty() {
            write_cycles(&mut text, path.name, "sampled", sizes, sampled);
            let _ = writeln!(text, "   {}", interval(slopes.into_values(), 0));
        }
    }
    text + "receiving: softirqs on the generator's core, per packet sent, at a rate without losses. \
            forwarding: CPU time of xdpfwd's\nworker and of ksoftirqd, per packet forwarded, \
            including the far end, under overload. as warm: the slope in warm copies.\nmeasured: \
            the slope in copies of the memory that each counted copy reads and writes \
            (docs/copies.md). confirmed: the\ninterval lies within 0.5 of the counted number; \
            differs: it lies outside; inconclusive: neither. sampled: kernel functions\nthat copy, \
            on both cores.\n"
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

#[cfg(test)]
mod tests {
    use super::*;

    fn median(low: f64, median: f64, high: f64) -> Median {
        Median { median, low, high, coverage: 0.96, n: 9 }
    }

    #[test]
    fn judge_confirms_only_narrow_intervals_around_the_count() {
        let unit = Some(median(40.0, 50.0, 60.0));
        assert_eq!(judge(median(1.6, 2.1, 2.4), 2.0, unit), "confirmed");
        assert_eq!(judge(median(1.4, 2.1, 2.4), 2.0, unit), "inconclusive");
        assert_eq!(judge(median(2.6, 3.0, 3.4), 2.0, unit), "differs");
        assert_eq!(judge(median(0.1, 1.0, 1.4), 2.0, unit), "differs");
    }

    #[test]
    fn judge_with_too_few_rounds_is_inconclusive() {
        let unit = Some(median(40.0, 50.0, 60.0));
        let coverage = |values: &[f64]| Median::of(values.iter().copied()).unwrap().coverage;
        let copies = |values| Median { coverage: coverage(values), ..median(1.9, 2.0, 2.1) };
        assert_eq!(judge(copies(&[2.0; 5]), 2.0, unit), "confirmed");
        assert!(judge(copies(&[2.0; 4]), 2.0, unit).starts_with("inconclusive"));
    }

    #[test]
    fn judge_with_flat_calibration_is_inconclusive() {
        let flat = Some(median(-1.0, 0.1, 2.0));
        assert!(judge(median(1.9, 2.0, 2.1), 2.0, flat).starts_with("inconclusive"));
        assert!(judge(median(1.9, 2.0, 2.1), 2.0, None).starts_with("inconclusive"));
    }
}
