//! The matrix: rate and cycles of every cell.

use maud::{Markup, html};

use super::super::context::{Report, Section};
use super::super::data::{Cell, CellCycles, Data, Key, MIN_SAMPLES, State};
use super::super::format::{integer, join, mpps};
use super::super::setup;
use super::super::widgets;

pub(super) const SECTION: Section =
    Section { id: "matrix", title: "The matrix", html: content, markdown: text };

/// Distinct reasons of missing cells, numbered from 1 in the order of the tables.
struct Reasons<'a>(Vec<&'a str>);

impl<'a> Reasons<'a> {
    fn new(data: &'a Data) -> Self {
        let mut reasons = Vec::new();
        for key in keys(data) {
            if let State::Unavailable(reason) = data.state(key)
                && !reasons.contains(&reason)
            {
                reasons.push(reason);
            }
        }
        Self(reasons)
    }

    fn number(&self, reason: &str) -> usize {
        self.0.iter().position(|known| *known == reason).map_or(0, |index| index + 1)
    }
}

fn keys(data: &Data) -> impl Iterator<Item = Key> {
    let (columns, sizes) = (data.columns().len(), data.sizes().len());
    (0..sizes).flat_map(move |size| {
        (0..data.rows().len())
            .flat_map(move |row| (0..columns).map(move |column| Key { row, column, size }))
    })
}

fn content(report: &Report) -> Option<Markup> {
    let data = &report.data;
    let reasons = Reasons::new(data);
    let tables: Vec<(String, Markup)> = (0..data.sizes().len())
        .map(|size| (data.size_name(size), table(data, size, &reasons)))
        .collect();
    Some(html! {
        p.finding { (finding(data)) }
        p.note {
            "Each cell: " b { "millions of packets per second" } " that arrive at the sink, and "
            "below, cycles per packet. The stronger the colour, the more cycles. Medians of the "
            "rounds; hover for intervals and accounts, click for the raw values and commands. "
            (setup::rates_and_cycles(data)) " " (setup::cycles(data))
            @if has_few_samples(data) { " " (few_samples()) }
        }
        (widgets::tabs("matrix", &tables))
        @for row in data.rows().iter().filter(|row| !row.remark.is_empty()) {
            p.remarks { b { "* " (row.title) ":" } " " (row.remark) }
        }
        @if !reasons.0.is_empty() {
            ol.reasons {
                @for (index, reason) in reasons.0.iter().enumerate() {
                    li id=(format!("reason-{}", index + 1)) { "n/a: " (reason) }
                }
            }
        }
    })
}

/// Returns whether the cycles of a cell are marked.
fn has_few_samples(data: &Data) -> bool {
    data.measured().any(|cell| cell.cycles.as_ref().is_some_and(CellCycles::has_few_samples))
}

fn few_samples() -> String {
    format!("In grey: cycles from fewer than {MIN_SAMPLES} samples in a run, which are unreliable.")
}

/// States how far the cells are apart.
fn finding(data: &Data) -> String {
    let size = data.smallest_size();
    let mut costs: Vec<(&Cell, f64)> = data
        .measured()
        .filter(|cell| cell.key.size == size)
        .filter_map(|cell| Some((cell, cell.cycles.as_ref()?.total.median)))
        .collect();
    costs.sort_by(|a, b| a.1.total_cmp(&b.1));
    let name = |cell: &Cell| {
        let (row, column) = (&data.rows()[cell.key.row], &data.columns()[cell.key.column]);
        data.combination(&row.name, &column.name)
    };
    let (Some((least, low)), Some((most, high))) = (costs.first(), costs.last()) else {
        return format!(
            "No cell of {} has cycles: the samples of the processor were not available.",
            data.size_name(size)
        );
    };
    format!(
        "At {}, a packet costs from {} cycles ({}) to {} ({}).",
        data.size_name(size),
        integer(*low),
        name(least),
        integer(*high),
        name(most)
    )
}

