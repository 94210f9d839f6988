//! Styles, which are readable on dark and light backgrounds, and without colors.

use ratatui::style::{Color, Modifier, Style};

/// The meaning of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Normal,
    /// Titles, and the figure that matters most.
    Strong,
    /// Explanations.
    Faint,
    /// Bars and sparklines.
    Chart,
    Warning,
    Bad,
    /// A label with its own background.
    GoodLabel,
    WarningLabel,
    BadLabel,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    pub(super) has_color: bool,
}

impl Theme {
    /// Returns the theme for the environment (<https://no-color.org>).
    pub(super) fn from_environment() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { has_color: !no_color }
    }

    /// Returns the style of a tone. Yellow and gray texts are unreadable on some backgrounds, so
    /// yellow is only a background, and faint texts have no color.
    pub(super) fn style(self, tone: Tone) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        match (tone, self.has_color) {
            (Tone::Normal, _) => Style::new(),
            (Tone::Strong, _) => bold,
            (Tone::Faint, _) => Style::new().add_modifier(Modifier::DIM),
            (Tone::Chart, true) => Style::new().fg(Color::Cyan),
            (Tone::Chart, false) => Style::new(),
            (Tone::Warning, true) => bold.fg(Color::Magenta),
            (Tone::Warning, false) => bold,
            (Tone::Bad, true) => bold.fg(Color::Red),
            (Tone::Bad, false) => bold,
            (Tone::GoodLabel, true) => Style::new().fg(Color::Black).bg(Color::Green),
            (Tone::WarningLabel, true) => Style::new().fg(Color::Black).bg(Color::Yellow),
            (Tone::BadLabel, true) => bold.fg(Color::White).bg(Color::Red),
            (Tone::GoodLabel, false) => bold,
            (Tone::WarningLabel | Tone::BadLabel, false) => bold.add_modifier(Modifier::REVERSED),
        }
    }
}
