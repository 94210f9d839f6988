use crate::costs::{Stage, XdpProgram, ratio};

use super::super::format::{percent, si};
use super::super::model::Model;
use super::super::panel::{Cell, Column, Panel};
use super::super::theme::Tone;

/// Returns the panel of the stages' costs, and of the XDP programs' if they are measured.
pub(crate) fn stages(model: &Model) -> Panel {
    let costs = &model.costs;
    let stages = costs.stages.iter().map(|stage| row(stage, model));
    let programs = costs.kernel_ledger.iter().flat_map(|ledger| &ledger.xdp_programs);
    Panel {
        title: "Stages".to_owned(),
        remark: model.period(),
        columns: vec![
            Column::text("stage", 0),
            Column::text("path", 2),
            Column::number("pkt/s", 4),
            Column::number("drops/s", 3),
            Column::number("pkt/batch", 6),
            Column::number("cycles/pkt", 0),
            Column::number("of busy", 1),
            Column::rest("", 6, 5),
        ],
        rows: stages.chain(programs.map(program_row)).collect(),
        empty: "no stages".to_owned(),
        ..Panel::default()
    }
}

fn per_second(count: u64, model: &Model) -> String {
    model.interval.map_or("-".to_owned(), |seconds| si(count as f64 / seconds))
}

fn row(stage: &Stage, model: &Model) -> Vec<Cell> {
    let share = ratio(stage.cycles, model.costs.ledger.busy_cycles);
    let is_idle = stage.packets == 0;
    let figure = |text: String| if is_idle { "-".to_owned() } else { text };
    let dropping = model.interval.is_some() && stage.drops > 0;
    vec![
        match &*stage.place {
            "kernel" => format!("{} (kernel)", stage.name).into(),
            _ => (&*stage.name).into(),
        },
        Cell::new(&*stage.path, Tone::Faint),
        per_second(stage.packets, model).into(),
        Cell::new(
            per_second(stage.drops, model),
            if dropping { Tone::Strong } else { Tone::Normal },
        ),
        figure(format!("{:.1}", stage.packets_per_call)).into(),
        Cell::new(figure(format!("{:.1}", stage.cycles_per_packet)), Tone::Strong),
        figure(percent(100.0 * share)).into(),
        Cell::bar(share),
    ]
}

fn program_row(program: &XdpProgram) -> Vec<Cell> {
    let cycles = match program.runs {
        0 => "-".to_owned(),
        _ => format!("{:.1}", program.cycles_per_run),
    };
    vec![
        format!("XDP {}", program.port).into(),
        Cell::new(&*program.interface, Tone::Faint),
        // Only some of the runs are measured, so `runs` is no rate.
        "".into(),
        "".into(),
        "".into(),
        Cell::new(cycles, Tone::Strong),
        "".into(),
        "".into(),
    ]
}
