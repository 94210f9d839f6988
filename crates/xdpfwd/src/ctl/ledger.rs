//! Formats the answer to `ctl ledger`.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::costs::{Costs, KernelLedger, Stage, XdpProgram, ratio};
use crate::kernel_ledger_text::{context_switches, xdp_program};
use crate::text_table::{Table, grouped};

/// Parses an answer, whose texts are escaped.
pub(super) fn parse(answer: Value) -> Result<Costs> {
    serde_json::from_value(answer).context("the response is not a ledger")
}

/// Returns the costs of an interval in the format of the server's answer.
pub(super) fn interval_json(costs: &Costs) -> Result<String> {
    let mut answer = json!({ "schema": xdpfwd_engine::SCHEMA, "type": "ledger" });
    let Value::Object(fields) = serde_json::to_value(costs)? else { return Ok(answer.to_string()) };
    for (name, value) in fields {
        answer[if name == "elapsed_seconds" { "interval_seconds".to_owned() } else { name }] =
            value;
    }
    Ok(answer.to_string())
}

/// Formats costs. `since` is what they are counted from: `"start"` or `"interval"`.
pub(super) fn text(costs: &Costs, since: &str) -> String {
    let seconds = costs.elapsed_seconds;
    let period = match since {
        "start" => format!("since the start, {seconds:.1} s"),
        _ => format!("in {seconds:.1} s"),
    };
    let mut text = format!("{period}: {} packets received\n", grouped(costs.rx_packets));
    append_tasks(costs, &mut text);
    append_stages(costs, &mut text);
    text.push('\n');
    match (KernelLedger::why_empty(costs.kernel_ledger.as_ref()), &costs.kernel_ledger) {
        (None, Some(ledger)) => append_kernel(ledger, &mut text),
        (reason, _) => {
            let _ = writeln!(text, "kernel's share: {}", reason.unwrap_or_default());
        }
    }
    text
}

fn percent(part: u64, total: u64) -> String {
    format!("{:.1} %", 100.0 * ratio(part, total))
}

/// Formats a quotient, or nothing if its denominator is 0.
fn quotient(numerator: u64, denominator: u64) -> String {
    if denominator == 0 {
        return String::new();
    }
    format!("{:.1}", ratio(numerator, denominator))
}

fn append_tasks(costs: &Costs, text: &mut String) {
    let ledger = &costs.ledger;
    if !ledger.on && ledger.busy_cycles == 0 {
        text.push_str("tasks: off: set ledger = true in [engine] and restart\n");
        return;
    }
    let (busy, total) = (ledger.busy_cycles, ledger.busy_cycles.saturating_add(ledger.idle_cycles));
    let head = ["task", "calls", "packets/call", "cycles/packet in", "share of busy"];
    let text_columns = 1;
    let mut table = Table::new(&head, text_columns);
    for task in ledger.tasks.iter().filter(|task| !task.is_idle() && task.cycles > 0) {
        table.add_row(vec![
            task.name.clone(),
            if task.calls == 0 { String::new() } else { grouped(task.calls) },
            if task.packets == 0 { String::new() } else { quotient(task.packets, task.calls) },
            quotient(task.cycles, costs.rx_packets),
            percent(task.cycles, busy),
        ]);
    }
    let all = quotient(busy, costs.rx_packets);
    table.add_row(vec!["all".into(), String::new(), String::new(), all, String::new()]);
    let busy_share = percent(busy, total);
    let _ = writeln!(text, "\n{}busy  {busy_share} of the workers' time", table.format());
}

fn append_stages(costs: &Costs, text: &mut String) {
    if costs.stages.is_empty() {
        return;
    }
    let head = ["path", "stage", "packets", "drops", "cycles/packet", "share of busy"];
    let text_columns = 2;
    let mut table = Table::new(&head, text_columns);
    for stage in &costs.stages {
        let Stage { packets, drops, cycles, .. } = *stage;
        table.add_row(vec![
            stage.path.clone(),
            if stage.place == "kernel" {
                format!("{} (in the kernel)", stage.name)
            } else {
                stage.name.clone()
            },
            grouped(packets),
            grouped(drops),
            if packets == 0 { String::new() } else { format!("{:.1}", stage.cycles_per_packet) },
            percent(cycles, costs.ledger.busy_cycles),
        ]);
    }
    let _ = write!(text, "\n{}", table.format());
}

fn append_kernel(ledger: &KernelLedger, text: &mut String) {
    let cost = ledger.cost_percent().map_or(String::new(), |cost| format!(", cost {cost:.2} %"));
    let _ = writeln!(text, "kernel's share: {}{cost}", ledger.method());
    let head = ["account", "function group", "samples", "cycles/packet in", "share"];
    let text_columns = 2;
    let mut table = Table::new(&head, text_columns);
    for account in &ledger.accounts {
        let groups =
            ledger.groups.iter().filter(|group| group.account.as_ref() == Some(&account.name));
        let rows = std::iter::once((account, account.name.clone(), String::new())).chain(
            groups
                .filter(|group| group.cycles > 0 || group.samples > 0)
                .map(|group| (group, String::new(), group.name.clone())),
        );
        for (row, account, group) in rows {
            let samples = if row.samples == 0 { String::new() } else { grouped(row.samples) };
            let cycles = format!("{:.1}", row.cycles_per_packet);
            let share = format!("{:.1} %", row.share_percent);
            table.add_row(vec![account, group, samples, cycles, share]);
        }
    }
    text.push_str(&table.format());
    let _ = writeln!(text, "\nsystem calls  {:.4} per packet in", ledger.syscalls_per_packet);
    for worker in &ledger.workers {
        text.push_str(&context_switches(
            worker.worker,
            (worker.voluntary_switches, worker.voluntary_switches_per_packet),
            (worker.involuntary_switches, worker.involuntary_switches_per_packet),
        ));
    }
    for program in &ledger.xdp_programs {
        let XdpProgram { port, interface, runs, cycles_per_run, .. } = program;
        text.push_str(&xdp_program(port, interface, *runs, *cycles_per_run));
    }
    if let Some(reason) = &ledger.xdp_unavailable {
        let _ = writeln!(text, "XDP programs  run time unavailable: {reason}");
    }
}
