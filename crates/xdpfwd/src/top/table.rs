//! Draws a panel into an area.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::symbols::bar::NINE_LEVELS;
use ratatui::symbols::block;

use super::format::{fit, width};
use super::history::History;
use super::panel::{Cell, ColumnKind, Content, Panel};
use super::theme::{Theme, Tone};

/// Columns between two columns of a table.
const GAP: usize = 2;

/// What to do with rows that do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overflow {
    /// Say how many are missing, and which key shows them.
    Key(char),
    /// Show the rows from this number on.
    Scroll(usize),
}

/// Returns the number of lines that a panel needs.
pub(super) fn height(panel: &Panel) -> u16 {
    let lines = if panel.rows.is_empty() { 1 } else { panel.rows.len() + 1 };
    u16::try_from(lines + 1).unwrap_or(u16::MAX)
}

/// Returns the highest row number from which [`Overflow::Scroll`] still fills the area.
pub(super) fn max_scroll(panel: &Panel, height: u16) -> usize {
    panel.rows.len().saturating_sub(usize::from(height.saturating_sub(2)))
}

/// Draws the panel: a line with the title, one with the heads of the columns, and the rows.
pub(super) fn draw(
    panel: &Panel,
    overflow: Overflow,
    theme: Theme,
    area: Rect,
    buffer: &mut Buffer,
) {
    let area = area.intersection(buffer.area);
    if area.is_empty() {
        return;
    }
    let columns = usize::from(area.width);
    let visible = usize::from(area.height.saturating_sub(2));
    let (first, remark) = match overflow {
        Overflow::Scroll(first) if panel.rows.len() > visible => {
            let first = first.min(max_scroll(panel, area.height));
            let last = (first + visible).min(panel.rows.len());
            (first, format!("rows {}-{last} of {}  ↑↓ scroll", first + 1, panel.rows.len()))
        }
        Overflow::Key(key) if visible == 0 && !panel.rows.is_empty() => {
            (0, format!("{} rows: press {key}", panel.rows.len()))
        }
        _ => (0, panel.remark.clone()),
    };
    draw_title(&panel.title, &remark, theme, area, buffer);
    let mut lines = (area.y + 1..area.bottom()).peekable();
    let mut put = |x: usize, y: u16, text: &str, tone: Tone| {
        let x = area.x + u16::try_from(x).unwrap_or(u16::MAX).min(area.width);
        let room = usize::from(area.right().saturating_sub(x));
        buffer.set_stringn(x, y, text, room, theme.style(tone));
    };
    if panel.rows.is_empty() {
        for (line, y) in super::format::wrap(&panel.empty, columns).iter().zip(lines) {
            put(0, y, line, Tone::Faint);
        }
        return;
    }
    let layout = Layout::new(panel, columns);
    let Some(y) = lines.next() else { return };
    for (index, x, width) in layout.iter() {
        let column = &panel.columns[index];
        let text = match column.kind {
            ColumnKind::Number { .. } => format!("{:>width$}", fit(column.head, width)),
            _ => fit(column.head, width),
        };
        put(x, y, &text, Tone::Faint);
    }
    let mut rows = panel.rows.iter().skip(first);
    while let Some(y) = lines.next() {
        let is_last_line = lines.peek().is_none();
        if let Overflow::Key(key) = overflow
            && is_last_line
            && rows.len() > 1
        {
            let text = format!("… and {} more: press {key}", rows.len());
            put(0, y, &fit(&text, columns), Tone::Faint);
            return;
        }
        let Some(row) = rows.next() else { break };
        for (index, x, width) in layout.iter() {
            if let Some(cell) = row.get(index) {
                put(x, y, &cell_text(cell, panel.columns[index].kind, width), cell.tone);
            }
        }
    }
    // The loop above has taken one line more: it stays empty.
    let notes = panel.notes.iter().flat_map(|note| super::format::wrap(note, columns));
    for (note, y) in notes.zip(lines) {
        put(0, y, &note, Tone::Faint);
    }
}

fn draw_title(title: &str, remark: &str, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let (width, mut x) = (usize::from(area.width), area.x);
    let title = fit(title, width);
    (x, _) = buffer.set_stringn(x, area.y, &title, width, theme.style(Tone::Strong));
    for (text, tone) in [(format!("  {remark} "), Tone::Faint), ("─".repeat(width), Tone::Faint)]
    {
        if text.trim().is_empty() {
            (x, _) = buffer.set_stringn(x, area.y, " ", 1, theme.style(tone));
            continue;
        }
        let room = usize::from(area.right().saturating_sub(x));
        let text = if text.starts_with('─') { text } else { fit(&text, room) };
        (x, _) = buffer.set_stringn(x, area.y, text, room, theme.style(tone));
    }
}

fn cell_text(cell: &Cell, kind: ColumnKind, width: usize) -> String {
    match &cell.content {
        Content::Text(text) => {
            let text = fit(text, width);
            let padding = match kind {
                ColumnKind::Number { .. } => width.saturating_sub(super::format::width(&text)),
                _ => 0,
            };
            " ".repeat(padding) + &text
        }
        Content::Spark(history) => sparkline(history, width),
        Content::Bar(share) => bar(*share, width),
    }
}

