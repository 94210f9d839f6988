//! Header, alerts, keys and help.

use ratatui::Frame;
use ratatui::layout::Rect;

use crate::top::alerts::Severity;
use crate::top::format::{duration, fit, width};
use crate::top::theme::{Theme, Tone};

use super::state::{Screen, View};

/// Columns of an alert's label, with the space behind it.
pub(super) const LABEL_COLUMNS: usize = 7;

pub(super) fn label(severity: Severity) -> (&'static str, Tone) {
    match severity {
        Severity::Bad => ("BAD", Tone::BadLabel),
        Severity::Warning => ("WARN", Tone::WarningLabel),
        Severity::Good => ("OK", Tone::GoodLabel),
    }
}

/// Writes texts one after the other. Returns the column behind them.
fn write_texts(texts: &[(&str, Tone)], theme: Theme, area: Rect, frame: &mut Frame<'_>) -> u16 {
    let mut x = area.x;
    for (text, tone) in texts {
        let room = usize::from(area.right().saturating_sub(x));
        let text = fit(text, room);
        (x, _) = frame.buffer_mut().set_stringn(x, area.y, text, room, theme.style(*tone));
    }
    x
}

impl Screen<'_> {
    pub(super) fn draw_header(&self, area: Rect, frame: &mut Frame<'_>) {
        let snapshot = &self.model.snapshot;
        let name = format!("{} {}", snapshot.program, snapshot.version);
        let workers = match snapshot.workers {
            1 => "1 worker".to_owned(),
            workers => format!("{workers} workers"),
        };
        let busy =
            self.model.busy_percent().map_or(String::new(), |busy| format!(" {busy:.0} % busy"));
        let uptime = duration(snapshot.elapsed_seconds());
        let rest = format!("  {workers}{busy}  up {uptime}  figures: {}  ", self.model.period());
        let mut texts = vec![(&*name, Tone::Strong), (&*rest, Tone::Normal)];
        if self.is_paused {
            texts.push((" PAUSED ", Tone::WarningLabel));
        }
        let end = write_texts(&texts, self.theme, area, frame);
        let columns = u16::try_from(width(self.socket)).unwrap_or(u16::MAX);
        if area.right().saturating_sub(end) > columns + 1 {
            let x = area.right() - columns;
            let style = self.theme.style(Tone::Faint);
            frame.buffer_mut().set_string(x, area.y, self.socket, style);
        }
    }

    pub(super) fn draw_alert(
        &self,
        label: &str,
        tone: Tone,
        text: &str,
        area: Rect,
        frame: &mut Frame<'_>,
    ) {
        let text_tone = match tone {
            Tone::BadLabel => Tone::Bad,
            Tone::Faint => Tone::Faint,
            _ => Tone::Normal,
        };
        if !label.is_empty() {
            write_texts(&[(&format!(" {label} "), tone)], self.theme, area, frame);
        }
        let indent = u16::try_from(LABEL_COLUMNS).unwrap_or(0).min(area.width);
        let area = Rect { x: area.x + indent, width: area.width - indent, ..area };
        write_texts(&[(text, text_tone)], self.theme, area, frame);
    }

    /// Draws the keys. The current view is highlighted.
    pub(super) fn draw_keys(&self, area: Rect, frame: &mut Frame<'_>) {
        let views: Vec<(String, Tone)> = View::ALL
            .iter()
            .map(|(view, key, name)| {
                let is_current = *view == self.view && !self.shows_help;
                let tone = if is_current { Tone::Strong } else { Tone::Faint };
                (format!("{key} {name} "), tone)
            })
            .collect();
        let others = " p pause ? help q quit";
        let full: usize = views.iter().map(|(text, _)| width(text)).sum();
        let short = [("1-7, Tab views ".to_owned(), Tone::Faint)];
        let is_full = full + width(others) <= usize::from(area.width);
        let mut texts: Vec<(&str, Tone)> = (if is_full { &views[..] } else { &short[..] })
            .iter()
            .map(|(text, tone)| (&**text, *tone))
            .collect();
        texts.push((others, Tone::Faint));
        write_texts(&texts, self.theme, area, frame);
    }
}

/// Draws the explanation of keys and figures.
pub(super) fn draw_help(theme: Theme, area: Rect, frame: &mut Frame<'_>) {
    const LINES: [(&str, &str); 19] = [
        ("Keys", ""),
        ("q, Esc, Ctrl-C", "quit"),
        ("p, Space", "pause and resume; while paused, no figure changes"),
        ("1 to 7, Tab, ← →", "select a view"),
        ("↑ ↓ PgUp PgDn Home", "scroll in the views 2 to 7"),
        ("?, h", "show and close this page"),
        ("", ""),
        ("Figures", ""),
        ("rates", "between the last two readings, not since the start"),
        ("bit", "bits per second, without preamble, gap and FCS"),
        ("cycles/pkt", "CPU cycles (TSC) per packet of the stage"),
        ("cycles/pkt in", "CPU cycles per packet that any port received"),
        ("of busy", "share of the time in which the workers had work"),
        ("to kernel", "packets left to the kernel (keep, unserved queues)"),
        ("kernel", "samples of the last 10 s; needs kernel_ledger in [engine]"),
        ("total, grew", "packets since the start, and when the counter last grew"),
        ("", ""),
        ("BAD, WARN, OK", "lost packets or a fault; a warning; nothing is wrong"),
        ("More", "docs/operations.md; ctl stats, ledger, rules, inspect"),
    ];
    for (y, (key, text)) in (area.y..area.bottom()).zip(LINES) {
        let line = Rect { y, height: 1, ..area };
        let tone = if text.is_empty() { Tone::Strong } else { Tone::Normal };
        write_texts(&[(&format!("{key:<20}"), tone), (text, Tone::Normal)], theme, line, frame);
    }
}
