//! The table of a matrix that is printed at the end.

use std::{collections::BTreeMap, fmt::Write as _};

use xdpfwd_bench::results::{Rate, Results, Run};

use super::history::describe_given_up;
use crate::stats::Median;

/// Width of a column; the longest word of a heading is `chacha20`.
const WIDTH: usize = 10;

/// Returns a table for each size: rows × columns, each cell with the lines Mpps, path and cycles.
pub(crate) fn text(results: &Results) -> String {
    let mut text = String::new();
    let name_width =
        results.rows.iter().map(|row| row.name.len()).max().unwrap_or_default().max(12) + 2;
    for size in &results.sizes {
        let unit = if size.name.parse::<u16>().is_ok() { " bytes" } else { "" };
        let _ = writeln!(text, "{}{unit}: Mpps; without the sink; cycles per packet", size.name);
        text += &headings(results, name_width);
        for row in &results.rows {
            let cells: Vec<[String; 3]> = results
                .columns
                .iter()
                .map(|column| cell(results, &row.name, &column.name, &size.name))
                .collect();
            for (line, name) in [&*row.name, "  path", "  cycles"].into_iter().enumerate() {
                let _ = write!(text, "{name:<name_width$}");
                cells.iter().for_each(|cell| {
                    let _ = write!(text, "{:>WIDTH$}", cell[line]);
                });
                text.truncate(text.trim_end().len());
                text += "\n";
            }
        }
        text += "\n";
    }
    let _ = writeln!(
        text,
        "Medians of the rounds ({}). Mpps: received by the sink while the generator sends as fast as \
         it can. The sink's end of the veth\nruns on the forwarding core, so Mpps, rates and \
         latencies include its work, which differs by row. path: Mpps of the forwarding\ncore \
         without the sink's work, calculated from its cycles. cycles: of the generator's and the \
         forwarder's core, without the\ngenerator and the sink's end of the veth.",
        results.rounds
    );
    text + &rates(results, name_width) + &remarks(results)
}

/// Returns the names of the columns, broken at hyphens.
fn headings(results: &Results, name_width: usize) -> String {
    let words: Vec<Vec<&str>> =
        results.columns.iter().map(|column| column.name.split('-').collect()).collect();
    let height = words.iter().map(Vec::len).max().unwrap_or_default();
    let mut text = String::new();
    for line in 0..height {
        let _ = write!(text, "{:name_width$}", "");
        for words in &words {
            // Headings end at the same line.
            let word = (line + words.len()).checked_sub(height).map_or("", |word| words[word]);
            let _ = write!(text, "{word:>WIDTH$}");
        }
        text.truncate(text.trim_end_matches(' ').len());
        text += "\n";
    }
    text
}

fn cell(results: &Results, row: &str, column: &str, size: &str) -> [String; 3] {
    let is_unavailable = results.unavailable.iter().any(|cell| {
        cell.row == row && cell.column.as_ref().is_none_or(|unavailable| unavailable == column)
    });
    let median = |get: &dyn Fn(&Run) -> Option<f64>| {
        let runs = results.runs.iter();
        let runs = runs.filter(|run| run.row == row && run.column == column && run.size == size);
        Median::of(runs.filter_map(get)).map(|median| median.median)
    };
    match median(&|run| Some(run.forwarded_pps)) {
        None if is_unavailable => ["n/a".to_owned(), String::new(), String::new()],
        None => {
            let has_failed = results
                .failed
                .iter()
                .any(|run| run.row == row && run.column == column && run.size == size);
            let given_up = results.given_up.iter().any(|cell| cell.row == row && cell.size == size);
            let text = if has_failed || given_up { "failed" } else { "-" };
            [text.to_owned(), String::new(), String::new()]
        }
        Some(pps) => [
            format!("{:.3}", pps / 1e6),
            median(&|run| run.path_pps).map_or("n/a".to_owned(), |pps| format!("{:.3}", pps / 1e6)),
            median(&|run| Some(run.cycles?.total()))
                .map_or("n/a".to_owned(), |cycles| format!("{cycles:.0}")),
        ],
    }
}

