//! Stacked bars: cycles by path and account.

use maud::{Markup, html};

use super::super::charts::bars::{self, Bar};
use super::super::charts::{Source, panel};
use super::super::columns;
use super::super::context::{Report, Section};
use super::super::data::{Account, Data, Key, State};
use super::super::format::{integer, join, percent};
use super::super::setup;
use super::super::widgets;

pub(super) const SECTION: Section =
    Section { id: "accounts", title: "Where the cycles go", html: content, markdown: text };

/// Bars longer than this multiple of the longest bar without processing end at the axis.
const LONGEST: f64 = 1.2;

fn content(report: &Report) -> Option<Markup> {
    let data = &report.data;
    let finding = finding(data)?;
    let panels: Vec<(String, Markup)> =
        (0..data.sizes().len()).map(|size| (data.size_name(size), charts(data, size))).collect();
    Some(html! {
        p.finding { (finding) }
        (widgets::account_legend())
        (widgets::tabs("accounts", &panels))
        p.note {
            (setup::cycles(data)) " "
            @if !setup::is_nic(data) {
                "There, the sink receives, which is not part of forwarding (hover for its cycles). "
            }
            "The number at the end of a bar is the median of the totals; the segments are medians by "
            "account. A bar that ends with » is longer than the axis."
        }
    })
}

/// States which account is the largest on the path with the fewest and on that with the most cycles.
fn finding(data: &Data) -> Option<String> {
    let size = data.smallest_size();
    let none = columns::none(data.columns())?;
    let mut parts = Vec::new();
    for row in data.rows_by_cost(size) {
        let Some(cycles) = data.cell(row, none, size).and_then(|cell| cell.cycles.as_ref()) else {
            continue;
        };
        let largest = Account::ALL
            .into_iter()
            .max_by(|a, b| cycles.account(*a).median.total_cmp(&cycles.account(*b).median))?;
        let share = cycles.account(largest).median / cycles.total.median;
        parts.push(format!(
            "{} take {} of the {} cycles on {}",
            largest.description(),
            percent(share),
            integer(cycles.total.median),
            data.rows()[row].title
        ));
    }
    let shown = match parts.as_slice() {
        [] => return None,
        [only] => vec![only.clone()],
        [first, .., last] => vec![first.clone(), last.clone()],
    };
    Some(format!("Without security at {}, {}.", data.size_name(size), join(&shown)))
}

fn charts(data: &Data, size: usize) -> Markup {
    let columns = columns::selected(data.columns());
    let total = |row: usize, column: usize| data.cycles(row, column, size);
    let highest = |columns: &[usize]| {
        (0..data.rows().len())
            .flat_map(|row| columns.iter().filter_map(move |&column| total(row, column)))
            .fold(0.0, f64::max)
    };
    let limit = highest(&columns[..1]) * LONGEST;
    let axis = if limit > 0.0 { highest(&columns).min(limit) } else { highest(&columns) };
    html! {
        div.panels-grid {
            @for column in columns {
                @let bars: Vec<Bar> = data.rows_by_cost(size).into_iter()
                    .map(|row| bar(data, Key { row, column, size }, axis)).collect();
                @let title = &data.columns()[column].title;
                (panel(title, &bars::draw(title, &bars, axis, "cycles per packet")))
            }
        }
    }
}

fn bar(data: &Data, key: Key, axis: f64) -> Bar {
    let label = data.rows()[key.row].title.clone();
    let reason = |text: String| Bar {
        label: label.clone(),
        segments: Vec::new(),
        source: Source { title: text.clone(), anchor: String::new() },
        end: shorten(&text),
    };
    let cell = match data.state(key) {
        State::Measured(cell) => cell,
        State::Unavailable(text) => return reason(format!("n/a: {text}")),
        State::Failed(error) => return reason(format!("failed: {error}")),
        State::NotRun => return reason("not run".to_owned()),
    };
    let Some(cycles) = &cell.cycles else { return reason("cycles were not sampled".to_owned()) };
    let more = if cycles.total.median > axis { "» " } else { "" };
    Bar {
        label,
        segments: Account::ALL
            .map(|account| (account.class(), cycles.account(account).median))
            .to_vec(),
        end: format!("{more}{}", integer(cycles.total.median)),
        source: widgets::source(data, cell),
    }
}

/// Cuts a text that does not fit into a panel.
fn shorten(text: &str) -> String {
    const FITS: usize = 58;
    if text.chars().count() <= FITS {
        text.to_owned()
    } else {
        text.chars().take(FITS - 1).chain(['…']).collect()
    }
}

fn text(report: &Report) -> Option<String> {
    let data = &report.data;
    let mut text = format!("{}\n", finding(data)?);
    let mut headings: Vec<String> =
        ["path", "security", "user", "system call", "softirq", "all"].map(str::to_owned).to_vec();
    if !setup::is_nic(data) {
        headings.push("far end (not included)".to_owned());
    }
    for size in [data.smallest_size(), data.largest_size()] {
        let mut rows = Vec::new();
        for row in data.rows_by_cost(size) {
            for column in columns::selected(data.columns()) {
                let cell = data.cell(row, column, size);
                let Some(cycles) = cell.and_then(|cell| cell.cycles.as_ref()) else { continue };
                let mut cells =
                    vec![data.rows()[row].title.clone(), data.columns()[column].title.clone()];
                cells.extend(Account::ALL.map(|a| integer(cycles.account(a).median)));
                cells.push(integer(cycles.total.median));
                if !setup::is_nic(data) {
                    cells.push(integer(cycles.far_end.median));
                }
                rows.push(cells);
            }
        }
        text += &format!(
            "\n**{}**, cycles per packet\n\n{}",
            data.size_name(size),
            widgets::markdown_table(&headings, &rows)
        );
        if data.smallest_size() == data.largest_size() {
            break;
        }
    }
    Some(text)
}
