//! The page and the Markdown summary as a whole.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::context::Report;
use super::format;
use super::sections::{self, SECTIONS};

const TITLE: &str = "What security costs on every packet path";
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// Lets the page load nothing: no browser makes a request for it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      img-src data:";

/// Returns the page.
pub(super) fn html(report: &Report) -> Markup {
    let contents: Vec<_> =
        SECTIONS.iter().filter_map(|section| Some((section, (section.html)(report)?))).collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (TITLE) " · xdpfwd" }
                // Without an icon, a browser asks the server for one.
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    div.bar {
                        p.project { "xdpfwd" }
                        button #theme type="button" { "Dark" }
                    }
                    h1 { (TITLE) }
                    p.subtitle { (subtitle(report)) }
                }
                main {
                    section #summary { (sections::summary_html(report)) }
                    nav aria-label="Sections" {
                        @for (section, _) in &contents {
                            a href=(format!("#{}", section.id)) { (section.title) }
                        }
                    }
                    @for (section, content) in &contents {
                        section id=(section.id) { h2 { (section.title) } (content) }
                    }
                }
                footer {
                    p { "Written by xdpfwd-bench report, version " (env!("CARGO_PKG_VERSION")) "." }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

/// Returns the summary in Markdown.
pub(super) fn markdown(report: &Report) -> String {
    let mut text = format!("# {TITLE}\n\n{}\n\n", subtitle(report));
    text += &sections::summary_markdown(report);
    for section in SECTIONS {
        if let Some(content) = (section.markdown)(report) {
            text += &format!("\n## {}\n\n{}\n", section.title, content.trim_end());
        }
    }
    text
}

/// Returns what was measured, where and when.
fn subtitle(report: &Report) -> String {
    let results = &report.data.results;
    let kernel: Vec<&str> = results.machine.kernel.split_whitespace().take(2).collect();
    format!(
        "{}: {} of {} s on {} ({}, {}). Cycles are those of all cores per forwarded packet, \
         without the far end of the virtual cable.{}",
        results.machine.date,
        format::count(results.rounds as usize, "round"),
        results.seconds,
        results.machine.host,
        results.machine.cpu,
        kernel.join(" "),
        if results.finished.is_none() { " The matrix is not complete." } else { "" }
    )
}