fn rates(results: &Results, name_width: usize) -> String {
    let mut text = String::new();
    for rate in results.rates.iter().filter(|rate| rate.allowed_loss == 0.0) {
        if text.is_empty() {
            let _ =
                writeln!(text, "\nrates (Mpps) and latency at 90 % of the rate without loss (µs)");
            let _ = writeln!(
                text,
                "{:<name_width$}{:<20}{:>6}{:>WIDTH$}{:>WIDTH$}{:>WIDTH$}{:>WIDTH$}",
                "", "", "size", "no loss", "0.5 %", "p50", "p99.9"
            );
        }
        let is_same = |row: &str, column: &str, size: &str| {
            (row, column, size) == (&rate.row, &rate.column, &rate.size)
        };
        let other = results.rates.iter().find(|other| {
            is_same(&other.row, &other.column, &other.size) && other.allowed_loss > 0.0
        });
        let latency = results.latencies.iter().find(|latency| {
            is_same(&latency.row, &latency.column, &latency.size) && latency.load == 0.9
        });
        let mpps = |rate: &Rate| {
            let mark = if rate.is_complete { "" } else { "~" };
            format!("{mark}{:.3}", rate.pps / 1e6)
        };
        let number = |value: Option<f64>, digits: usize| {
            value.map_or("n/a".to_owned(), |value| format!("{value:.digits$}"))
        };
        let _ = writeln!(
            text,
            "{:<name_width$}{:<20}{:>6}{:>WIDTH$}{:>WIDTH$}{:>WIDTH$}{:>WIDTH$}",
            rate.row,
            rate.column,
            rate.size,
            mpps(rate),
            other.map_or("n/a".to_owned(), mpps),
            number(latency.map(|latency| latency.p50_ns / 1e3), 1),
            number(latency.map(|latency| latency.p999_ns / 1e3), 1),
        );
    }
    if results.rates.iter().any(|rate| !rate.is_complete) {
        text += "~: the search ran out of trials; the rate is less precise (see upper_pps in \
                 rates.csv)\n";
    }
    text
}

/// Lists cells that cannot exist by row and reason, then failures and missing frames.
fn remarks(results: &Results) -> String {
    let mut text = String::new();
    for row in &results.rows {
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for cell in results.unavailable.iter().filter(|cell| cell.row == row.name) {
            reasons
                .entry(&cell.reason)
                .or_default()
                .push(cell.column.as_deref().unwrap_or("all columns"));
        }
        for (reason, columns) in reasons {
            let _ = writeln!(text, "{}: n/a: {reason} ({})", row.name, columns.join(", "));
        }
    }
    if !text.is_empty() {
        text.insert(0, '\n');
    }
    for run in &results.runs {
        if let Some(contradiction) = contradiction(run) {
            let round = run.round + 1;
            let _ = writeln!(
                text,
                "CONTRADICTION: {}, {}, {}, round {round}: {contradiction}",
                run.row, run.column, run.size
            );
        }
    }
    for row in rows_without_counts(results) {
        let _ = writeln!(text, "{row}: it counts no packets; only the sink's count is known");
    }
    for run in &results.failed {
        let (round, error) = (run.round + 1, run.error.lines().next().unwrap_or_default());
        let _ = writeln!(
            text,
            "FAILED: {}, {}, {}, round {round}: {error}",
            run.row, run.column, run.size
        );
    }
    for rates in &results.failed_rates {
        let error = rates.error.lines().next().unwrap_or_default();
        let _ = writeln!(
            text,
            "FAILED: {}, {}, {}, rates: {error}",
            rates.row, rates.column, rates.size
        );
    }
    for given_up in &results.given_up {
        let _ = writeln!(text, "{}", describe_given_up(given_up));
    }
    text
}

