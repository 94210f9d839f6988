//! Parts of the page that several sections use.

use std::fmt::Display;

use maud::{Markup, html};

use super::charts::Source;
use super::data::{Account, Cell, Data};
use super::format;

/// Returns panels of which one is visible, with a button for each. Print shows all.
pub(super) fn tabs(name: &str, panels: &[(String, Markup)]) -> Markup {
    html! {
        div.tabs role="group" aria-label="Frame length" {
            @for (index, (label, _)) in panels.iter().enumerate() {
                @let id = format!("{name}-{index}");
                input type="radio" name=(name) id=(id) checked[index == 0];
                label for=(id) { (label) }
            }
            div.panels {
                @for (label, content) in panels {
                    div.tab { h3.print-only { (label) } (content) }
                }
            }
        }
    }
}

/// Returns the style that shows the panel of the selected tab, for this many tabs.
pub(super) fn tab_style(tabs: usize) -> String {
    let selectors: Vec<String> = (1..=tabs)
        .map(|tab| {
            format!(".tabs > input:nth-of-type({tab}):checked ~ .panels > .tab:nth-child({tab})")
        })
        .collect();
    format!("{} {{ display: block; }}", selectors.join(",\n"))
}

/// Returns a table in a box that scrolls sideways on narrow screens. The first column is a heading.
pub(super) fn table(headings: &[String], rows: &[(Markup, Vec<Markup>)]) -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr { @for heading in headings { th scope="col" { (heading) } } } }
                tbody {
                    @for (heading, cells) in rows {
                        tr { th scope="row" { (heading) } @for cell in cells { td { (cell) } } }
                    }
                }
            }
        }
    }
}

/// Returns the rows of a table of text: the first cell is the heading.
pub(super) fn cells(rows: &[Vec<String>]) -> Vec<(Markup, Vec<Markup>)> {
    let cell = |text: &String| html! { (text) };
    rows.iter()
        .map(|row| {
            (row.first().map(cell).unwrap_or_default(), row.iter().skip(1).map(cell).collect())
        })
        .collect()
}

/// Returns a number that leads to its raw values.
pub(super) fn linked(text: &str, source: &Source) -> Markup {
    html! { a href=(format!("#{}", source.anchor)) title=(source.title) { (text) } }
}

/// Returns where the numbers of a cell come from.
pub(super) fn source(data: &Data, cell: &Cell) -> Source {
    Source { title: data.describe(cell), anchor: data.anchor(cell.key) }
}

/// Returns a bar that shows the share of each account in a cost.
pub(super) fn shares(accounts: &[f64; 3]) -> Markup {
    let total: f64 = accounts.iter().map(|cycles| cycles.max(0.0)).sum();
    html! {
        @if total > 0.0 {
            span.shares {
                @for (account, cycles) in Account::ALL.into_iter().zip(accounts) {
                    @let width = format!("width:{:.1}%", cycles.max(0.0) / total * 100.0);
                    i class=(account.class()) style=(width) {}
                }
            }
        }
    }
}

/// Returns the legend of the accounts.
pub(super) fn account_legend() -> Markup {
    html! {
        ul.legend {
            @for account in Account::ALL {
                li { i.swatch.(account.class()) {} (account.name()) }
            }
        }
    }
}

/// Returns text with the parts between `**` emphasized.
pub(super) fn emphasized(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split("**").enumerate() {
            @if index % 2 == 1 { strong { (part) } } @else { (part) }
        }
    }
}

/// Returns a table in Markdown.
pub(super) fn markdown_table<C: Display>(headings: &[String], rows: &[Vec<C>]) -> String {
    let line = |cells: &mut dyn Iterator<Item = String>| {
        format!(
            "| {} |\n",
            cells.map(|cell| format::markdown(&cell)).collect::<Vec<_>>().join(" | ")
        )
    };
    let mut text = line(&mut headings.iter().cloned());
    text += &format!("|{}\n", "---|".repeat(headings.len()));
    for row in rows {
        text += &line(&mut row.iter().map(ToString::to_string));
    }
    text
}
