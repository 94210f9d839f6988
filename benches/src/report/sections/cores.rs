//! Cores that each line rate needs, by the model.

use maud::{Markup, html};

use super::super::charts::dots::{self, Track};
use super::super::charts::{Source, legend, panel, positive_range};
use super::super::columns;
use super::super::context::{Report, Section};
use super::super::data::Key;
use super::super::data::{Data, State};
use super::super::format::{integer, percent, short};
use super::super::line_rate::{LINE_RATES, cores, packets_per_second};
use super::super::model::Model;
use super::super::setup;
use super::super::widgets;

pub(super) const SECTION: Section =
    Section { id: "cores", title: "Cores for a line rate", html: content, markdown: text };

fn content(report: &Report) -> Option<Markup> {
    let (data, model) = (&report.data, report.model.as_ref()?);
    let (rate, _) = LINE_RATES[0];
    let shown: Vec<usize> =
        columns::none(data.columns()).into_iter().chain(columns::aes(data.columns())).collect();
    let rows = rows(data, model);
    if rows.is_empty() {
        return None;
    }
    Some(html! {
        p.finding { (finding(data, model)) }
        (legend(&columns::legend(data.columns(), &shown)))
        div.panels-grid {
            @for size in 0..data.sizes().len() {
                @let title = format!("{rate}, {}", data.size_name(size));
                (panel(&title, &chart(report, model, size, &shown, &title)))
            }
        }
        @for (index, row) in rows.into_iter().enumerate() {
            details open[index == 0] {
                summary { "All line rates: " (data.rows()[row].title) }
                (table(data, model, row))
            }
        }
        p.note {
            "Cores = packets per second × cycles per packet ÷ clock of the time-stamp counter ("
            (format!("{:.2}", data.results.tsc_hz / 1e9)) " GHz), with the cycles of the "
            a href="#model" { "model" }
            "; hover for those of the measured cycles."
        }
        ul.assumptions { @for assumption in assumptions(data) { li { (assumption) } } }
    })
}

/// Returns the assumptions behind the numbers of cores.
fn assumptions(data: &Data) -> Vec<String> {
    vec![
        "Cores and queues scale perfectly: no shared caches, locks or memory bandwidth.".to_owned(),
        if setup::is_nic(data) {
            "No NIC and no PCIe bus limits the rate.".to_owned()
        } else {
            "No NIC, PCIe bus or driver limits the rate. The lab's interfaces are veth pairs, \
             whose work is counted instead of a driver's."
                .to_owned()
        },
        format!("One direction only: {}.", setup::direction(data)),
        "Softirqs of the receiving core are part of the cycles, so these are all cores of a \
         machine, not only those of the forwarding process."
            .to_owned(),
        if setup::is_nic(data) {
            format!("The cycles were measured on {}.", data.results.machine.cpu)
        } else {
            format!(
                "The cycles were measured in copy mode or in the kernel, on {}; zero-copy needs \
                 fewer.",
                data.results.machine.cpu
            )
        },
    ]
}

/// Returns the rows for which the model predicts something, those with AES first, each group from
/// the cheapest.
fn rows(data: &Data, model: &Model) -> Vec<usize> {
    let size = data.smallest_size();
    let aes = columns::aes(data.columns());
    let mut rows: Vec<usize> = data
        .rows_by_cost(size)
        .into_iter()
        .filter(|&row| {
            columns_of(data, row).iter().any(|&column| {
                (0..data.sizes().len()).any(|size| needed(data, model, row, column, size).is_some())
            })
        })
        .collect();
    rows.sort_by_key(|&row| aes.and_then(|aes| needed(data, model, row, aes, size)).is_none());
    rows
}

/// Returns the columns that exist on a path.
fn columns_of(data: &Data, row: usize) -> Vec<usize> {
    (0..data.columns().len())
        .filter(|&column| {
            (0..data.sizes().len())
                .any(|size| matches!(data.state(Key { row, column, size }), State::Measured(_)))
        })
        .collect()
}

/// Returns the cores for the lowest line rate by the model.
fn needed(data: &Data, model: &Model, row: usize, column: usize, size: usize) -> Option<f64> {
    at_rate(data, model, (row, column, size), LINE_RATES[0].1)
}

fn at_rate(
    data: &Data,
    model: &Model,
    (row, column, size): (usize, usize, usize),
    bits: f64,
) -> Option<f64> {
    let bytes = data.bytes(size);
    let cycles = model.predict(row, column, bytes)?;
    Some(cores(packets_per_second(bits, bytes), cycles, data.results.tsc_hz))
}

fn finding(data: &Data, model: &Model) -> String {
    let size = data.smallest_size();
    let (rate, _) = LINE_RATES[0];
    let none = columns::none(data.columns());
    let aes = columns::aes(data.columns());
    let Some(&row) = rows(data, model).first() else { return String::new() };
    let value =
        |column: Option<usize>| column.and_then(|column| needed(data, model, row, column, size));
    let title = &data.rows()[row].title;
    let size_name = data.size_name(size);
    match (value(none), value(aes)) {
        (Some(without), Some(with)) => format!(
            "By the model, {rate} at {size_name} needs {} cores on {title} without security and \
             {} with AES ({} more).",
            short(without),
            short(with),
            percent(with / without - 1.0)
        ),
        (Some(without), None) => format!(
            "By the model, {rate} at {size_name} needs {} cores on {title} without security.",
            short(without)
        ),
        _ => format!("The model makes no prediction for {size_name}."),
    }
}

