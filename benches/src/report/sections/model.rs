//! The model of cycles, and its errors on cells that it was not fitted to.

use maud::{Markup, html};

use super::super::charts::lines::{self, Axis, Dot, Series};
use super::super::charts::{Source, panel, positive_range};
use super::super::columns;
use super::super::context::{Report, Section};
use super::super::data::Data;
use super::super::format::{count, integer, join, percent, short};
use super::super::model::{Check, Line, Model};
use super::super::widgets;

pub(super) const SECTION: Section =
    Section { id: "model", title: "The model and its error", html: content, markdown: text };

/// The error that the model should stay below.
const GOAL: f64 = 0.15;

const CHART: &str = "Held-out cells: predicted over measured";

const EQUATION: &str = "cycles(path, security, bytes) = path cost + security cost, each = constant \
                        + slope × bytes";

fn content(report: &Report) -> Option<Markup> {
    let (data, model) = (&report.data, report.model.as_ref()?);
    Some(html! {
        p.finding { (finding(data, model)) }
        div.columns {
            div {
                p.equation { code { (EQUATION) } }
                ul { @for rule in rules(data, model) { li { (rule) } } }
            }
            @if !model.checks.is_empty() {
                (panel(CHART, &chart(data, model)))
            }
        }
        details {
            summary { "Fitted costs" }
            (widgets::table(&headings(), &coefficients(data, model)))
        }
        details {
            summary { "All " (count(model.checks.len(), "held-out cell")) }
            (widgets::table(&check_headings(), &checks(data, model)))
        }
    })
}

fn finding(data: &Data, model: &Model) -> String {
    let errors = model.errors();
    let Some(largest) = model.checks.last() else {
        return "These results have too few cells to hold any out: the error of the model is \
                unknown."
            .to_owned();
    };
    let parts: Vec<String> = errors
        .iter()
        .map(|error| {
            format!(
                "{} for {} ({}, largest {})",
                percent(error.median),
                error.kind.name(),
                count(error.cells, "cell"),
                percent(error.largest)
            )
        })
        .collect();
    let is_within = errors.iter().all(|error| error.median < GOAL);
    let mut text = format!(
        "Median error on held-out cells: {}; {} within the goal of {}. The largest error is that of \
         {}.",
        join(&parts),
        if is_within { "each is" } else { "not each is" },
        percent(GOAL),
        name(data, largest),
    );
    if model.unpredicted_cells > 0 {
        text += &format!(
            " For {} more, the model makes no prediction.",
            count(model.unpredicted_cells, "held-out cell")
        );
    }
    if let Some(without) = model.median_error_without_stages {
        let with = crate::stats::Median::of(
            model
                .checks
                .iter()
                .filter(|check| Some(check.key.column) != columns::none(data.columns()))
                .map(Check::error),
        );
        if let Some(with) = with {
            text += &format!(
                " Of the held-out cells with security, the median error is {}; a model without \
                 any cost of security would have an error of {}.",
                percent(with.median),
                percent(without)
            );
        }
    }
    text
}

fn name(data: &Data, check: &Check) -> String {
    format!(
        "{}, {}, {}",
        data.rows()[check.key.row].title,
        data.columns()[check.key.column].title,
        data.size_name(check.key.size)
    )
}

/// Returns how the model was fitted, in sentences.
fn rules(data: &Data, model: &Model) -> Vec<String> {
    let mut rules = vec![
        "All paths through user space share the cost of security: the same code of xdpfwd runs in \
         each. A path in the kernel has a separate cost for each column."
            .to_owned(),
        format!(
            "Fitted to {} by iteratively reweighted least squares of the relative errors (Huber).",
            count(model.fitted_cells, "cell")
        ),
    ];
    let mut held = Vec::new();
    if let Some(size) = model.held_out_size {
        held.push(format!("every cell of {}", data.size_name(size)));
    }
    let combinations = model.held_out_combinations.len();
    if combinations > 0 {
        held.push(format!(
            "{} of a path and a kind of security, at all sizes (of each column that paths through \
             user space share, the paths whose position plus that of the column is a multiple of \
             three)",
            count(combinations, "combination")
        ));
    }
    if !held.is_empty() {
        rules.push(format!("Held out by a fixed rule: {}.", held.join("; ")));
    }
    rules.push(
        "The model does not extrapolate to shorter or longer frames. Its predictions are those of \
         the fit that these errors belong to: it is not fitted again to all cells."
            .to_owned(),
    );
    rules
}