fn table(data: &Data, size: usize, reasons: &Reasons) -> Markup {
    let costs: Vec<f64> = data
        .measured()
        .filter(|cell| cell.key.size == size)
        .filter_map(|cell| Some(cell.cycles.as_ref()?.total.median.max(1.0).ln()))
        .collect();
    let range = (
        costs.iter().copied().fold(f64::INFINITY, f64::min),
        costs.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    );
    html! {
        div.scroll {
            table.matrix {
                thead {
                    tr {
                        th scope="col" { "path" }
                        @for column in data.columns() { th scope="col" { (column.title) } }
                    }
                }
                tbody {
                    @for (index, row) in data.rows().iter().enumerate() {
                        tr {
                            th scope="row" title=(row.remark) {
                                (row.title)
                                @if !row.remark.is_empty() {
                                    span.remark aria-hidden="true" { "*" }
                                }
                            }
                            @for column in 0..data.columns().len() {
                                (entry(data, Key { row: index, column, size }, range, reasons))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn entry(data: &Data, key: Key, (low, high): (f64, f64), reasons: &Reasons) -> Markup {
    let (row, column) = (&data.rows()[key.row].name, &data.columns()[key.column].name);
    let size = &data.sizes()[key.size].name;
    match data.state(key) {
        State::Measured(cell) => {
            let cycles = cell.cycles.as_ref().map(|cycles| cycles.total.median);
            let few = cell.cycles.as_ref().is_some_and(CellCycles::has_few_samples);
            let heat =
                cycles.map_or(0.0, |cycles| (cycles.max(1.0).ln() - low) / (high - low).max(1e-9));
            html! {
                td.measured style=(format!("--heat:{:.0}%", heat.clamp(0.0, 1.0) * 100.0))
                    data-row=(row) data-column=(column) data-size=(size)
                    data-mpps=(cell.mpps.median) data-cycles=[cycles] {
                    a href=(format!("#{}", data.anchor(key))) title=(data.describe(cell)) {
                        b { (mpps(cell.mpps.median)) }
                        span.few[few] { (cycles.map_or_else(|| "–".to_owned(), integer)) }
                    }
                }
            }
        }
        State::Unavailable(reason) => {
            let number = reasons.number(reason);
            html! {
                td.unavailable data-row=(row) data-column=(column) data-size=(size)
                    title=(format!("n/a: {reason}")) {
                    a href=(format!("#reason-{number}")) { "n/a" sup { (number) } }
                }
            }
        }
        State::Failed(error) => html! {
            td.failed data-row=(row) data-column=(column) data-size=(size)
                title=(format!("failed: {error}")) { a href="#failed" { "failed" } }
        },
        State::NotRun => html! {
            td.not-run data-row=(row) data-column=(column) data-size=(size)
                title="this cell has no run" { "–" }
        },
    }
}

fn measured(cell: &Cell) -> String {
    let cycles = cell.cycles.as_ref().map_or_else(
        || "–".to_owned(),
        |cycles| {
            let total = integer(cycles.total.median);
            if cycles.has_few_samples() { format!("({total})") } else { total }
        },
    );
    format!("{} / {cycles}", mpps(cell.mpps.median))
}

fn text(report: &Report) -> Option<String> {
    let data = &report.data;
    let reasons = Reasons::new(data);
    let mut text = format!(
        "{}\n\nMillions of packets per second / cycles per packet; medians of the rounds. {} {}\n",
        finding(data),
        setup::rates_and_cycles(data),
        setup::cycles(data)
    );
    if has_few_samples(data) {
        text += &format!("\nIn parentheses: {}\n", few_samples().trim_start_matches("In grey: "));
    }
    let headings: Vec<String> = std::iter::once("path".to_owned())
        .chain(data.columns().iter().map(|column| column.title.clone()))
        .collect();
    for size in 0..data.sizes().len() {
        let rows: Vec<Vec<String>> = (0..data.rows().len())
            .map(|row| {
                let cells = (0..data.columns().len()).map(|column| {
                    match data.state(Key { row, column, size }) {
                        State::Measured(cell) => measured(cell),
                        State::Unavailable(reason) => format!("n/a ({})", reasons.number(reason)),
                        State::Failed(_) => "failed".to_owned(),
                        State::NotRun => "–".to_owned(),
                    }
                });
                std::iter::once(data.rows()[row].title.clone()).chain(cells).collect()
            })
            .collect();
        text += &format!(
            "\n**{}**\n\n{}",
            data.size_name(size),
            widgets::markdown_table(&headings, &rows)
        );
    }
    let numbered: Vec<String> = reasons
        .0
        .iter()
        .enumerate()
        .map(|(index, reason)| format!("({}) {reason}", index + 1))
        .collect();
    if !numbered.is_empty() {
        text += &format!("\nn/a: {}.\n", join(&numbered));
    }
    Some(text)
}
