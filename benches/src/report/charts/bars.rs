//! Stacked horizontal bars.

use maud::{Markup, html};

use super::scale::Scale;
use super::{Source, WIDTH, at};

const ROW: f64 = 38.0;
const BAR: f64 = 15.0;
/// Space on the right for the number at the end of a bar.
const END: f64 = 56.0;

/// A bar with a label above it.
pub(crate) struct Bar {
    pub(crate) label: String,
    /// CSS class and length of each segment.
    pub(crate) segments: Vec<(&'static str, f64)>,
    /// Number at the end of the bar, or the reason why there is no bar.
    pub(crate) end: String,
    pub(crate) source: Source,
}

/// Draws bars over an axis from zero to `highest`. `name` is the title of the panel.
pub(crate) fn draw(name: &str, bars: &[Bar], highest: f64, axis: &str) -> Markup {
    let scale = Scale::linear(highest, 2.0, WIDTH - END);
    let bottom = bars.len() as f64 * ROW + 4.0;
    let height = bottom + 38.0;
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {height}")) role="group"
            aria-label=(format!("{name}: {axis}")) {
            @for (tick, text) in scale.ticks() {
                @let x = at(scale.at(tick));
                line.grid x1=(x) x2=(x) y1="0" y2=(at(bottom)) {}
                text.tick x=(x) y=(at(bottom + 15.0))
                    text-anchor=(if tick == 0.0 { "start" } else { "middle" }) { (text) }
            }
            @for (index, bar) in bars.iter().enumerate() {
                @let top = index as f64 * ROW;
                (bar.source.wrap(&one(bar, top, &scale)))
            }
            text.axis x="2" y=(at(height - 5.0)) { (axis) }
        }
    }
}

fn one(bar: &Bar, top: f64, scale: &Scale) -> Markup {
    let mut edges = vec![0.0];
    for (_, length) in &bar.segments {
        edges.push(edges[edges.len() - 1] + length.max(0.0));
    }
    let y = at(top + 18.0);
    html! {
        rect.hit x="0" y=(at(top)) width=(WIDTH) height=(ROW) {}
        text.label x="2" y=(at(top + 13.0)) { (bar.label) }
        @for ((class, _), edge) in bar.segments.iter().zip(edges.windows(2)) {
            @let (from, to) = (scale.at(edge[0]), scale.at(edge[1]));
            rect class=(class) x=(at(from)) y=(y) width=(at((to - from).max(0.0))) height=(BAR) {}
        }
        @if bar.segments.is_empty() {
            text.reason x="2" y=(at(top + 30.0)) { (bar.end) }
        } @else {
            text.value x=(at(scale.at(edges[edges.len() - 1]) + 5.0)) y=(at(top + 30.0)) {
                (bar.end)
            }
        }
    }
}
