use super::super::format::{count, duration, si};
use super::super::losses::Loss;
use super::super::model::Model;
use super::super::panel::{Cell, Column, ColumnKind, Panel};
use super::super::remedies::Concern;
use super::super::theme::Tone;

/// How the panel says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedies {
    /// In a column, if there is room.
    Column,
    /// Below the table, in full.
    Notes,
}

/// Returns the panel of lost and dropped packets, with what to do.
pub(crate) fn drops(model: &Model, remedies: Remedies) -> Panel {
    let now = model.snapshot.elapsed_seconds();
    let mut columns = vec![
        Column { head: "reason", kind: ColumnKind::Text { min: 16 }, rank: 0 },
        Column::text("where", 2),
        Column::number("per s", 0),
        Column::number("total", 1),
        Column::number("grew", 4),
    ];
    let mut notes: Vec<String> = Vec::new();
    match remedies {
        Remedies::Column => columns.push(Column::rest("what to do", 40, 3)),
        Remedies::Notes => {
            for loss in &model.losses {
                let note = format!("{}: {}", loss.reason, loss.remedy());
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
        }
    }
    Panel {
        title: "Lost and dropped packets".to_owned(),
        columns,
        rows: model.losses.iter().map(|loss| row(loss, now)).collect(),
        notes,
        empty: "none since the start".to_owned(),
        ..Panel::default()
    }
}

fn row(loss: &Loss, now: f64) -> Vec<Cell> {
    let tone = match (loss.concern(), loss.is_growing()) {
        (Concern::Bug, _) | (Concern::Loss, true) => Tone::Bad,
        (Concern::Content, true) => Tone::Warning,
        (Concern::Configured, true) => Tone::Normal,
        (_, false) => Tone::Faint,
    };
    let grew = match loss.last_growth {
        _ if loss.is_growing() => "now".to_owned(),
        Some(time) => format!("{} ago", duration(now - time)),
        None => "-".to_owned(),
    };
    vec![
        Cell::new(&*loss.reason, tone),
        Cell::new(loss.location.describe(), tone),
        Cell::new(loss.rate.map_or("-".to_owned(), si), tone),
        Cell::new(count(loss.total), tone),
        Cell::new(grew, tone),
        Cell::new(loss.remedy(), Tone::Faint),
    ]
}
