//! Formats reports as text.

use std::fmt::Write;

use xdpfwd_engine::{Report, ReportKind, TableReport};

use crate::kernel_ledger_text::kernel_ledger;
use crate::text_table::{Table, align, grouped};

/// Formats packet rates and drops since the previous report (or the start) in a line, then faults.
pub(crate) fn interval(report: &Report, previous: Option<&Report>) -> String {
    let seconds =
        report.elapsed_seconds - previous.map_or(0.0, |previous| previous.elapsed_seconds);
    let mut line = format!("{:7.1} s", report.elapsed_seconds);
    let rate = |now: u64, before: u64| mpps(now.saturating_sub(before), seconds);
    for (index, port) in report.ports.iter().enumerate() {
        let before = previous.and_then(|previous| previous.ports.get(index));
        let received = rate(port.rx_packets, before.map_or(0, |before| before.rx_packets));
        let sent = rate(port.tx_packets, before.map_or(0, |before| before.tx_packets));
        // Writing to a `String` does not fail.
        let _ = write!(line, "   {} in {received:.3} out {sent:.3} Mpps", port.name);
    }
    let dropped = total_drops(report).saturating_sub(previous.map_or(0, total_drops));
    let lost = kernel_losses(report).saturating_sub(previous.map_or(0, kernel_losses));
    let _ =
        writeln!(line, "   dropped {}   lost in the kernel {}", grouped(dropped), grouped(lost));
    append_outages(report, &mut line);
    append_faults(&report.faults, &mut line);
    line
}

pub(crate) fn summary(report: &Report, program: &str, version: &str) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\n{program} {version}, after {:.1} s, {} worker(s):\n",
        report.elapsed_seconds, report.workers
    );
    let head = [
        "port",
        "interface",
        "mode",
        "in, packets",
        "in, bytes",
        "out, packets",
        "out, bytes",
        "left to the kernel",
    ];
    let text_columns = 3;
    let mut ports = Table::new(&head, text_columns);
    for port in &report.ports {
        ports.add_row(vec![
            port.name.clone(),
            port.interface.clone(),
            match port.mode.remark() {
                Some(remark) => format!("{} ({remark})", port.mode.name()),
                None => port.mode.name().into(),
            },
            grouped(port.rx_packets),
            grouped(port.rx_bytes),
            grouped(port.tx_packets),
            grouped(port.tx_bytes),
            grouped(port.xdp_kept + port.xdp_passed),
        ]);
    }
    text += &ports.format();
    if !report.stages.is_empty() {
        let head = ["path", "stage", "packets", "packets/batch", "drops", "cycles/packet"];
        let text_columns = 2;
        let mut stages = Table::new(&head, text_columns);
        for stage in &report.stages {
            stages.add_row(vec![
                stage.path.clone(),
                if stage.place == "kernel" {
                    format!("{} (in the kernel)", stage.name)
                } else {
                    stage.name.clone()
                },
                grouped(stage.packets),
                format!(
                    "{:.1}",
                    if stage.calls == 0 { 0.0 } else { stage.packets as f64 / stage.calls as f64 }
                ),
                grouped(stage.drops),
                format!("{:.1}", stage.cycles_per_packet),
            ]);
        }
        text.push('\n');
        text += &stages.format();
    }
    text += &counters(report);
    text += &tables(report);
    text += &ledger(report);
    text += &kernel_ledger(&report.kernel_ledger);
    text.push('\n');
    let mut losses: Vec<String> = (report.drops.iter())
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{reason} {}", grouped(*count)))
        .collect();
    for port in &report.ports {
        let drops = port.xdp_drops.iter().filter(|(_, count)| **count > 0);
        losses.extend(drops.map(|(reason, count)| {
            format!("{reason} {} in the kernel, from {}", grouped(*count), port.name)
        }));
    }
    let kernel = report.kernel;
    let kernel = [
        ("rx_ring_full", kernel.sockets.rx_ring_full),
        ("rx_dropped", kernel.sockets.rx_dropped),
        ("fill_ring_empty", kernel.sockets.fill_ring_empty),
        ("rx_invalid", kernel.sockets.rx_invalid),
        ("tx_invalid", kernel.sockets.tx_invalid),
        ("tx_dropped", kernel.tx_dropped),
        ("tx_lost", kernel.tx_lost),
        ("invalid_descriptors", kernel.invalid_descriptors),
    ];
    let kernel = kernel.into_iter().filter(|(_, count)| *count > 0);
    losses.extend(kernel.map(|(name, count)| format!("kernel.{name} {}", grouped(count))));
    let losses = if losses.is_empty() { "none".into() } else { losses.join(", ") };
    let _ = writeln!(text, "drops   {losses}");
    let frames = report.frames;
    let quarantined = match frames.quarantined {
        0 => String::new(),
        quarantined => format!(" + {} quarantined", grouped(quarantined)),
    };
    let _ = writeln!(
        text,
        "frames  {} = {} pool + {} fill + {} rx + {} in flight + {} tx + {} completion\
         {quarantined}; leaked {}",
        grouped(frames.total),
        grouped(frames.pool),
        grouped(frames.fill),
        grouped(frames.rx),
        grouped(frames.in_flight),
        grouped(frames.tx),
        grouped(frames.completion),
        frames.leaked
    );
    let packets: u64 = report.ports.iter().map(|port| port.tx_packets).sum();
    let per_packet =
        if packets == 0 { 0.0 } else { report.kernel.syscalls as f64 / packets as f64 };
    let _ = writeln!(
        text,
        "system calls  {}, {per_packet:.4} per packet sent",
        grouped(report.kernel.syscalls)
    );
    if report.kernel.tx_copied > 0 {
        let copied = grouped(report.kernel.tx_copied);
        let _ = writeln!(text, "copied before sending (io = \"xsk-rs\")  {copied} packets");
    }
    if let Some(fallback) = &report.fallback {
        let _ = writeln!(
            text,
            "no {}, because of {} ({}): {}",
            fallback.lacks, fallback.port, fallback.interface, fallback.reason
        );
    }
    append_outages(report, &mut text);
    append_faults(&report.faults, &mut text);
    text
}

