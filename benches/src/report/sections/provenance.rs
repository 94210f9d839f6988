//! How far the figures can be trusted: missing cells, failed runs, spread, machine, versions.

use maud::{Markup, html};
use xdpfwd_bench::results::Run;

use super::super::columns;
use super::super::context::{Report, Section};
use super::super::data::{Cell, Data, Key, State};
use super::super::format::{count, integer, mpps, percent};
use super::super::widgets;
use crate::stats::Median;

pub(super) const SECTION: Section = Section {
    id: "provenance",
    title: "What is missing, spread, machine",
    html: content,
    markdown: text,
};

/// Cells with the widest spread that are listed.
const WIDEST: usize = 10;
/// A forwarder's own count and the sink's may differ by this share: frames of other origin, such as
/// neighbour discovery.
const AGREEMENT: f64 = 0.001;

/// Stands for all columns of a path.
const ALL: &str = "all";

const STATISTICS: &str = "Each figure is the median of its rounds. Brackets contain an interval of \
    the true median: the narrowest between two order statistics that covers it with at least 95 %, \
    or the range of all rounds if there are fewer than six. The cycles of a cell are the median of \
    the rounds' totals; the medians of the accounts may add up to a slightly different number.";

fn content(report: &Report) -> Option<Markup> {
    let data = &report.data;
    let results = &data.results;
    let unavailable = unavailable(data);
    Some(html! {
        p.finding { (finding(data)) }
        @if !unavailable.is_empty() {
            h3 { "Cells that cannot exist" }
            (widgets::table(
                &["path", "security", "reason"].map(str::to_owned),
                &cells(&unavailable)
            ))
        }
        h3 #failed { "Failed runs" }
        @if results.failed.is_empty() {
            p { "None." }
        } @else {
            (widgets::table(&failure_headings(), &cells(&failures(data))))
        }
        h3 { "Spread of the rounds" }
        p { (spread(data)) " " (STATISTICS) }
        (widgets::table(&spread_headings(), &widest(data)))
        h3 { "Frames that are counted twice" }
        p { (agreement(data)) }
        @if !unexplained(data).is_empty() {
            ul { @for line in unexplained(data) { li { (line) } } }
        }
        h3 { "Machine and versions" }
        dl.machine {
            @for (name, value) in machine(data) { div { dt { (name) } dd { (value) } } }
        }
        h3 { "Command" }
        pre { (results.command) }
    })
}

fn finding(data: &Data) -> String {
    let results = &data.results;
    let combinations = (0..data.rows().len())
        .flat_map(|row| (0..data.columns().len()).map(move |column| (row, column)))
        .filter(|&(row, column)| {
            matches!(data.state(Key { row, column, size: 0 }), State::Unavailable(_))
        })
        .count();
    format!(
        "{} of {}. {} of a path and a kind of security cannot exist; {} failed.",
        count(results.runs.len(), "run"),
        count(data.measured().count(), "cell"),
        count(combinations, "combination"),
        count(results.failed.len(), "run")
    )
}

/// Returns path, security and reason of cells that cannot exist: a line for each path and reason.
fn unavailable(data: &Data) -> Vec<Vec<String>> {
    let mut lines: Vec<(&str, &str, Vec<String>)> = Vec::new();
    for entry in &data.results.unavailable {
        let column = entry
            .column
            .as_ref()
            .map_or_else(|| ALL.to_owned(), |column| data.column_title(column).to_owned());
        let known = lines.iter_mut().find(|line| line.0 == entry.row && line.1 == entry.reason);
        match known {
            Some((_, _, columns)) => columns.push(column),
            None => lines.push((&entry.row, &entry.reason, vec![column])),
        }
    }
    lines
        .into_iter()
        .map(|(row, reason, columns)| {
            let has_none = columns::none(data.columns())
                .is_some_and(|none| columns.contains(&data.columns()[none].title));
            let columns = match data.columns().len() - columns.len().min(data.columns().len()) {
                0 => ALL.to_owned(),
                1 if !has_none => "every kind of security".to_owned(),
                _ => columns.join("; "),
            };
            vec![data.row_title(row).to_owned(), columns, reason.to_owned()]
        })
        .collect()
}

fn failure_headings() -> Vec<String> {
    ["path", "security", "frames", "round", "error"].map(str::to_owned).to_vec()
}

fn failures(data: &Data) -> Vec<Vec<String>> {
    let failures = data.results.failed.iter();
    failures
        .map(|failure| {
            vec![
                data.row_title(&failure.row).to_owned(),
                data.column_title(&failure.column).to_owned(),
                failure.size.clone(),
                failure.round.to_string(),
                failure.error.clone(),
            ]
        })
        .collect()
}

/// Returns the width of an interval relative to the median.
fn width(median: &Median) -> f64 {
    (median.high - median.low) / median.median.abs().max(f64::MIN_POSITIVE)
}

