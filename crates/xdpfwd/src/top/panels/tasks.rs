use crate::costs::{Task, ratio, sum};

use super::super::format::percent;
use super::super::model::Model;
use super::super::panel::{Cell, Column, Panel};
use super::super::theme::Tone;

/// Returns the panel of the ledger's tasks, in the order in which a packet passes them. If there
/// are more than `max_rows`, the last row is the sum of the cheapest ones.
pub(crate) fn tasks(model: &Model, max_rows: usize) -> Panel {
    const ORDER: [&str; 10] = [
        "receive", "parse", "stages", "scatter", "transmit", "wake", "reclaim", "look", "control",
        "stamps",
    ];
    let ledger = &model.costs.ledger;
    let mut tasks: Vec<&Task> = ledger.tasks.iter().filter(|task| !task.is_idle()).collect();
    tasks.sort_by_key(|task| {
        ORDER.iter().position(|name| *name == task.name).unwrap_or(ORDER.len())
    });
    // Tasks that never ran, such as `parse` without a stage that needs headers.
    let cumulative = &model.snapshot.costs.ledger.tasks;
    tasks.retain(|task| cumulative.iter().any(|total| total.name == task.name && total.cycles > 0));
    let others = sum_of_cheapest(&mut tasks, max_rows);
    let rows = tasks.into_iter().chain(&others).map(|task| row(task, model));
    let is_off = !ledger.on && ledger.busy_cycles == 0;
    Panel {
        title: "Tasks of the workers".to_owned(),
        remark: busy(model),
        columns: vec![
            Column::text("task", 0),
            Column::number("pkt/call", 3),
            Column::number("cycles/pkt in", 0),
            Column::number("of busy", 1),
            Column::rest("", 6, 2),
        ],
        rows: if is_off { Vec::new() } else { rows.collect() },
        empty: "off: set ledger = true in [engine] and restart".to_owned(),
        ..Panel::default()
    }
}

/// Removes the cheapest tasks that do not fit into `max_rows`, and returns their sum.
fn sum_of_cheapest(tasks: &mut Vec<&Task>, max_rows: usize) -> Option<Task> {
    let removed = (tasks.len() + 1).checked_sub(max_rows.max(2)).filter(|removed| *removed > 1)?;
    let mut by_cost: Vec<(u64, usize)> =
        tasks.iter().enumerate().map(|(index, task)| (task.cycles, index)).collect();
    by_cost.sort_unstable();
    let cheapest = &by_cost[..removed];
    let cycles = sum(cheapest.iter().map(|(cycles, _)| *cycles));
    let mut index = 0..;
    tasks.retain(|_| {
        let index = index.next().unwrap_or(0);
        !cheapest.iter().any(|(_, other)| *other == index)
    });
    Some(Task { name: format!("{removed} others"), cycles, ..Task::default() })
}

fn row(task: &Task, model: &Model) -> Vec<Cell> {
    let costs = &model.costs;
    let share = ratio(task.cycles, costs.ledger.busy_cycles);
    let per_packet = match costs.rx_packets {
        0 => "-".to_owned(),
        packets => format!("{:.1}", ratio(task.cycles, packets)),
    };
    let per_call = match (task.packets, task.calls) {
        (0, _) | (_, 0) => String::new(),
        _ => format!("{:.1}", task.packets_per_call),
    };
    vec![
        (&*task.name).into(),
        per_call.into(),
        Cell::new(per_packet, Tone::Strong),
        percent(100.0 * share).into(),
        Cell::bar(share),
    ]
}

/// Describes how busy each worker is.
fn busy(model: &Model) -> String {
    let shares: Vec<String> = model
        .costs
        .ledger
        .workers
        .iter()
        .map(|worker| {
            let share =
                ratio(worker.busy_cycles, worker.busy_cycles.saturating_add(worker.idle_cycles));
            format!("{:.0}", 100.0 * share)
        })
        .collect();
    if shares.is_empty() { String::new() } else { format!("busy {} %", shares.join("/")) }
}
