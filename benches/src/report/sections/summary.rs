//! Summary: the questions with their answers as large figures, and sentences.

use maud::{Markup, html};

use super::super::context::Report;
use super::super::widgets;

pub(crate) fn html(report: &Report) -> Markup {
    let data = &report.data;
    html! {
        div.answers {
            @for (index, answer) in report.summary.answers.iter().enumerate() {
                div.answer {
                    h2 { (index + 1) ". " (answer.question) }
                    p.figure {
                        @match answer.key.and_then(|key| data.cell(key.row, key.column, key.size)) {
                            Some(cell) =>
                                (widgets::linked(&answer.figure, &widgets::source(data, cell))),
                            None => (answer.figure),
                        }
                    }
                    @if !answer.unit.is_empty() { p.unit { (answer.unit) } }
                    @if let Some(accounts) = &answer.accounts {
                        (widgets::shares(accounts))
                        (widgets::account_legend())
                    }
                    p.detail { (answer.detail) }
                }
            }
        }
        div.sentences {
            @for sentence in &report.summary.sentences { p { (widgets::emphasized(sentence)) } }
        }
    }
}

pub(crate) fn markdown(report: &Report) -> String {
    let rows: Vec<Vec<String>> = report
        .summary
        .answers
        .iter()
        .map(|answer| {
            let figure = format!("**{}** {}", answer.figure, answer.unit);
            vec![answer.question.clone(), figure.trim().to_owned(), answer.detail.clone()]
        })
        .collect();
    let headings = ["question", "answer", "figures"].map(str::to_owned);
    let sentences: Vec<String> =
        report.summary.sentences.iter().map(|sentence| format!("- {sentence}")).collect();
    format!("{}\n{}\n", widgets::markdown_table(&headings, &rows), sentences.join("\n"))
}
