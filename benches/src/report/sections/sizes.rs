//! Cost over packet size.

use maud::{Markup, html};

use super::super::charts::lines::{self, Axis, Dot, Series};
use super::super::charts::{legend, panel};
use super::super::columns::{self, Placement};
use super::super::context::{Report, Section};
use super::super::data::{Data, Key};
use super::super::format::short;
use super::super::widgets;

pub(super) const SECTION: Section =
    Section { id: "sizes", title: "Cost over packet size", html: content, markdown: |_| None };

fn content(report: &Report) -> Option<Markup> {
    let data = &report.data;
    let columns = shown(data);
    let none = *columns.first()?;
    let mut rows: Vec<usize> = data
        .rows_by_cost(data.smallest_size())
        .into_iter()
        .filter(|&row| points(data, row, none).len() > 1)
        .collect();
    // Paths with security first: on the others, one line is all there is.
    rows.sort_by_key(|&row| !columns[1..].iter().any(|&c| points(data, row, c).len() > 1));
    if rows.is_empty() {
        return None;
    }
    Some(html! {
        p.finding { (finding(data, none, &rows)) }
        (legend(&columns::legend(data.columns(), &columns)))
        div.panels-grid {
            @for row in rows {
                @let title = &data.rows()[row].title;
                (panel(title, &chart(report, row, &columns, title)))
            }
        }
        p.note {
            "Dots are medians of the rounds, lines are the "
            a href="#model" { "model" }
    " (none where it makes no prediction). Hollow dots are cells that the model was not fitted to. \
     IMIX is at its mean length. "
            "Each panel has a separate axis, which starts at zero."
        }
    })
}

/// Returns the columns of the chart: no processing, the largest filter in user space, the first and
/// the last AEAD, and the control.
fn shown(data: &Data) -> Vec<usize> {
    let columns = data.columns();
    let mut shown: Vec<usize> = columns::none(columns).into_iter().collect();
    let filters = columns::largest_filter(columns).map(|(_, filters)| filters).unwrap_or_default();
    shown.extend(
        filters
            .into_iter()
            .find(|&column| columns::placement(&columns[column]) == Some(Placement::User)),
    );
    shown.extend(columns::aes(columns));
    shown.extend(columns.iter().rposition(|column| column.group == "aead"));
    shown.extend(columns.iter().position(|column| column.group == "control"));
    shown.dedup();
    shown
}

/// Returns the length and cycles of each size of a cell, from the shortest.
fn points(data: &Data, row: usize, column: usize) -> Vec<(usize, f64)> {
    let mut points: Vec<(usize, f64)> = (0..data.sizes().len())
        .filter_map(|size| Some((size, data.cycles(row, column, size)?)))
        .collect();
    points.sort_by(|a, b| data.bytes(a.0).total_cmp(&data.bytes(b.0)));
    points
}

fn finding(data: &Data, none: usize, rows: &[usize]) -> String {
    let slope = |row: usize, column: usize| {
        let points = points(data, row, column);
        let (first, last) = (points.first()?, points.last()?);
        let bytes = data.bytes(last.0) - data.bytes(first.0);
        (bytes > 0.0).then(|| (last.1 - first.1) / bytes)
    };
    let aes = columns::aes(data.columns());
    let row = rows.iter().copied().find(|&row| aes.is_some_and(|aes| slope(row, aes).is_some()));
    let row = row.unwrap_or(rows[0]);
    let mut text = format!(
        "Each further byte costs {} cycles on {} without security",
        short(slope(row, none).unwrap_or_default()),
        data.rows()[row].title
    );
    if let Some((aes, slope)) = aes.and_then(|aes| Some((aes, slope(row, aes)?))) {
        text += &format!(", and {} with {}", short(slope), data.columns()[aes].title);
    }
    text + "."
}

fn chart(report: &Report, row: usize, columns: &[usize], title: &str) -> Markup {
    let data = &report.data;
    let mut highest: f64 = 0.0;
    let mut longest: f64 = 0.0;
    let series: Vec<Series> = columns
        .iter()
        .map(|&column| {
            let points = points(data, row, column);
            longest = points.iter().map(|point| data.bytes(point.0)).fold(longest, f64::max);
            highest = points.iter().map(|point| point.1).fold(highest, f64::max);
            let predict =
                |size: usize| report.model.as_ref()?.predict(row, column, data.bytes(size));
            let ends = [points.first(), points.last()].map(|end| {
                let size = end?.0;
                Some((data.bytes(size), predict(size)?))
            });
            Series {
                style: columns::style(&data.columns()[column]),
                line: match ends {
                    [Some(first), Some(last)] if first.0 < last.0 => vec![first, last],
                    _ => Vec::new(),
                },
                dots: points.iter().filter_map(|point| dot(report, row, column, point)).collect(),
            }
        })
        .collect();
    let x =
        Axis { label: "bytes", low: 0.0, high: longest * 1.02, is_log: false, ticks: Vec::new() };
    let y =
        Axis { label: "cycles", low: 0.0, high: highest * 1.08, is_log: false, ticks: Vec::new() };
    lines::draw(title, &series, &x, &y)
}

fn dot(report: &Report, row: usize, column: usize, &(size, y): &(usize, f64)) -> Option<Dot> {
    let data = &report.data;
    let key = Key { row, column, size };
    let is_hollow = report
        .model
        .as_ref()
        .is_some_and(|model| model.checks.iter().any(|check| check.key == key));
    let source = widgets::source(data, data.cell(row, column, size)?);
    Some(Dot { x: data.bytes(size), y, is_hollow, source })
}
