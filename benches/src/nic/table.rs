//! The table of results that `nic` prints.

use std::fmt::Write as _;

use xdpfwd_bench::results::{NicSetup, Results, Row, Size};

use super::{
    cells::{find_column, outgoing_bytes},
    ports::line_pps,
};
use crate::stats::Median;

pub(super) fn text(results: &Results) -> String {
    let mut text = String::new();
    let none = NicSetup::default();
    let nic = results.nic.as_ref().unwrap_or(&none);
    let goals = goals(results);
    for size in &results.sizes {
        let _ = write!(text, "\n{} bytes in memory, {} on the wire", size.name, wire(&size.name));
        if let Some(mbps) = nic.link_mbps {
            let line = line_pps(mbps, size.mean_bytes as u16);
            let _ = write!(text, "; line rate of {mbps} Mbit/s: {:.3} Mpps", line / 1e6);
        }
        let _ = write!(
            text,
            "\n  {:<17}{:<18}{:>9}{:>8}{:>8}",
            "path", "column", "Mpps", "of line", "cycles"
        );
        for goal in &goals {
            let _ = write!(text, "{:>14}", heading(*goal));
        }
        text += "   p50 / p99 in µs at the loads\n";
        for row in &results.rows {
            for column in results.columns.iter().map(|column| &*column.name) {
                if let Some(line) = line(results, nic, &goals, row, column, size) {
                    text += &line;
                }
            }
        }
    }
    text += "\nMpps: median of the rounds, with as many packets offered as the links or the \
             generator allow. of line: share\nof the line rate; with ESP, of that of the longer \
             frames at the output. cycles: per forwarded packet, without\nthe far end. no loss, \
             ≤ n % lost: the highest rates with these losses in Mpps; none: every rate lost \
             more.\n";
    if let Some(loss) = nic.latency_allowed_loss {
        let _ = writeln!(text, "Loads are shares of the rate with {}.", heading(loss));
    }
    for unavailable in &results.unavailable {
        let column = unavailable.column.as_deref().unwrap_or("all columns");
        let _ = writeln!(text, "{}, {column}: n/a: {}", unavailable.row, unavailable.reason);
    }
    for failure in &results.failed {
        let (row, column, size) = (&failure.row, &failure.column, &failure.size);
        let _ = writeln!(text, "FAILED: {row}, {column}, {size} bytes: {}", failure.error);
    }
    for failure in &results.failed_rates {
        let (row, column, size) = (&failure.row, &failure.column, &failure.size);
        let _ = writeln!(text, "FAILED: rates, {row}, {column}, {size} bytes: {}", failure.error);
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

/// Returns the allowed losses of all rates, from the lowest to the highest.
fn goals(results: &Results) -> Vec<f64> {
    let mut goals: Vec<f64> = results.rates.iter().map(|rate| rate.allowed_loss).collect();
    goals.sort_by(f64::total_cmp);
    goals.dedup();
    goals
}

/// Returns the heading of the rates with this allowed loss.
fn heading(allowed_loss: f64) -> String {
    if allowed_loss == 0.0 {
        return "no loss".to_owned();
    }
    // Without the digits by which 100 × 0.007 differs from 0.7.
    let percent = (allowed_loss * 1e8).round() / 1e6;
    format!("≤ {percent} % lost")
}

/// Returns the line of a cell; `None` if it was not measured.
fn line(
    results: &Results,
    nic: &NicSetup,
    goals: &[f64],
    row: &Row,
    column: &str,
    size: &Size,
) -> Option<String> {
    let is_own = |other_row: &str, other_column: &str, other_size: &str| {
        (other_row, other_column, other_size) == (&*row.name, column, &*size.name)
    };
    let runs = || results.runs.iter().filter(|run| is_own(&run.row, &run.column, &run.size));
    let pps = Median::of(runs().map(|run| run.forwarded_pps))?.median;
    let cycles = Median::of(runs().filter_map(|run| Some(run.cycles?.total())));
    let bytes = size.mean_bytes as u16;
    let longest = find_column(column).map_or(bytes, |column| outgoing_bytes(column, bytes));
    let share = nic.link_mbps.map(|mbps| 100.0 * pps / line_pps(mbps, longest.max(bytes)));
    let mut text = format!(
        "  {:<17}{column:<18}{:>9.3}{:>8}{:>8}",
        row.name,
        pps / 1e6,
        share.map_or("-".into(), |share| format!("{share:.1} %")),
        cycles.map_or("-".into(), |cycles| format!("{:.0}", cycles.median)),
    );
    for goal in goals {
        let rate = results
            .rates
            .iter()
            .find(|rate| is_own(&rate.row, &rate.column, &rate.size) && rate.allowed_loss == *goal);
        let rate = rate.map_or("-".to_owned(), |rate| match rate.pps {
            0.0 => "none".to_owned(),
            pps => format!("{:.3}", pps / 1e6),
        });
        let _ = write!(text, "{rate:>14}");
    }
    text += "  ";
    let latencies = results.latencies.iter();
    for latency in latencies.filter(|latency| is_own(&latency.row, &latency.column, &latency.size))
    {
        let _ = write!(
            text,
            " {:.0} %: {:.1} / {:.1}",
            100.0 * latency.load,
            latency.p50_ns / 1e3,
            latency.p99_ns / 1e3
        );
    }
    Some(text.trim_end().to_owned() + "\n")
}

/// Returns a length on the wire, with FCS.
fn wire(name: &str) -> String {
    name.parse::<u32>().map_or_else(|_| "?".into(), |bytes| (bytes + 4).to_string())
}

#[cfg(test)]
mod tests {
    use xdpfwd_bench::results::Rate;

    use super::*;
    use crate::matrix::fake;

    /// Returns results of one cell with a run of 1 Mpps on links of 1 Gbit/s.
    fn results(column: &str, rates: &[(f64, f64)]) -> Results {
        let plan = fake::plan(&["path"], &[column], &["60"]);
        let cell = fake::cell("path", column, "60");
        let mut results = fake::results();
        (results.rows, results.columns) = (plan.rows, plan.columns);
        results.sizes = vec![Size { name: "60".to_owned(), mean_bytes: 60.0 }];
        results.runs = vec![fake::run(&cell, 0)];
        let rate = |&(allowed_loss, pps): &(f64, f64)| Rate {
            row: cell.row.clone(),
            column: cell.column.clone(),
            size: cell.size.clone(),
            allowed_loss,
            pps,
            upper_pps: None,
            trials: 9,
            is_complete: true,
        };
        results.rates = rates.iter().map(rate).collect();
        results.latencies.clear();
        results.nic = Some(NicSetup { link_mbps: Some(1000), ..NicSetup::default() });
        results
    }

    /// Returns the words of the line of the cell.
    fn words(results: &Results) -> Vec<String> {
        let text = text(results);
        let line =
            text.lines().find(|line| line.starts_with("  path  ") && !line.contains("column"));
        line.unwrap().split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn each_rate_is_below_the_heading_of_its_goal() {
        let results = results("none", &[(0.005, 9e5), (0.0, 0.0)]);
        let text = text(&results);
        let heading = text.lines().find(|line| line.contains("of line")).unwrap();
        assert!(heading.find("no loss").unwrap() < heading.find("≤ 0.5 % lost").unwrap());
        let words = words(&results);
        assert_eq!(words[words.len() - 2..], ["none", "0.900"], "{text}");
    }

    #[test]
    fn missing_rate_is_a_dash_in_its_own_column() {
        let mut results = results("none", &[(0.0, 8e5), (0.005, 9e5)]);
        results.rates.remove(0);
        results.rates.push(Rate { row: "other".to_owned(), ..results.rates[0].clone() });
        results.rates[1].allowed_loss = 0.0;
        let words = words(&results);
        assert_eq!(words[words.len() - 2..], ["-", "0.900"]);
    }

    #[test]
    fn share_of_line_rate_with_esp_is_that_of_the_longer_frames() {
        let share = |column| words(&results(column, &[]))[3].parse::<f64>().unwrap();
        // 60 and 114 bytes in memory, 84 and 138 bytes on the wire.
        assert_eq!((share("none"), share("aes-128-gcm")), (67.2, 110.4));
    }
}