fn source(data: &Data, model: &Model, key: Key, bits: f64) -> Source {
    let bytes = data.bytes(key.size);
    let pps = packets_per_second(bits, bytes);
    let predicted = model.predict(key.row, key.column, bytes).unwrap_or_default();
    let mut title = format!(
        "{} · {} · {}\n{:.2} Mpps × {} cycles (model) ÷ {:.2} GHz = {} cores",
        data.rows()[key.row].title,
        data.columns()[key.column].title,
        data.size_name(key.size),
        pps / 1e6,
        integer(predicted),
        data.results.tsc_hz / 1e9,
        short(cores(pps, predicted, data.results.tsc_hz)),
    );
    let measured = data.cycles(key.row, key.column, key.size);
    if let Some(measured) = measured {
        title += &format!(
            "\nwith the measured {} cycles: {} cores",
            integer(measured),
            short(cores(pps, measured, data.results.tsc_hz))
        );
    }
    let anchor = measured.map(|_| data.anchor(key)).unwrap_or_default();
    Source { title, anchor }
}

fn chart(report: &Report, model: &Model, size: usize, columns: &[usize], title: &str) -> Markup {
    let data = &report.data;
    let tracks: Vec<Track> = data
        .rows_by_cost(data.smallest_size())
        .into_iter()
        .map(|row| Track {
            label: data.rows()[row].title.clone(),
            dots: columns
                .iter()
                .filter_map(|&column| {
                    let style = columns::style(&data.columns()[column]);
                    let key = Key { row, column, size };
                    let cores = needed(data, model, row, column, size)?;
                    Some((style, cores, source(data, model, key, LINE_RATES[0].1)))
                })
                .collect(),
        })
        .filter(|track| !track.dots.is_empty())
        .collect();
    let values = || tracks.iter().flat_map(|track| track.dots.iter().map(|dot| dot.1));
    dots::draw(title, &tracks, &[], positive_range(values()), "cores")
}

fn headings(data: &Data) -> Vec<String> {
    let mut headings = vec!["security".to_owned()];
    for size in 0..data.sizes().len() {
        headings.extend(LINE_RATES.map(|(name, _)| format!("{}, {name}", data.size_name(size))));
    }
    headings
}

fn table(data: &Data, model: &Model, row: usize) -> Markup {
    let rows: Vec<(Markup, Vec<Markup>)> = columns_of(data, row)
        .into_iter()
        .map(|column| {
            let mut cells = Vec::new();
            for size in 0..data.sizes().len() {
                for (_, bits) in LINE_RATES {
                    let Some(cores) = at_rate(data, model, (row, column, size), bits) else {
                        cells.push(html! { span.missing { "–" } });
                        continue;
                    };
                    let source = source(data, model, Key { row, column, size }, bits);
                    cells.push(if source.anchor.is_empty() {
                        html! { span title=(source.title) { (short(cores)) } }
                    } else {
                        widgets::linked(&short(cores), &source)
                    });
                }
            }
            (html! { (data.columns()[column].title) }, cells)
        })
        .collect();
    html! { div.cores { (widgets::table(&headings(data), &rows)) } }
}

fn text(report: &Report) -> Option<String> {
    let (data, model) = (&report.data, report.model.as_ref()?);
    let rows = rows(data, model);
    let first = *rows.first()?;
    let mut text = format!("{}\n", finding(data, model));
    text += &format!("\nAll line rates on {}, in cores:\n\n", data.rows()[first].title);
    let table: Vec<Vec<String>> = columns_of(data, first)
        .into_iter()
        .map(|column| {
            let mut cells = vec![data.columns()[column].title.clone()];
            for size in 0..data.sizes().len() {
                cells.extend(LINE_RATES.map(|(_, bits)| {
                    at_rate(data, model, (first, column, size), bits)
                        .map_or_else(|| "–".to_owned(), short)
                }));
            }
            cells
        })
        .collect();
    text += &widgets::markdown_table(&headings(data), &table);
    text += &format!("\nCores for {}, without and with AES:\n\n", LINE_RATES[0].0);
    let headings: Vec<String> = std::iter::once("path".to_owned())
        .chain((0..data.sizes().len()).map(|size| data.size_name(size)))
        .collect();
    let table: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| {
            let value = |column: Option<usize>, size: usize| {
                column
                    .filter(|column| columns_of(data, row).contains(column))
                    .and_then(|column| needed(data, model, row, column, size))
                    .map_or_else(|| "–".to_owned(), short)
            };
            let (none, aes) = (columns::none(data.columns()), columns::aes(data.columns()));
            let cells = (0..data.sizes().len())
                .map(|size| format!("{} → {}", value(none, size), value(aes, size)));
            std::iter::once(data.rows()[row].title.clone()).chain(cells).collect()
        })
        .collect();
    text += &widgets::markdown_table(&headings, &table);
    text += "\nThese numbers assume:\n\n";
    for assumption in assumptions(data) {
        text += &format!("- {assumption}\n");
    }
    Some(text)
}
