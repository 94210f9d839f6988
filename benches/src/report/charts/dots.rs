//! Dots on horizontal tracks over a logarithmic axis, with vertical lines for reference.

use maud::{Markup, html};

use super::scale::Scale;
use super::{Source, WIDTH, at, marker};

const ROW: f64 = 38.0;
const TOP: f64 = 20.0;

/// A track with its dots.
pub(crate) struct Track {
    pub(crate) label: String,
    /// Style, value, and source of each dot.
    pub(crate) dots: Vec<(usize, f64, Source)>,
}

/// Draws tracks, without values that a logarithmic axis cannot show. `name` is the title of the
/// panel. `references` are vertical lines: value and text.
pub(crate) fn draw(
    name: &str,
    tracks: &[Track],
    references: &[(f64, &str)],
    (low, high): (f64, f64),
    axis: &str,
) -> Markup {
    let scale = Scale::log(low, high, 12.0, WIDTH - 14.0);
    let bottom = TOP + tracks.len() as f64 * ROW + 4.0;
    let height = bottom + 38.0;
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {height}")) role="group"
            aria-label=(format!("{name}: {axis}")) {
            @for (tick, text) in scale.ticks() {
                @let x = at(scale.at(tick));
                line.grid x1=(x) x2=(x) y1=(TOP) y2=(at(bottom)) {}
                text.tick x=(x) y=(at(bottom + 15.0)) text-anchor="middle" { (text) }
            }
            @if !references.is_empty() {
                text.reference x="2" y="12" { "GbE →" }
            }
            @for (value, text) in references {
                @let x = at(scale.at(*value));
                line.reference x1=(x) x2=(x) y1=(TOP) y2=(at(bottom)) {}
                text.reference x=(x) y="12" text-anchor="middle" { (text) }
            }
            @for (index, track) in tracks.iter().enumerate() {
                @let y = TOP + index as f64 * ROW + 26.0;
                @let dots = || track.dots.iter().filter(|dot| dot.1 > 0.0);
                @let ends = dots().map(|dot| scale.at(dot.1));
                text.label x="2" y=(at(y - 12.0)) { (track.label) }
                @if dots().next().is_some() {
                    line.track x1=(at(ends.clone().fold(WIDTH, f64::min))) y1=(at(y)) y2=(at(y))
                        x2=(at(ends.fold(0.0, f64::max))) {}
                }
                // The first series comes last, so that it is on top.
                @for (series, value, source) in dots().rev() {
                    (source.wrap(&marker(*series, scale.at(*value), y, false)))
                }
            }
            text.axis x="2" y=(at(height - 5.0)) { (axis) }
        }
    }
}