fn chart(data: &Data, model: &Model) -> Markup {
    let values = || model.checks.iter().flat_map(|check| [check.measured, check.predicted]);
    let (low, high) = positive_range(values());
    let dots = model
        .checks
        .iter()
        .map(|check| Dot {
            x: check.measured,
            y: check.predicted,
            is_hollow: false,
            source: Source {
                title: format!(
                    "{}\nmeasured {}, predicted {}: error {}",
                    name(data, check),
                    integer(check.measured),
                    integer(check.predicted),
                    percent(check.error())
                ),
                anchor: data.anchor(check.key),
            },
        })
        .collect();
    let axis = |label| Axis { label, low, high, is_log: true, ticks: Vec::new() };
    let equal = Series { style: 5, dots: Vec::new(), line: vec![(low, low), (high, high)] };
    let series = [equal, Series { style: 0, dots, line: Vec::new() }];
    lines::draw(CHART, &series, &axis("measured cycles"), &axis("predicted cycles"))
}

fn headings() -> Vec<String> {
    ["cost", "cycles", "cycles per byte"].map(str::to_owned).to_vec()
}

fn coefficients(data: &Data, model: &Model) -> Vec<(Markup, Vec<Markup>)> {
    lines_of(data, model)
        .into_iter()
        .map(|(name, line)| {
            let values = [integer(line.base), format!("{:.3}", line.per_byte)];
            (html! { (name) }, values.map(|value| html! { (value) }).to_vec())
        })
        .collect()
}

/// Returns the fitted lines, with names.
fn lines_of<'a>(data: &Data, model: &'a Model) -> Vec<(String, &'a Line)> {
    let paths = (0..data.rows().len())
        .filter_map(|row| Some((format!("path: {}", data.rows()[row].title), model.path(row)?)));
    let stages = (0..data.columns().len()).filter_map(|column| {
        let name = format!("in user space: {}", data.columns()[column].title);
        Some((name, model.user_stage(column)?))
    });
    paths.chain(stages).collect()
}

fn check_headings() -> Vec<String> {
    ["cell", "held out for", "measured", "predicted", "error"].map(str::to_owned).to_vec()
}

fn checks(data: &Data, model: &Model) -> Vec<(Markup, Vec<Markup>)> {
    model
        .checks
        .iter()
        .rev()
        .map(|check| {
            let cells = vec![
                html! { (check.kind.name()) },
                html! { a href=(format!("#{}", data.anchor(check.key))) { (integer(check.measured)) } },
                html! { (integer(check.predicted)) },
                html! { (percent(check.error())) },
            ];
            (html! { (name(data, check)) }, cells)
        })
        .collect()
}

fn text(report: &Report) -> Option<String> {
    let (data, model) = (&report.data, report.model.as_ref()?);
    let rows: Vec<Vec<String>> = lines_of(data, model)
        .into_iter()
        .map(|(name, line)| vec![name, integer(line.base), short(line.per_byte)])
        .collect();
    let rules: Vec<String> = rules(data, model).iter().map(|rule| format!("- {rule}")).collect();
    Some(format!(
        "{}\n\n`{EQUATION}`\n\n{}\n\n{}",
        finding(data, model),
        rules.join("\n"),
        widgets::markdown_table(&headings(), &rows)
    ))
}
