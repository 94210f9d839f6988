//! What each security column adds to each path.

use maud::{Markup, html};

use super::super::columns;
use super::super::context::{Report, Section};
use super::super::data::{Data, Key, State};
use super::super::format::{integer, signed};
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
    let finding = finding(data)?;
    let panels: Vec<(String, Markup)> =
        (0..data.sizes().len()).map(|size| (data.size_name(size), table(data, size))).collect();
    Some(html! {
        p.finding { (finding) }
        (widgets::account_legend())
        (widgets::tabs("added", &panels))
        p.note {
            "Cycles per packet in addition to the same path without security: the difference of "
            "the medians. The bar shows which accounts pay. In "
            span.unclear { "grey" }
            ": the intervals of both cells overlap (or there is one round only), so the difference "
            "may be chance."
        }
    })
}

/// States which column adds the least and which the most, over the paths in user space.
fn finding(data: &Data) -> Option<String> {
    let size = data.smallest_size();
    let mut costs: Vec<(usize, Median)> = security(data)
        .into_iter()
        .filter_map(|column| {
            let added = rows(data).into_iter().filter(|&row| data.rows()[row].place == "user");
            let added = added.filter_map(|row| Some(data.added(Key { row, column, size })?.total));
            Some((column, Median::of(added)?))
        })
        .collect();
    costs.sort_by(|a, b| a.1.median.total_cmp(&b.1.median));
    let name = |column: usize| &data.columns()[column].title;
    match costs.as_slice() {
        [] => None,
        [(column, added)] => Some(format!(
            "At {}, {} adds {} cycles per packet (median over the paths in user space).",
            data.size_name(size),
            name(*column),
            integer(added.median)
        )),
        [least, .., most] => Some(format!(
            "At {}, {} adds the least ({} cycles per packet) and {} the most ({}): medians over \
             the paths in user space.",
            data.size_name(size),
            name(least.0),
            integer(least.1.median),
            name(most.0),
            integer(most.1.median)
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
            span.unclear[!added.is_distinct] {
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
    let mut text = format!("{}\n", finding(data)?);
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
