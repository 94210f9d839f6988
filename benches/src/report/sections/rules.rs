//! Cost over the number of filter rules.

use maud::{Markup, html};

use super::super::charts::lines::{self, Axis, Dot, Series};
use super::super::charts::{legend, panel, positive_range};
use super::super::columns::{self, Placement};
use super::super::context::{Report, Section};
use super::super::data::Data;
use super::super::format::{count, integer, join, short};
use super::super::widgets;

pub(super) const SECTION: Section = Section {
    id: "rules",
    title: "Cost over the number of filter rules",
    html: content,
    markdown: text,
};

/// Values that differ by more than this factor are drawn over a logarithmic axis.
const LOG_AXIS_FROM: f64 = 8.0;

/// Styles of the series: those of the columns in other charts.
const USER: usize = 1;
const KERNEL: usize = 2;
const NONE: usize = 0;

/// Returns number of rules, column and cycles of the filters in a placement, by number of rules.
fn points(data: &Data, row: usize, placement: Placement, size: usize) -> Vec<(u32, usize, f64)> {
    let mut points: Vec<_> = data
        .columns()
        .iter()
        .enumerate()
        .filter(|(_, column)| columns::placement(column) == Some(placement))
        .filter_map(|(index, column)| Some((column.rules?, index, data.cycles(row, index, size)?)))
        .collect();
    points.sort_by_key(|point| point.0);
    points
}

/// Returns the rows that have at least two numbers of rules in a placement.
fn rows(data: &Data, size: usize) -> Vec<usize> {
    let has_points = |row: usize| {
        Placement::ALL.iter().any(|&placement| points(data, row, placement, size).len() > 1)
    };
    data.rows_by_cost(size).into_iter().filter(|&row| has_points(row)).collect()
}

fn content(report: &Report) -> Option<Markup> {
    let data = &report.data;
    let size = data.smallest_size();
    let rows = rows(data, size);
    if rows.is_empty() {
        return None;
    }
    let styles =
        [(USER, "filter in user space"), (KERNEL, "filter in the kernel"), (NONE, "no filter")]
            .map(|(style, name)| (style, name.to_owned()));
    Some(html! {
        @if let Some(finding) = finding(data, size) { p.finding { (finding) } }
        (legend(&styles))
        div.panels-grid {
            @for row in rows {
                @let title = &data.rows()[row].title;
                (panel(title, &chart(data, row, size, title)))
            }
        }
        p.note {
            "Cycles per packet at " (data.size_name(size)) ", of packets that no rule drops. The "
            "number of rules is logarithmic. Each panel has a separate axis: from zero, or "
            "logarithmic if the cycles differ by more than a factor of "
            (LOG_AXIS_FROM) "."
        }
    })
}

/// Compares the fewest with the most rules, on the cheapest path that has a filter of the most
/// rules, for each placement.
fn finding(data: &Data, size: usize) -> Option<String> {
    let (most, _) = columns::largest_filter(data.columns())?;
    let sentences: Vec<String> = rows(data, size)
        .into_iter()
        .flat_map(|row| Placement::ALL.map(|placement| (row, placement)))
        .filter_map(|(row, placement)| {
            let points = points(data, row, placement, size);
            let (first, last) = (points.first()?, points.last()?);
            (first.0 < last.0 && last.0 == most).then_some((row, placement, *first, *last))
        })
        .fold(Vec::new(), |mut best: Vec<(usize, Placement, _, (u32, usize, f64))>, next| {
            // The cheapest path of each placement.
            match best.iter_mut().find(|known| known.1 == next.1) {
                Some(known) if known.3.2 > next.3.2 => *known = next,
                Some(_) => {}
                None => best.push(next),
            }
            best
        })
        .into_iter()
        .map(|(row, placement, first, last)| {
            format!(
                "in {} ({}), the cycles with {} are {} times those with {}: {} instead of {}",
                placement.name(),
                data.rows()[row].title,
                count(last.0 as usize, "rule"),
                short(last.2 / first.2),
                count(first.0 as usize, "rule"),
                integer(last.2),
                integer(first.2)
            )
        })
        .collect();
    (!sentences.is_empty())
        .then(|| format!("On the cheapest path for each placement: {}.", join(&sentences)))
}

fn chart(data: &Data, row: usize, size: usize, title: &str) -> Markup {
    let without = columns::none(data.columns()).and_then(|none| data.cycles(row, none, size));
    let all: Vec<_> =
        Placement::ALL.into_iter().map(|placement| points(data, row, placement, size)).collect();
    let counts = || all.iter().flatten().map(|point| f64::from(point.0));
    let (fewest, most) = positive_range(counts());
    let mut ticks: Vec<(f64, String)> = counts().map(|rules| (rules, integer(rules))).collect();
    ticks.sort_by(|a, b| a.0.total_cmp(&b.0));
    ticks.dedup_by(|a, b| a.0 == b.0);
    let x = Axis { label: "rules", low: fewest, high: most, is_log: true, ticks };
    let mut series: Vec<Series> = all
        .iter()
        .zip([USER, KERNEL])
        .map(|(points, style)| Series {
            style,
            line: points.iter().map(|point| (f64::from(point.0), point.2)).collect(),
            dots: points
                .iter()
                .filter_map(|&(rules, column, cycles)| {
                    let source = widgets::source(data, data.cell(row, column, size)?);
                    Some(Dot { x: f64::from(rules), y: cycles, is_hollow: false, source })
                })
                .collect(),
        })
        .collect();
    if let Some(cycles) = without {
        series.push(Series {
            style: NONE,
            line: vec![(fewest, cycles), (most, cycles)],
            dots: Vec::new(),
        });
    }
    let values = || all.iter().flatten().map(|point| point.2).chain(without);
    let (low, high) = positive_range(values());
    let is_log = high > low * LOG_AXIS_FROM;
    let y = Axis { label: "cycles", low, high: high * 1.08, is_log, ticks: Vec::new() };
    lines::draw(title, &series, &x, &y)
}

fn text(report: &Report) -> Option<String> {
    let data = &report.data;
    Some(format!("{}\n", finding(data, data.smallest_size())?))
}
