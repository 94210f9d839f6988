//! What the screen shows.

use std::time::Duration;

use crate::top::model::Model;
use crate::top::theme::Theme;

/// A selection of panels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum View {
    /// All panels.
    #[default]
    All,
    Ports,
    Stages,
    Tasks,
    Kernel,
    Drops,
    Buffers,
}

impl View {
    /// The views with their keys and names.
    pub(crate) const ALL: [(Self, char, &'static str); 7] = [
        (Self::All, '1', "all"),
        (Self::Ports, '2', "ports"),
        (Self::Stages, '3', "stages"),
        (Self::Tasks, '4', "tasks"),
        (Self::Kernel, '5', "kernel"),
        (Self::Drops, '6', "drops"),
        (Self::Buffers, '7', "buffers"),
    ];

    /// Returns the view that is `steps` further in the list, around its end.
    pub(crate) fn moved(self, steps: isize) -> Self {
        let count = Self::ALL.len();
        let index = Self::ALL.iter().position(|(view, ..)| *view == self).unwrap_or(0);
        Self::ALL[index.saturating_add_signed(steps + count.cast_signed()) % count].0
    }

    pub(crate) fn key(self) -> char {
        Self::ALL.iter().find(|(view, ..)| *view == self).map_or('1', |(_, key, _)| *key)
    }
}

/// Whether the figures are current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    Live,
    /// The last reading failed, for this reason.
    Lost(String),
}

/// The state of the screen.
#[derive(Debug)]
pub(crate) struct Screen<'s> {
    pub(crate) model: &'s Model,
    pub(crate) connection: &'s Connection,
    /// Time since the last report.
    pub(crate) age: Duration,
    /// Configured time between two readings.
    pub(crate) interval: Duration,
    pub(crate) is_paused: bool,
    pub(crate) shows_help: bool,
    pub(crate) view: View,
    pub(crate) scroll: usize,
    pub(crate) theme: Theme,
    pub(crate) socket: &'s str,
}
