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
    title: "Missing cells, spread, machine",
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
                &widgets::cells(&unavailable)
            ))
        }
        h3 #failed { "Failed runs" }
        @if results.failed.is_empty() {
            p { "None." }
        } @else {
            (widgets::table(&failure_headings(), &widgets::cells(&failures(data))))
        }
        @for (title, headings, rows) in further(data) {
            h3 { (title) }
            (widgets::table(&headings, &widgets::cells(&rows)))
        }
        h3 { "Spread of the rounds" }
        p { (spread(data)) " " (STATISTICS) }
        (widgets::table(&spread_headings(), &widest(data)))
        h3 { "Forwarder's counters compared with the sink's" }
        p { (agreement(data)) }
        @if !different(data).is_empty() {
            ul { @for line in different(data) { li { (line) } } }
        }
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
                1 if !has_none => ALL.to_owned(),
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

/// A table: title, headings, rows.
type Table = (&'static str, Vec<String>, Vec<Vec<String>>);

/// Returns tables of what was not measured and of the network interfaces, without empty ones.
fn further(data: &Data) -> Vec<Table> {
    let results = &data.results;
    let headings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let failed_rates = results.failed_rates.iter().map(|failure| {
        vec![
            data.row_title(&failure.row).to_owned(),
            data.column_title(&failure.column).to_owned(),
            failure.size.clone(),
            failure.error.clone(),
        ]
    });
    let given_up = results.given_up.iter().map(|entry| {
        let column = entry.column.as_ref().map_or(ALL, |column| data.column_title(column));
        vec![data.row_title(&entry.row).to_owned(), column.to_owned(), entry.size.clone()]
    });
    let mut tables: Vec<Table> = vec![
        (
            "Failed searches for rates, and latencies",
            headings(&["path", "security", "frames", "error"]),
            failed_rates.collect(),
        ),
        (
            "Not tried again, because the first runs failed",
            headings(&["path", "security", "frames"]),
            given_up.collect(),
        ),
    ];
    if let Some(nic) = &results.nic {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "–".to_owned());
        let number = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |n| n.to_string());
        let ports = nic.ports.iter().map(|port| {
            vec![
                port.role.clone(),
                port.interface.clone(),
                text(&port.driver),
                text(&port.firmware),
                text(&port.bus),
                text(&port.pcie),
                number(port.speed_mbps),
                port.mtu.to_string(),
                number(port.numa_node.map(u64::from)),
            ]
        });
        let missing = nic.missing_preparations.iter().map(|missing| {
            vec![
                missing.subject.clone(),
                missing.check.clone(),
                missing.level.clone(),
                missing.finding.clone(),
                text(&missing.fix),
            ]
        });
        let port_headings = [
            "port",
            "interface",
            "driver",
            "firmware",
            "bus",
            "PCIe",
            "Mbit/s",
            "MTU",
            "NUMA node",
        ];
        tables.extend([
            ("Network interfaces", headings(&port_headings), ports.collect()),
            (
                "Preparations that were missing",
                headings(&["subject", "check", "level", "finding", "fix"]),
                missing.collect(),
            ),
            (
                "Remarks about measurements",
                headings(&["remark"]),
                nic.notes.iter().map(|note| vec![note.clone()]).collect(),
            ),
        ]);
    }
    tables.retain(|table| !table.2.is_empty());
    tables
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

/// Returns a line for each run in which the counts of forwarder and sink do not agree.
fn different(data: &Data) -> Vec<String> {
    let line = |run: &Run| {
        let transmitted = run.tool_transmitted?;
        let allowed = run.sink_received as f64 * AGREEMENT;
        (transmitted.abs_diff(run.sink_received) as f64 > allowed).then(|| {
            format!(
                "{}: {} transmitted, {} at the sink",
                run_name(data, run),
                integer(transmitted as f64),
                integer(run.sink_received as f64)
            )
        })
    };
    data.results.runs.iter().filter_map(line).collect()
}

fn run_name(data: &Data, run: &Run) -> String {
    format!(
        "{}, {}, {}, round {}",
        data.row_title(&run.row),
        data.column_title(&run.column),
        run.size,
        run.round
    )
}

/// States whether the forwarders' counts agree with those of the sink.
fn agreement(data: &Data) -> String {
    let counted = data.results.runs.iter().filter(|run| run.tool_transmitted.is_some()).count();
    format!(
        "In {} of {} that a forwarder's own counters cover, the frames that it reports as \
         transmitted differ from those that arrived at the sink by more than {}.",
        integer(different(data).len() as f64),
        count(counted, "run"),
        percent(AGREEMENT)
    )
}

/// Returns a line for each run that does not account for all frames.
fn unexplained(data: &Data) -> Vec<String> {
    let line = |run: &Run| Some(format!("{}: {}", run_name(data, run), run.unexplained.as_ref()?));
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
        ("generator", results.generator.clone().unwrap_or_else(|| "live".to_owned())),
        ("rounds", results.rounds.to_string()),
        ("window", format!("{} s after {} s", results.seconds, results.warmup)),
        ("started", results.started.clone()),
        ("finished", results.finished.clone().unwrap_or_else(|| "not yet".to_owned())),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    if let Some(nic) = &results.nic {
        let list =
            |cores: &[usize]| cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        lines.extend(
            [
                ("forwarder", nic.forwarder.clone()),
                ("cores of the generator", list(&nic.generator_cores)),
                ("cores of the forwarder", list(&nic.forwarder_cores)),
                ("flows", nic.flows.to_string()),
                (
                    "slowest link",
                    nic.link_mbps
                        .map_or_else(|| "unknown".to_owned(), |mbps| format!("{mbps} Mbit/s")),
                ),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
    }
    lines.extend(results.versions.iter().map(|(name, version)| (name.clone(), version.clone())));
    lines
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
    for (title, headings, rows) in further(data) {
        text += &format!("\n**{title}**\n\n{}", widgets::markdown_table(&headings, &rows));
    }
    for lines in [different(data), unexplained(data)].into_iter().filter(|all| !all.is_empty()) {
        text += &format!("\n- {}\n", lines.join("\n- "));
    }
    let machine: Vec<Vec<String>> =
        machine(data).into_iter().map(|(name, value)| vec![name, value]).collect();
    text += "\n**Machine**\n\n";
    text += &widgets::markdown_table(&["", ""].map(str::to_owned), &machine);
    text += &format!("\n```sh\n{}\n```\n", data.results.command);
    Some(text)
}
