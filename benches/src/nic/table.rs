//! The table of results that `nic` prints.

use std::fmt::Write as _;

use xdpfwd_bench::results::{NicSetup, Results};

use super::ports::line_pps;
use crate::stats::Median;

pub(super) fn text(results: &Results) -> String {
    let mut text = String::new();
    let none = NicSetup::default();
    let nic = results.nic.as_ref().unwrap_or(&none);
    for size in &results.sizes {
        let line = nic.link_mbps.map(|mbps| line_pps(mbps, size.mean_bytes as u16));
        let _ = write!(text, "\n{} bytes in memory, {} on the wire", size.name, wire(&size.name));
        if let (Some(line), Some(mbps)) = (line, nic.link_mbps) {
            let _ = write!(text, "; line rate of {mbps} Mbit/s: {:.3} Mpps", line / 1e6);
        }
        let _ = writeln!(
            text,
            "\n  {:<17}{:<18}{:>9}{:>8}{:>8}{:>10}{:>10}   p50 / p99 in µs at the loads",
            "path", "column", "Mpps", "of line", "cycles", "no drop", "some drop"
        );
        for row in &results.rows {
            for column in results.columns.iter().map(|column| &*column.name) {
                let is_own = |other_row: &str, other_column: &str, other_size: &str| {
                    (other_row, other_column, other_size) == (&*row.name, column, &*size.name)
                };
                let runs =
                    || results.runs.iter().filter(|run| is_own(&run.row, &run.column, &run.size));
                let median = Median::of(runs().map(|run| run.forwarded_pps));
                let Some(pps) = median.map(|median| median.median) else { continue };
                let cycles = Median::of(runs().filter_map(|run| Some(run.cycles?.total())));
                let mut rates =
                    results.rates.iter().filter(|rate| is_own(&rate.row, &rate.column, &rate.size));
                let mut rate =
                    || rates.next().map_or("-".into(), |rate| format!("{:.3}", rate.pps / 1e6));
                let _ = write!(
                    text,
                    "  {:<17}{column:<18}{:>9.3}{:>8}{:>8}{:>10}{:>10}  ",
                    row.name,
                    pps / 1e6,
                    line.map_or("-".into(), |line| format!("{:.1} %", 100.0 * pps / line)),
                    cycles.map_or("-".into(), |cycles| format!("{:.0}", cycles.median)),
                    rate(),
                    rate(),
                );
                for latency in results
                    .latencies
                    .iter()
                    .filter(|latency| is_own(&latency.row, &latency.column, &latency.size))
                {
                    let _ = write!(
                        text,
                        " {:.0} %: {:.1} / {:.1}",
                        100.0 * latency.load,
                        latency.p50_ns / 1e3,
                        latency.p99_ns / 1e3
                    );
                }
                text += "\n";
            }
        }
    }
    text += "\nMpps: median of the rounds, with as many packets offered as the link or the \
             generator allows. of line: share\nof the line rate. cycles: per forwarded packet, \
             without the far end. no drop, some drop: Mpps at the allowed losses.\n";
    for unavailable in &results.unavailable {
        let column = unavailable.column.as_deref().unwrap_or("all columns");
        let _ = writeln!(text, "{}, {column}: n/a: {}", unavailable.row, unavailable.reason);
    }
    for failure in &results.failed {
        let (row, column, size) = (&failure.row, &failure.column, &failure.size);
        let _ = writeln!(text, "FAILED: {row}, {column}, {size} bytes: {}", failure.error);
    }
    for preparation in &nic.missing_preparations {
        let _ = writeln!(
            text,
            "not prepared: {}, {}: {}",
            preparation.subject, preparation.check, preparation.finding
        );
    }
    text
}

/// Returns a length on the wire, with FCS.
fn wire(name: &str) -> String {
    name.parse::<u32>().map_or_else(|_| "?".into(), |bytes| (bytes + 4).to_string())
}