/// Appends a line for each port that is down, or was down before the final report.
fn append_outages(report: &Report, text: &mut String) {
    for port in &report.ports {
        let (name, losses, seconds) = (&port.name, port.losses, port.down_seconds);
        let times = if losses == 1 { "once".to_owned() } else { format!("{losses} times") };
        match &port.down_reason {
            Some(reason) => {
                let _ = writeln!(text, "port {name} is down: {reason}");
            }
            None if losses > 0 && report.kind == ReportKind::Final => {
                let _ = writeln!(text, "port {name} was down {times}, for {seconds:.3} s in total");
            }
            None => {}
        }
    }
}

pub(crate) fn append_faults(faults: &[String], text: &mut String) {
    for fault in faults {
        let _ = writeln!(text, "fault: {fault}");
    }
}

fn counters(report: &Report) -> String {
    let mut text = String::new();
    for stage in report.stages.iter().filter(|stage| !stage.counters.is_empty()) {
        let counters: Vec<String> = stage
            .counters
            .iter()
            .map(|(name, count)| format!("{name} {}", grouped(*count)))
            .collect();
        let _ = writeln!(text, "{} {}  {}", stage.path, stage.name, counters.join(", "));
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// Maximum number of rows printed of each inspection table.
const MAX_ROWS: usize = 32;

/// Formats the stages' inspection tables, such as a filter's rules.
fn tables(report: &Report) -> String {
    let mut text = String::new();
    for TableReport { path, stage, table, rows_omitted, .. } in &report.tables {
        let path_suffix = path.as_ref().map_or(String::new(), |path| format!(" of {path}"));
        let head = table.columns.iter().map(|column| column.name.to_owned()).collect();
        let rows = table
            .rows
            .iter()
            .take(MAX_ROWS)
            .map(|row| row.iter().map(ToString::to_string).collect());
        let _ = writeln!(text, "\n{stage}{path_suffix}: {}", table.name);
        text += &columns(head, rows.collect());
        let hidden = rows_omitted + table.rows.len().saturating_sub(MAX_ROWS);
        if hidden > 0 {
            let _ = writeln!(
                text,
                "and {hidden} more rows: `{0} ctl inspect` shows all while {0} runs",
                crate::program::name()
            );
        }
    }
    text
}

pub(crate) fn columns(head: Vec<String>, rows: Vec<Vec<String>>) -> String {
    aligned(&[vec![head], rows].concat(), &mut Vec::new())
}

/// Aligns all columns left. `widths` contains the column widths of earlier rows of the table,
/// and is updated.
pub(crate) fn aligned(rows: &[Vec<String>], widths: &mut Vec<usize>) -> String {
    align(rows, usize::MAX, widths)
}

/// Formats the ledger: CPU cycles per received packet of each task and of all tasks together,
/// without the idle tasks `poll` and `wait`.
fn ledger(report: &Report) -> String {
    let ledger = &report.ledger;
    let packets: u64 = report.ports.iter().map(|port| port.rx_packets).sum();
    let (busy, idle) = (ledger.busy_cycles, ledger.idle_cycles);
    if packets == 0 || busy == 0 {
        return String::new();
    }
    let share = |part: u64, total: u64| format!("{:.1} %", 100.0 * part as f64 / total as f64);
    let per_packet = |cycles: u64| format!("{:.1}", cycles as f64 / packets as f64);
    let head = ["work", "calls", "packets/call", "cycles/packet in", "share"];
    let text_columns = 1;
    let mut table = Table::new(&head, text_columns);
    for task in
        ledger.tasks.iter().filter(|task| task.cycles > 0 && !matches!(task.name, "poll" | "wait"))
    {
        let packets_per_call =
            if task.packets > 0 { format!("{:.1}", task.packets_per_call) } else { String::new() };
        let calls = if task.calls > 0 { grouped(task.calls) } else { String::new() };
        let (cycles, share) = (per_packet(task.cycles), share(task.cycles, busy));
        table.add_row(vec![task.name.into(), calls, packets_per_call, cycles, share]);
    }
    table.add_row(vec![
        "all".into(),
        String::new(),
        String::new(),
        per_packet(busy),
        String::new(),
    ]);
    let busy_share = share(busy, busy + idle);
    format!("\n{}busy  {busy_share} of the workers' time, idle the rest\n", table.format())
}

fn mpps(packets: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { packets as f64 / seconds / 1e6 } else { 0.0 }
}

fn total_drops(report: &Report) -> u64 {
    report.drops.values().sum::<u64>()
        + report.ports.iter().map(|port| port.xdp_dropped).sum::<u64>()
}

/// Returns the number of packets that the kernel could not pass to a socket or could not send. Uses
/// the maximum of `rx_dropped` and `fill_ring_empty`, because in copy mode `rx_dropped` includes
/// `fill_ring_empty`.
fn kernel_losses(report: &Report) -> u64 {
    let sockets = report.kernel.sockets;
    sockets.rx_ring_full
        + sockets.rx_dropped.max(sockets.fill_ring_empty)
        + report.kernel.tx_dropped
}
