//! The screen: header, alerts, panels and keys, for terminals of any size.

mod body;
mod frame;
mod state;

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::alerts::alerts;
use super::format::fit;
use super::theme::{Theme, Tone};

pub(super) use body::max_scroll;
pub(super) use state::{Connection, Screen, View};

/// The smallest window in which the figures are readable.
const MIN_SIZE: (u16, u16) = (60, 16);

impl Screen<'_> {
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        if area.width < MIN_SIZE.0 || area.height < MIN_SIZE.1 {
            return draw_too_small(area, self.theme, frame);
        }
        let alert_lines = self.alert_lines(area);
        let alerts_height = u16::try_from(alert_lines.len()).unwrap_or(u16::MAX);
        let line = |y: u16| Rect { y, height: 1, ..area };
        self.draw_header(line(area.y), frame);
        for (y, (label, tone, text)) in (area.y + 1..area.bottom()).zip(&alert_lines) {
            self.draw_alert(label, *tone, text, line(y), frame);
        }
        let body = Rect {
            y: area.y + 1 + alerts_height,
            height: area.height.saturating_sub(2 + alerts_height),
            ..area
        };
        if self.shows_help {
            frame::draw_help(self.theme, body, frame);
        } else {
            self.draw_body(body, frame);
        }
        if *self.connection != Connection::Live {
            // Figures of the past.
            frame.buffer_mut().set_style(body, Style::new().add_modifier(Modifier::DIM));
        }
        self.draw_keys(line(area.bottom() - 1), frame);
    }

    /// Returns label, its tone and text of each line of alerts. Texts are wrapped if there is room,
    /// and cut otherwise.
    fn alert_lines(&self, area: Rect) -> Vec<(&'static str, Tone, String)> {
        // The view of losses has room for all alerts.
        let share = if self.view == View::Drops { 2 } else { 4 };
        let max_lines = usize::from(area.height / share).clamp(2, 16);
        let width = usize::from(area.width).saturating_sub(frame::LABEL_COLUMNS);
        let mut alerts: Vec<_> = alerts(self.model)
            .into_iter()
            .map(|alert| (frame::label(alert.severity), alert.text))
            .collect();
        if let Some(alert) = self.connection_alert() {
            // The other alerts are those of the last report.
            alerts.retain(|((_, tone), _)| *tone != Tone::GoodLabel);
            alerts.insert(0, alert);
        }
        let wrapped: Vec<_> = alerts
            .iter()
            .flat_map(|((label, tone), text)| {
                let lines = super::format::wrap(text, width).into_iter().enumerate();
                lines.map(|(number, line)| (if number == 0 { *label } else { "" }, *tone, line))
            })
            .collect();
        if wrapped.len() <= max_lines {
            return wrapped;
        }
        let shown = if alerts.len() <= max_lines { alerts.len() } else { max_lines - 1 };
        let hidden = alerts.split_off(shown).len();
        let mut lines: Vec<_> = alerts
            .into_iter()
            .map(|((label, tone), text)| (label, tone, fit(&text, width)))
            .collect();
        if hidden > 0 {
            let hint = if self.view == View::Drops { "" } else { ": press 6" };
            lines.push(("", Tone::Faint, format!("… and {hidden} more{hint}")));
        }
        lines
    }

    fn connection_alert(&self) -> Option<((&'static str, Tone), String)> {
        let age = super::format::duration(self.age.as_secs_f64());
        match self.connection {
            Connection::Lost(reason) => Some((
                ("LOST", Tone::BadLabel),
                format!("{reason}. Figures are {age} old; trying again"),
            )),
            Connection::Live if self.age > 3 * self.interval + Duration::from_secs(2) => Some((
                ("WAIT", Tone::WarningLabel),
                format!("no answer for {age}: the control thread is busy, for example reloading"),
            )),
            Connection::Live => None,
        }
    }
}

fn draw_too_small(area: Rect, theme: Theme, frame: &mut Frame<'_>) {
    let (width, height) = MIN_SIZE;
    let text = format!(
        "window too small: {}×{}, needs {width}×{height}; q quits",
        area.width, area.height
    );
    let lines = super::format::wrap(&text, usize::from(area.width));
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        let line = fit(&line, usize::from(area.width));
        frame.buffer_mut().set_string(area.x, y, line, theme.style(Tone::Strong));
    }
}