fn spread(data: &Data) -> String {
    let rates = Median::of(
        data.measured().filter(|cell| cell.runs.len() > 1).map(|cell| width(&cell.mpps)),
    );
    let text = |width: Option<f64>| width.map_or_else(|| "unknown".to_owned(), percent);
    let mut text = format!(
        "The interval of half of all cells is narrower than {} of the rate, and {} of the cycles.",
        text(rates.map(|median| median.median)),
        text(data.typical_width())
    );
    let load = &data.results.machine.load_average;
    if load
        .split(' ')
        .next()
        .and_then(|load| load.parse::<f64>().ok())
        .is_some_and(|load| load > 0.5)
    {
        text += &format!(
            " At the start, other programs used this machine (load average {load}): if they went \
             on, the figures are unreliable."
        );
    }
    text
}

fn spread_headings() -> Vec<String> {
    ["widest intervals", "security", "frames", "Mpps", "width"].map(str::to_owned).to_vec()
}

fn widest(data: &Data) -> Vec<(Markup, Vec<Markup>)> {
    let mut cells: Vec<&Cell> = data.measured().collect();
    cells.sort_by(|a, b| width(&b.mpps).total_cmp(&width(&a.mpps)));
    cells
        .into_iter()
        .take(WIDEST)
        .map(|cell| {
            let interval = format!("{} to {}", mpps(cell.mpps.low), mpps(cell.mpps.high));
            let cells = vec![
                html! { (data.columns()[cell.key.column].title) },
                html! { (data.size_name(cell.key.size)) },
                widgets::linked(&interval, &widgets::source(data, cell)),
                html! { (percent(width(&cell.mpps))) },
            ];
            (html! { (data.rows()[cell.key.row].title) }, cells)
        })
        .collect()
}

/// States whether the forwarders' counts agree with those of the sink.
fn agreement(data: &Data) -> String {
    let differs = |run: &&Run| {
        run.tool_transmitted.is_some_and(|transmitted| {
            transmitted.abs_diff(run.sink_received) as f64 > run.sink_received as f64 * AGREEMENT
        })
    };
    let counted = data.results.runs.iter().filter(|run| run.tool_transmitted.is_some()).count();
    let different = data.results.runs.iter().filter(differs).count();
    format!(
        "In {} of {} that a forwarder's own counters cover, the frames that it reports as \
         transmitted differ from those that arrived at the sink by more than {}.",
        integer(different as f64),
        count(counted, "run"),
        percent(AGREEMENT)
    )
}

/// Returns a line for each run that does not account for all frames.
fn unexplained(data: &Data) -> Vec<String> {
    let line = |run: &Run| {
        Some(format!(
            "{}, {}, {}, round {}: {}",
            data.row_title(&run.row),
            data.column_title(&run.column),
            run.size,
            run.round,
            run.unexplained.as_ref()?
        ))
    };
    data.results.runs.iter().filter_map(line).collect()
}

fn machine(data: &Data) -> Vec<(String, String)> {
    let (results, machine) = (&data.results, &data.results.machine);
    let mut lines: Vec<(String, String)> = [
        ("host", machine.host.clone()),
        ("processor", machine.cpu.clone()),
        (
            "clock",
            format!("{} MHz; time-stamp counter {:.0} MHz", machine.cpu_mhz, results.tsc_hz / 1e6),
        ),
        ("cores", machine.cores.to_string()),
        ("memory", format!("{:.1} GiB", machine.memory_kib as f64 / 1_048_576.0)),
        ("virtual machine", if machine.virtual_machine { "yes" } else { "no" }.to_owned()),
        ("kernel", machine.kernel.clone()),
        ("load at start", machine.load_average.clone()),
        ("xdpfwd commit", machine.commit.clone()),
        ("rustc", machine.rustc.clone()),
        ("C compiler", machine.cc.clone()),
        ("kind", results.kind.clone()),
        ("rounds", results.rounds.to_string()),
        ("window", format!("{} s after {} s", results.seconds, results.warmup)),
        ("started", results.started.clone()),
        ("finished", results.finished.clone().unwrap_or_else(|| "not yet".to_owned())),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    lines.extend(results.versions.iter().map(|(name, version)| (name.clone(), version.clone())));
    lines
}

fn cells(rows: &[Vec<String>]) -> Vec<(Markup, Vec<Markup>)> {
    let cell = |text: &String| html! { (text) };
    rows.iter()
        .map(|row| (row.first().map(cell).unwrap_or_default(), row[1..].iter().map(cell).collect()))
        .collect()
}

fn text(report: &Report) -> Option<String> {
    let data = &report.data;
    let mut text =
        format!("{}\n\n{} {STATISTICS}\n\n{}\n", finding(data), spread(data), agreement(data));
    let unavailable = unavailable(data);
    if !unavailable.is_empty() {
        text += "\n**Cells that cannot exist**\n\n";
        text += &widgets::markdown_table(
            &["path", "security", "reason"].map(str::to_owned),
            &unavailable,
        );
    }
    if !data.results.failed.is_empty() {
        text += "\n**Failed runs**\n\n";
        text += &widgets::markdown_table(&failure_headings(), &failures(data));
    }
    let machine: Vec<Vec<String>> =
        machine(data).into_iter().map(|(name, value)| vec![name, value]).collect();
    text += "\n**Machine**\n\n";
    text += &widgets::markdown_table(&["", ""].map(str::to_owned), &machine);
    text += &format!("\n```sh\n{}\n```\n", data.results.command);
    Some(text)
}
