//! Values over a quantity: dots and lines.

use maud::{Markup, html};

use super::scale::Scale;
use super::{Source, WIDTH, at, marker};

const HEIGHT: f64 = 260.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = WIDTH - 20.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = HEIGHT - 46.0;

/// A dot: the quantity, the value, and its source.
pub(crate) struct Dot {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) is_hollow: bool,
    pub(crate) source: Source,
}

/// A series of dots, and the points of a line.
pub(crate) struct Series {
    /// Number of the marker and colour.
    pub(crate) style: usize,
    pub(crate) dots: Vec<Dot>,
    pub(crate) line: Vec<(f64, f64)>,
}

/// An axis.
pub(crate) struct Axis<'a> {
    pub(crate) label: &'a str,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) is_log: bool,
    /// Marks with their texts; if empty, round numbers.
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Axis<'_> {
    fn scale(&self, from: f64, to: f64) -> Scale {
        if self.is_log {
            Scale::log(self.low, self.high, from, to)
        } else {
            Scale::linear(self.high, from, to)
        }
    }

    fn can_show(&self, value: f64) -> bool {
        !self.is_log || value > 0.0
    }

    fn ticks(&self, scale: &Scale) -> Vec<(f64, String)> {
        if self.ticks.is_empty() { scale.ticks().collect() } else { self.ticks.clone() }
    }
}

/// Draws series over two axes, without values that a logarithmic axis cannot show. `name` is the
/// title of the panel.
pub(crate) fn draw(name: &str, series: &[Series], x_axis: &Axis, y_axis: &Axis) -> Markup {
    let (x_scale, y_scale) = (x_axis.scale(LEFT, RIGHT), y_axis.scale(BOTTOM, TOP));
    let label = format!("{name}: {} over {}", y_axis.label, x_axis.label);
    let is_drawn = |x: f64, y: f64| x_axis.can_show(x) && y_axis.can_show(y);
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="group" aria-label=(label) {
            @for (tick, text) in y_axis.ticks(&y_scale) {
                @let y = y_scale.at(tick);
                line.grid x1=(LEFT) x2=(RIGHT) y1=(at(y)) y2=(at(y)) {}
                text.tick x=(LEFT - 6.0) y=(at(y + 4.0)) text-anchor="end" { (text) }
            }
            @for (tick, text) in x_axis.ticks(&x_scale) {
                @let x = at(x_scale.at(tick));
                line.grid x1=(x) x2=(x) y1=(TOP) y2=(BOTTOM) {}
                text.tick x=(x) y=(BOTTOM + 16.0) text-anchor="middle" { (text) }
            }
            @for series in series {
                @let points: Vec<String> = series.line.iter()
                    .filter(|(x, y)| is_drawn(*x, *y))
                    .map(|(x, y)| format!("{:.1},{:.1}", x_scale.at(*x), y_scale.at(*y)))
                    .collect();
                polyline class=(format!("line s{}", series.style % 6)) points=(points.join(" ")) {}
            }
            @for series in series {
                @for dot in series.dots.iter().filter(|dot| is_drawn(dot.x, dot.y)) {
                    @let mark = marker(
                        series.style, x_scale.at(dot.x), y_scale.at(dot.y), dot.is_hollow
                    );
                    (dot.source.wrap(&mark))
                }
            }
            text.axis x=(RIGHT + 16.0) y=(HEIGHT - 6.0) text-anchor="end" { (x_axis.label) }
            text.axis x="2" y=(HEIGHT - 6.0) { "↑ " (y_axis.label) }
        }
    }
}
