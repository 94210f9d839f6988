//! What each security column adds to each path.

use maud::{Markup, html};

use super::super::columns;
use super::super::context::{Report, Section};
use super::super::data::{Added, CellCycles, Data, Key, MIN_SAMPLES, State};
use super::super::format::{count, integer, signed};
use super::super::widgets;
use crate::stats::Median;

pub(super) const SECTION: Section = Section {
    id: "added",
    title: "What each kind of security adds",
    html: content,
    markdown: text,
};

fn content(report: &Report) -> Option<Markup> {
    let data = &report.data;
    if rows(data).is_empty() {
        return None;
    }
    let finding = finding(data);
    let panels: Vec<(String, Markup)> =
        (0..data.sizes().len()).map(|size| (data.size_name(size), table(data, size))).collect();
    Some(html! {
        @if let Some(finding) = finding { p.finding { (finding) } }
        (widgets::account_legend())
        (widgets::tabs("added", &panels))
        p.note {
            "Cycles per packet in addition to the same path without security: the difference of "
            "the medians. The bar shows their accounts. In "
            span.unclear { "grey" }
            ": the intervals of both cells overlap (or there is one round only), so the difference "
            "may be chance, or a run has fewer than " (MIN_SAMPLES) " samples."
        }
    })
}

/// Returns the kinds of security whose added cycles can be compared, without the control, and
/// the paths in user space that have them all. If no path has all kinds, only the kinds that most
/// paths have are compared.
fn comparable(data: &Data, size: usize) -> (Vec<usize>, Vec<usize>) {
    let user: Vec<usize> =
        rows(data).into_iter().filter(|&row| data.rows()[row].place == "user").collect();
    let has = |row: usize, column: usize| data.added(Key { row, column, size }).is_some();
    let mut compared = security(data);
    compared.retain(|&column| {
        data.columns()[column].group != "control" && user.iter().any(|&row| has(row, column))
    });
    let common = |compared: &[usize]| -> Vec<usize> {
        let all = |row: &usize| compared.iter().all(|&column| has(*row, column));
        user.iter().copied().filter(all).collect()
    };
    if common(&compared).is_empty() {
        let most = |column: usize| user.iter().filter(|&&row| has(row, column)).count();
        let highest = compared.iter().map(|&column| most(column)).max().unwrap_or_default();
        compared.retain(|&column| most(column) == highest);
    }
    let rows = common(&compared);
    (compared, rows)
}

/// States which column adds the least and which the most, over the same paths in user space.
fn finding(data: &Data) -> Option<String> {
    let size = data.smallest_size();
    let (compared, rows) = comparable(data, size);
    let mut costs: Vec<(usize, f64, bool)> = compared
        .into_iter()
        .filter_map(|column| {
            let added: Vec<Added> =
                rows.iter().filter_map(|&row| data.added(Key { row, column, size })).collect();
            let distinct = added.iter().filter(|added| added.is_distinct).count();
            let median = Median::of(added.iter().map(|added| added.total))?.median;
            Some((column, median, 2 * distinct > added.len()))
        })
        .collect();
    costs.sort_by(|a, b| a.1.total_cmp(&b.1));
    let name = |column: usize| &data.columns()[column].title;
    let paths = count(rows.len(), "path");
    let figure = |cost: &(usize, f64, bool)| {
        let doubt = if cost.2 { "" } else { ", which may be chance" };
        format!("{} cycles per packet{doubt}", integer(cost.1))
    };
    match costs.as_slice() {
        [] => None,
        [only] => Some(format!(
            "At {}, {} adds {} (median over {paths} in user space).",
            data.size_name(size),
            name(only.0),
            figure(only)
        )),
        [least, .., most] => Some(format!(
            "At {}, {} adds the least ({}) and {} the most ({}): medians over {paths} in user \
             space.",
            data.size_name(size),
            name(least.0),
            figure(least),
            name(most.0),
            figure(most)
        )),
    }
}

/// Returns the columns with processing.
fn security(data: &Data) -> Vec<usize> {
    let none = columns::none(data.columns());
    (0..data.columns().len()).filter(|&column| Some(column) != none).collect()
}

/// Returns the rows on which at least one column was measured.
fn rows(data: &Data) -> Vec<usize> {
    let none = columns::none(data.columns());
    data.rows_by_cost(data.smallest_size())
        .into_iter()
        .filter(|&row| {
            data.measured().any(|cell| cell.key.row == row && Some(cell.key.column) != none)
        })
        .collect()
}

fn headings(data: &Data) -> Vec<String> {
    std::iter::once("path".to_owned())
        .chain(security(data).into_iter().map(|column| data.columns()[column].title.clone()))
        .collect()
}

fn table(data: &Data, size: usize) -> Markup {
    let rows: Vec<(Markup, Vec<Markup>)> = rows(data)
        .into_iter()
        .map(|row| {
            let cells = security(data)
                .into_iter()
                .map(|column| entry(data, Key { row, column, size }))
                .collect();
            (html! { (data.rows()[row].title) }, cells)
        })
        .collect();
    html! { div.added { (widgets::table(&headings(data), &rows)) } }
}

fn entry(data: &Data, key: Key) -> Markup {
    match (data.state(key), data.added(key)) {
        (State::Measured(cell), Some(added)) => html! {
            @let few = cell.cycles.as_ref().is_some_and(CellCycles::has_few_samples);
            span.unclear[!added.is_distinct || few] {
                (widgets::linked(&signed(added.total), &widgets::source(data, cell)))
            }
            (widgets::shares(&added.accounts))
        },
        (State::Unavailable(reason), _) => {
            html! { span.missing title=(format!("n/a: {reason}")) { "n/a" } }
        }
        _ => html! { span.missing { "–" } },
    }
}

fn text(report: &Report) -> Option<String> {
    let data = &report.data;
    if rows(data).is_empty() {
        return None;
    }
    let mut text = finding(data).map(|finding| format!("{finding}\n")).unwrap_or_default();
    for size in 0..data.sizes().len() {
        let rows: Vec<Vec<String>> = rows(data)
            .into_iter()
            .map(|row| {
                let cells = security(data).into_iter().map(|column| {
                    let key = Key { row, column, size };
                    match (data.state(key), data.added(key)) {
                        (_, Some(added)) if added.is_distinct => signed(added.total),
                        (_, Some(added)) => format!("({})", signed(added.total)),
                        (State::Unavailable(_), _) => "n/a".to_owned(),
                        _ => "–".to_owned(),
                    }
                });
                std::iter::once(data.rows()[row].title.clone()).chain(cells).collect()
            })
            .collect();
        text += &format!(
            "\n**{}**, added cycles per packet\n\n{}",
            data.size_name(size),
            widgets::markdown_table(&headings(data), &rows)
        );
    }
    text += "\nIn parentheses: the intervals of both cells overlap (or there is one round only), so \
             the difference may be chance.\n";
    Some(text)
}
