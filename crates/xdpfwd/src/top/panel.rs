//! A panel: a titled table, without its position and size on the screen.

use super::history::History;
use super::theme::Tone;

/// A part of the screen.
#[derive(Clone, Debug, Default)]
pub(super) struct Panel {
    pub(super) title: String,
    /// A remark behind the title, such as the period of the figures.
    pub(super) remark: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Cell>>,
    /// Texts below the table, as far as they fit.
    pub(super) notes: Vec<String>,
    /// Shown instead of the table if there are no rows.
    pub(super) empty: String,
}

/// A column of a panel.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) head: &'static str,
    pub(super) kind: ColumnKind,
    /// If the panel is too narrow, the columns with the highest rank are omitted; never those with
    /// rank 0.
    pub(super) rank: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnKind {
    /// Aligned left. Cut to `min` columns if necessary.
    Text { min: usize },
    /// Aligned right; `min` columns keep the table calm while its numbers change.
    Number { min: usize },
    /// Takes the remaining width, if that is at least `min`.
    Rest { min: usize },
}

#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) content: Content,
    pub(super) tone: Tone,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Text(String),
    /// The rates of the last minute, scaled to the highest.
    Spark(History),
    /// A share, from 0 to 1.
    Bar(f64),
}

impl Column {
    pub(super) fn text(head: &'static str, rank: u8) -> Self {
        Self { head, kind: ColumnKind::Text { min: 8 }, rank }
    }

    pub(super) fn number(head: &'static str, rank: u8) -> Self {
        Self { head, kind: ColumnKind::Number { min: 6 }, rank }
    }

    pub(super) fn rest(head: &'static str, min: usize, rank: u8) -> Self {
        Self { head, kind: ColumnKind::Rest { min }, rank }
    }
}

impl Cell {
    pub(super) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { content: Content::Text(text.into()), tone }
    }

    pub(super) fn bar(share: f64) -> Self {
        Self { content: Content::Bar(share), tone: Tone::Chart }
    }

    pub(super) fn spark(history: &History) -> Self {
        Self { content: Content::Spark(history.clone()), tone: Tone::Chart }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Normal)
    }
}
