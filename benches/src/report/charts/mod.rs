//! Charts as inline SVG. Each is a panel some 400 units wide, so that panels stand side by side on
//! a screen, and its text is legible on a phone.

pub(super) mod bars;
pub(super) mod dots;
pub(super) mod lines;
mod scale;

use maud::{Markup, html};

/// Width of a panel.
pub(super) const WIDTH: f64 = 400.0;

/// A text for hovering, and the address of the raw values.
#[derive(Clone, Default)]
pub(super) struct Source {
    pub(super) title: String,
    /// Identifier on the page; empty if there are no raw values.
    pub(super) anchor: String,
}

impl Source {
    /// Wraps a mark so that hovering shows the text, and clicking leads to the raw values.
    fn wrap(&self, mark: &Markup) -> Markup {
        html! {
            @if self.anchor.is_empty() {
                g { title { (self.title) } (mark) }
            } @else {
                a href=(format!("#{}", self.anchor)) { title { (self.title) } (mark) }
            }
        }
    }
}

/// Returns the smallest and the largest of the positive values: the ends of a logarithmic axis.
/// Without any, both are 1.
pub(super) fn positive_range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .filter(|value| *value > 0.0 && value.is_finite())
        .map(|value| (value, value))
        .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
        .unwrap_or((1.0, 1.0))
}

/// Returns a panel: a title above a chart.
pub(super) fn panel(title: &str, chart: &Markup) -> Markup {
    html! {
        figure.panel {
            figcaption { (title) }
            (chart)
        }
    }
}

/// Returns an entry of a legend for each series: the marker of its style, and its name.
pub(super) fn legend(series: &[(usize, String)]) -> Markup {
    html! {
        ul.legend {
            @for (style, name) in series {
                li {
                    svg.swatch viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" {
                        (marker(*style, 8.0, 8.0, false))
                    }
                    (name)
                }
            }
        }
    }
}

/// Returns the marker of a style. Styles differ in shape as well as in colour.
fn marker(style: usize, x: f64, y: f64, hollow: bool) -> Markup {
    let class = format!("mark s{}{}", style % 6, if hollow { " hollow" } else { "" });
    let path = match style % 6 {
        0 => "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
        1 => "M-4.5 -4.5h9v9h-9z",
        2 => "M0 -6.2L6.2 0L0 6.2L-6.2 0z",
        3 => "M0 -6L5.8 4.5H-5.8z",
        4 => "M0 6L5.8 -4.5H-5.8z",
        _ => "M-1.7 -5.5h3.4v3.8h3.8v3.4h-3.8v3.8h-3.4v-3.8h-3.8v-3.4h3.8z",
    };
    html! {
        path class=(class) d=(path) transform=(format!("translate({x:.1} {y:.1})")) {}
    }
}

/// Returns a coordinate as text.
fn at(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positive_range_ignores_values_that_a_logarithm_does_not_have() {
        let values = [0.0, 3.0, -5.0, f64::NAN, 0.5, f64::INFINITY];
        assert_eq!(positive_range(values.into_iter()), (0.5, 3.0));
        assert_eq!(positive_range([0.0, -1.0].into_iter()), (1.0, 1.0));
    }
}