/// Formats the rates of the last minute, scaled to the highest column. A rate above 0 is never
/// blank.
fn sparkline(history: &History, width: usize) -> String {
    let values = history.columns(width);
    let highest = values.iter().flatten().copied().fold(0.0, f64::max);
    let symbol = |value: Option<f64>| match value {
        None => " ",
        Some(value) if value <= 0.0 || highest <= 0.0 => "·",
        Some(value) => match (value / highest * 8.0).ceil() as u8 {
            0 | 1 => NINE_LEVELS.one_eighth,
            2 => NINE_LEVELS.one_quarter,
            3 => NINE_LEVELS.three_eighths,
            4 => NINE_LEVELS.half,
            5 => NINE_LEVELS.five_eighths,
            6 => NINE_LEVELS.three_quarters,
            7 => NINE_LEVELS.seven_eighths,
            _ => NINE_LEVELS.full,
        },
    };
    values.into_iter().map(symbol).collect()
}

fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = [
        "",
        block::ONE_EIGHTH,
        block::ONE_QUARTER,
        block::THREE_EIGHTHS,
        block::HALF,
        block::FIVE_EIGHTHS,
        block::THREE_QUARTERS,
        block::SEVEN_EIGHTHS,
    ];
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let eighths = (share * 8.0 * width as f64).round() as usize;
    block::FULL.repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

/// The columns of a table that fit into its width: index, position, width.
struct Layout(Vec<(usize, usize, usize)>);

impl Layout {
    fn new(panel: &Panel, available: usize) -> Self {
        let natural = |index: usize| {
            let cells = panel.rows.iter().filter_map(|row| row.get(index));
            let texts = cells.map(|cell| match &cell.content {
                Content::Text(text) => width(text),
                Content::Spark(_) | Content::Bar(_) => 0,
            });
            texts.fold(width(panel.columns[index].head), usize::max)
        };
        let mut shown: Vec<(usize, usize)> = panel
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| match column.kind {
                ColumnKind::Text { .. } => (index, natural(index)),
                ColumnKind::Number { min } => (index, natural(index).max(min)),
                ColumnKind::Rest { min } => (index, min),
            })
            .collect();
        loop {
            let total = |shown: &[(usize, usize)]| {
                let widths: usize = shown.iter().map(|(_, width)| width).sum();
                widths + GAP * shown.len().saturating_sub(1)
            };
            let mut narrowed = shown.clone();
            for (index, width) in &mut narrowed {
                if let ColumnKind::Text { min } = panel.columns[*index].kind {
                    let excess = total(&shown).saturating_sub(available);
                    let cut = excess.min(width.saturating_sub(min));
                    *width -= cut;
                    if let Some((_, width)) = shown.iter_mut().find(|(other, _)| other == index) {
                        *width -= cut;
                    }
                }
            }
            let missing = total(&narrowed) > available;
            let rank = |(index, _): &(usize, usize)| panel.columns[*index].rank;
            match shown.iter().map(rank).max() {
                Some(highest) if missing && highest > 0 => {
                    shown.retain(|column| rank(column) != highest);
                    // Widen the texts again.
                    for (index, width) in &mut shown {
                        if let ColumnKind::Text { .. } = panel.columns[*index].kind {
                            *width = natural(*index);
                        }
                    }
                }
                _ => {
                    shown = narrowed;
                    break;
                }
            }
        }
        let is_rest = |index: usize| matches!(panel.columns[index].kind, ColumnKind::Rest { .. });
        let rests = shown.iter().filter(|(index, _)| is_rest(*index)).count();
        let used: usize = shown.iter().map(|(_, width)| width).sum::<usize>()
            + GAP * shown.len().saturating_sub(1);
        let spare = available.saturating_sub(used).checked_div(rests).unwrap_or(0);
        let mut x = 0;
        let placed = shown.into_iter().map(|(index, width)| {
            let width = if is_rest(index) { width + spare } else { width };
            let column = (index, x, width.min(available.saturating_sub(x)));
            x += width + GAP;
            column
        });
        Self(placed.collect())
    }

    fn iter(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparkline_scales_to_the_highest_rate() {
        let mut history = History::default();
        for (second, rate) in [(15.0, 0.0), (30.0, 1.0), (45.0, 500.0), (60.0, 1000.0)] {
            history.push(second, 15.0, rate);
        }
        assert_eq!(sparkline(&history, 4), "·▁▄█");
        assert_eq!(sparkline(&History::default(), 3), "   ");
    }

    #[test]
    fn bar_has_eighths_of_columns() {
        for (share, text) in
            [(0.0, ""), (0.25, "█"), (0.5, "██"), (0.28, "█▏"), (1.0, "████"), (9.0, "████")]
        {
            assert_eq!(bar(share, 4), text, "{share}");
        }
        assert_eq!(bar(f64::NAN, 4), "");
    }
}
