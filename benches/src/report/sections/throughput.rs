//! Throughput against line rates.

use maud::{Markup, html};
use xdpfwd_lab::WIRE_OVERHEAD;

use super::super::charts::dots::{self, Track};
use super::super::charts::{legend, panel, positive_range};
use super::super::columns;
use super::super::context::{Report, Section};
use super::super::data::Data;
use super::super::format::{mpps, percent};
use super::super::line_rate::{LINE_RATES, packets_per_second};
use super::super::setup;
use super::super::widgets;

pub(super) const SECTION: Section = Section {
    id: "throughput",
    title: "Throughput against line rates",
    html: content,
    markdown: text,
};

fn content(report: &Report) -> Option<Markup> {
    let data = &report.data;
    let columns = columns::selected(data.columns());
    Some(html! {
        p.finding { (finding(data)?) }
        (legend(&columns::legend(data.columns(), &columns)))
        div.panels-grid {
            @for size in 0..data.sizes().len() {
                @let title = data.size_name(size);
                (panel(&title, &chart(data, size, &columns, &title)))
            }
        }
        p.note {
            "Millions of packets per second that arrive at the sink, over a logarithmic axis. "
            "Dashed lines: line rates with frames of this length (" (WIRE_OVERHEAD) " bytes more "
            "on the wire than in memory); " (setup::direction(data)) ". "
            @if !setup::is_nic(data) {
                "The lab has virtual interfaces: no NIC limits the rate, and none takes work off "
                "the processor. "
            }
            (setup::rates_and_cycles(data))
        }
    })
}

/// States which share of 10 GbE the fastest path reaches at the smallest and the largest size.
fn finding(data: &Data) -> Option<String> {
    let none = columns::none(data.columns())?;
    let (name, bits) = LINE_RATES[0];
    let part = |size: usize| {
        let cell = data
            .measured()
            .filter(|cell| cell.key.column == none && cell.key.size == size)
            .max_by(|a, b| a.mpps.median.total_cmp(&b.mpps.median))?;
        let share = cell.mpps.median * 1e6 / packets_per_second(bits, data.bytes(size));
        Some(format!(
            "{} of {name} at {} ({}, {} Mpps)",
            percent(share),
            data.size_name(size),
            data.rows()[cell.key.row].title,
            mpps(cell.mpps.median)
        ))
    };
    let (small, large) = (data.smallest_size(), data.largest_size());
    let mut text = format!("Without security, the fastest path reaches {}", part(small)?);
    if small != large
        && let Some(part) = part(large)
    {
        text += &format!(" and {part}");
    }
    Some(text + ".")
}

fn chart(data: &Data, size: usize, columns: &[usize], title: &str) -> Markup {
    let tracks: Vec<Track> = data
        .rows_by_cost(data.smallest_size())
        .into_iter()
        .map(|row| Track {
            label: data.rows()[row].title.clone(),
            dots: columns
                .iter()
                .filter_map(|&column| {
                    let cell = data.cell(row, column, size)?;
                    Some((
                        columns::style(&data.columns()[column]),
                        cell.mpps.median,
                        widgets::source(data, cell),
                    ))
                })
                .collect(),
        })
        .filter(|track| !track.dots.is_empty())
        .collect();
    let rates = LINE_RATES
        .map(|(name, bits)| (packets_per_second(bits, data.bytes(size)) / 1e6, short_name(name)));
    let values = || tracks.iter().flat_map(|track| track.dots.iter().map(|dot| dot.1));
    let range = positive_range(values().chain(rates.map(|(rate, _)| rate)));
    dots::draw(title, &tracks, &rates, range, "Mpps")
}

/// Returns the rate without the name of the technology, which the chart shows once.
fn short_name(name: &str) -> &str {
    name.strip_suffix(" GbE").unwrap_or(name)
}

fn text(report: &Report) -> Option<String> {
    let data = &report.data;
    let headings: Vec<String> = std::iter::once("frames".to_owned())
        .chain(LINE_RATES.map(|(name, _)| name.to_owned()))
        .collect();
    let rows: Vec<Vec<String>> = (0..data.sizes().len())
        .map(|size| {
            let rates = LINE_RATES.map(|(_, bits)| {
                format!("{:.2}", packets_per_second(bits, data.bytes(size)) / 1e6)
            });
            std::iter::once(data.size_name(size)).chain(rates).collect()
        })
        .collect();
    Some(format!(
        "{}\n\nLine rates in Mpps ({}):\n\n{}",
        finding(data)?,
        setup::direction(data),
        widgets::markdown_table(&headings, &rows)
    ))
}
