use super::super::format::{count, percent};
use super::super::model::Model;
use super::super::panel::{Cell, Column, Panel};
use super::super::snapshot::Frames;
use super::super::theme::Tone;

/// Returns the panel of the frames by owner.
pub(crate) fn buffers(model: &Model) -> Panel {
    let frames = &model.snapshot.frames;
    let mut rows: Vec<Vec<Cell>> = owners(frames)
        .into_iter()
        .map(|(name, frames_of_owner, meaning)| {
            let share = frames_of_owner as f64 / frames.total.max(1) as f64;
            vec![
                name.into(),
                Cell::new(count(frames_of_owner), Tone::Strong),
                percent(100.0 * share).into(),
                Cell::bar(share),
                Cell::new(meaning, Tone::Faint),
            ]
        })
        .collect();
    let tone = if frames.leaked == 0 { Tone::Normal } else { Tone::Bad };
    rows.push(vec![
        Cell::new("leaked", tone),
        Cell::new(frames.leaked.to_string(), tone),
        "".into(),
        "".into(),
        Cell::new("missing; above 0 is a bug", Tone::Faint),
    ]);
    Panel {
        title: "Buffers".to_owned(),
        remark: format!("{} frames by owner", count(frames.total)),
        columns: vec![
            Column::text("owner", 0),
            Column::number("frames", 0),
            Column::number("share", 1),
            Column::rest("", 8, 2),
            Column::text("", 3),
        ],
        rows,
        ..Panel::default()
    }
}

fn owners(frames: &Frames) -> Vec<(&'static str, u64, &'static str)> {
    let mut owners = vec![
        ("pool", frames.pool, "free"),
        ("fill", frames.fill, "posted for reception"),
        ("rx", frames.rx, "received, not processed"),
        ("in flight", frames.in_flight, "in egress queues and stages"),
        ("tx", frames.tx, "being sent"),
        ("completion", frames.completion, "sent, not reclaimed"),
    ];
    // Only after the loss of a port.
    if frames.quarantined > 0 {
        owners.push(("quarantined", frames.quarantined, "of a lost port, perhaps still in use"));
    }
    owners
}

/// Returns the same in one line, without owners that have no frames.
pub(crate) fn buffers_line(model: &Model) -> (String, Tone) {
    let frames = &model.snapshot.frames;
    let owners: Vec<String> = owners(frames)
        .iter()
        .filter(|(_, frames, _)| *frames > 0)
        .map(|(name, frames, _)| format!("{name} {frames}"))
        .collect();
    let (total, leaked) = (frames.total, frames.leaked);
    let text = format!("leaked {leaked}, {total} = {}", owners.join(" + "));
    (text, if leaked == 0 { Tone::Normal } else { Tone::Bad })
}
