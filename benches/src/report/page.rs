//! The page and the Markdown summary as a whole.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::context::Report;
use super::format;
use super::sections::{self, SECTIONS};
use super::{setup, widgets};

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
                style {
                    (PreEscaped(STYLE))
                    (PreEscaped(widgets::tab_style(report.data.sizes().len())))
                }
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
    escape(&text)
}

/// Escapes characters that Markdown would read as HTML, outside code blocks.
fn escape(text: &str) -> String {
    let mut is_code = false;
    let mut escaped = String::new();
    for line in text.lines() {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        if is_code || is_fence {
            escaped += line;
        } else {
            escaped += &line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        }
        escaped.push('\n');
    }
    escaped
}

/// Returns what was measured, where and when.
fn subtitle(report: &Report) -> String {
    let results = &report.data.results;
    let kernel: Vec<&str> = results.machine.kernel.split_whitespace().take(2).collect();
    format!(
        "{}: {} of {} s on {} ({}, {}). {}{}",
        results.machine.date,
        format::count(results.rounds as usize, "round"),
        results.seconds,
        results.machine.host,
        results.machine.cpu,
        kernel.join(" "),
        setup::cycles(&report.data),
        if results.finished.is_none() { " The matrix is not complete." } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_text_is_escaped_and_code_is_not() {
        let text = "a <b> & c\n```sh\nx <y >z\n```\n<d>\n";
        let expected = "a &lt;b&gt; &amp; c\n```sh\nx <y >z\n```\n&lt;d&gt;\n";
        assert_eq!(escape(text), expected);
    }
}
