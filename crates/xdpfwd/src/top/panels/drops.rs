use super::super::format::{count, duration, si};
use super::super::losses::Loss;
use super::super::model::Model;
use super::super::panel::{Cell, Column, Panel};
use super::super::remedies::Concern;
use super::super::theme::Tone;

/// Returns the panel of lost and dropped packets, with what to do.
pub(in crate::top) fn drops(model: &Model) -> Panel {
    let now = model.snapshot.elapsed_seconds();
    Panel {
        title: "Lost and dropped packets".to_owned(),
        remark: format!("rates: {}", model.period()),
        columns: vec![
            Column::text("reason", 0),
            Column::text("where", 2),
            Column::number("per second", 0),
            Column::number("total", 1),
            Column::number("grew", 4),
            Column::rest("what to do", 24, 3),
        ],
        rows: model.losses.iter().map(|loss| row(loss, now)).collect(),
        empty: "none since the start".to_owned(),
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