/// Returns how the counts of a run contradict each other, if they do.
pub(crate) fn contradiction(run: &Run) -> Option<String> {
    let counts = match run.tool_transmitted {
        Some(transmitted) if transmitted != run.sink_received => Some(format!(
            "the forwarder transmitted {transmitted} frames, but the sink received {}",
            run.sink_received
        )),
        _ => None,
    };
    let parts: Vec<String> = [counts, run.unexplained.clone()].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Returns the rows whose forwarder reports no count of transmitted frames.
fn rows_without_counts(results: &Results) -> Vec<&str> {
    let has_no_count = |row: &&str| {
        results.runs.iter().any(|run| run.row == *row && run.tool_transmitted.is_none())
    };
    results.rows.iter().map(|row| row.name.as_str()).filter(has_no_count).collect()
}

#[cfg(test)]
mod tests {
    use xdpfwd_bench::results::{Failure, Unavailable};

    use super::*;
    use crate::matrix::fake;

    #[test]
    fn table_shows_medians_and_reasons() {
        let mut results = fake::results();
        results.unavailable.push(Unavailable {
            row: "b".to_owned(),
            column: Some("y".to_owned()),
            reason: "the application never sees the bytes".to_owned(),
        });
        results.runs.retain(|run| (run.row.as_str(), run.column.as_str()) != ("b", "y"));
        results.runs.retain(|run| (run.row.as_str(), run.column.as_str()) != ("a", "y"));
        results.failed.push(Failure {
            row: "a".to_owned(),
            column: "y".to_owned(),
            size: "60".to_owned(),
            round: 0,
            error: "it ended\nwith details".to_owned(),
        });
        let text = text(&results);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(lines.contains(&vec!["x", "y"]), "{text}");
        // fake::run: the rate is (round + 1) Mpps.
        assert!(lines.contains(&vec!["a", "2.000", "failed"]), "{text}");
        assert!(lines.contains(&vec!["b", "2.000", "n/a"]), "{text}");
        // fake::run: twice the rate without the sink.
        assert!(lines.contains(&vec!["path", "4.000"]), "{text}");
        assert!(lines.contains(&vec!["cycles", "600"]), "cycles without the far end: {text}");
        // fake::rates: the search for the second rate ran out of trials.
        assert!(lines.iter().any(|line| line.contains(&"0.333") && line.contains(&"~0.333")));
        assert!(text.contains("~: the search ran out of trials"), "{text}");
        assert!(text.contains("b: n/a: the application never sees the bytes (y)\n"), "{text}");
        assert!(text.contains("FAILED: a, y, 60, round 1: it ended\n"), "{text}");
    }

    #[test]
    fn run_whose_counts_differ_is_a_contradiction() {
        let mut results = fake::results();
        assert_eq!(contradiction(&results.runs[0]), None);
        results.runs[0].sink_received -= 1;
        let text = contradiction(&results.runs[0]).unwrap();
        assert_eq!(text, "the forwarder transmitted 123 frames, but the sink received 122");
        results.runs[0].tool_transmitted = None;
        assert_eq!(contradiction(&results.runs[0]), None);
        let row = results.runs[0].row.clone();
        assert!(remarks(&results).contains(&format!("{row}: it counts no packets")));
        results.runs[0].unexplained = Some("2 frames are missing".to_owned());
        assert_eq!(contradiction(&results.runs[0]).unwrap(), "2 frames are missing");
    }

    #[test]
    fn headings_break_names_at_hyphens() {
        let mut results = fake::results();
        results.columns[1].name = "filter-10k-kernel".to_owned();
        let text = headings(&results, 4);
        let lines: Vec<&str> = text.lines().collect();
        let expected =
            ["                  filter", "                     10k", "             x    kernel"];
        assert_eq!(lines, expected);
    }
}
