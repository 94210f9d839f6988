//! Figures that others published.

use maud::{Markup, html};
use xdpfwd_bench::results::Published;

use super::super::context::{Report, Section};
use super::super::data::Data;
use super::super::format::{mpps, short};
use super::super::widgets;

pub(super) const SECTION: Section = Section {
    id: "published",
    title: "Published by others, not measured here",
    html: content,
    markdown: text,
};

const WARNING: &str = "These figures come from other machines, NICs and methods. Compare them with \
                       each other at most, not with the figures above.";

fn headings() -> Vec<String> {
    ["path", "security", "frames", "Mpps", "Gbit/s", "machine", "cores", "source"]
        .map(str::to_owned)
        .to_vec()
}

fn rows(data: &Data) -> Vec<Vec<String>> {
    let row = |figure: &Published| {
        let number = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
        vec![
            figure.row.clone(),
            data.column_title(&figure.column).to_owned(),
            figure.size.clone(),
            number(figure.mpps.map(mpps)),
            number(figure.gbps.map(short)),
            figure.machine.clone(),
            number(figure.cores.map(|cores| cores.to_string())),
            figure.source.clone(),
        ]
    };
    data.results.published.iter().map(row).collect()
}

fn content(report: &Report) -> Option<Markup> {
    let rows: Vec<(Markup, Vec<Markup>)> = rows(&report.data)
        .into_iter()
        .map(|row| {
            let heading = html! { (row[0]) span.tag { "published" } };
            (heading, row[1..].iter().map(|cell| html! { (cell) }).collect())
        })
        .collect();
    (!rows.is_empty()).then(|| {
        html! {
            p.finding { (WARNING) }
            div.published { (widgets::table(&headings(), &rows)) }
        }
    })
}

fn text(report: &Report) -> Option<String> {
    let rows = rows(&report.data);
    (!rows.is_empty())
        .then(|| format!("{WARNING}\n\n{}", widgets::markdown_table(&headings(), &rows)))
}
