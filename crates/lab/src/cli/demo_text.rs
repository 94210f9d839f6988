//! The output of `demo`.

use serde_json::json;
use xdpfwd_lab::{
    Counters, ForwarderExit, LossBasis, PacketAccounting, PortReport, Report, SentTotals,
    SinkCounters, bits_per_second, grouped,
};

use super::{
    demo_cycles::cycles_line,
    options::TrafficArguments,
    screen::{bits, rate},
};

pub(super) struct Outcome {
    pub(super) sent: SentTotals,
    pub(super) seen: SinkCounters,
    pub(super) report: Report,
    /// The line from which `report` was parsed.
    pub(super) final_report_json: serde_json::Value,
    pub(super) accounting: PacketAccounting,
    pub(super) exit: ForwarderExit,
}

pub(super) fn as_json(traffic: &TrafficArguments, outcome: &Outcome) -> serde_json::Value {
    let Outcome { sent, seen, accounting, final_report_json, .. } = outcome;
    let pps = |packets: u64| if sent.seconds > 0.0 { packets as f64 / sent.seconds } else { 0.0 };
    let losses: Vec<_> = accounting
        .losses
        .iter()
        .map(|loss| {
            json!({
                "place": loss.location,
                "packets": loss.packets as i64,
                "known": loss.basis,
                "veth": loss.veth,
                "overload": loss.overload,
            })
        })
        .collect();
    let mismatches: Vec<_> = accounting
        .mismatches
        .iter()
        .map(|mismatch| json!({"what": mismatch.description, "packets": mismatch.packets as i64}))
        .collect();
    json!({
        "schema": 1,
        "type": "demo",
        "size": traffic.size.json(),
        "flows": traffic.flows,
        "rate": traffic.rate,
        "seconds": sent.seconds,
        "offered": {"packets": sent.packets, "bytes": sent.bytes, "pps": pps(sent.packets)},
        "forwarded": {
            "packets": seen.arrived.packets, "bytes": seen.arrived.bytes, "pps": pps(seen.arrived.packets),
        },
        "losses": losses,
        "gaps": mismatches,
        "leaked": accounting.leaked,
        "balance": accounting.is_balanced(),
        "good": accounting.is_good(),
        "verdict": accounting.verdict(traffic.rate),
        "xdpfwd": final_report_json,
    })
}

pub(super) fn as_text(traffic: &TrafficArguments, outcome: &Outcome) -> String {
    let Outcome { sent, seen, accounting, report, .. } = outcome;
    let offered = Counters { packets: sent.packets, bytes: sent.bytes };
    let mut text = format!(
        "xdpfwd in the lab: {}, {} flows, {}, {:.2} s\n\n",
        traffic.size,
        traffic.flows,
        traffic
            .rate
            .map_or("unlimited rate".into(), |pps| format!("{} requested", rate(pps as f64))),
        sent.seconds
    );
    text += &format!("{:<42}{:>14}{:>13}{:>17}{:>17}\n", "", "frames", "rate", "L2", "on the wire");
    for (name, counters) in
        [("offered", offered), ("forwarded (counted by the sink)", seen.arrived)]
    {
        let (l2, wire) = bits_per_second(counters, sent.seconds);
        let pps = if sent.seconds > 0.0 { counters.packets as f64 / sent.seconds } else { 0.0 };
        text += &format!(
            "{name:<42}{:>14}{:>13}{:>17}{:>17}\n",
            grouped(counters.packets),
            rate(pps),
            bits(l2),
            bits(wire)
        );
    }
    text += &format!(
        "{:<42}{:>14}{:>13}\n\n",
        "lost",
        grouped(accounting.lost()),
        percentage(accounting.lost().into(), accounting.offered)
    );
    text += &format!(
        "{:<42}{:>14}{:>13}   determined by\n",
        "location of the loss", "frames", "of offered"
    );
    for loss in &accounting.losses {
        let basis = match (loss.basis, loss.veth) {
            (LossBasis::Counted, _) => "its counter".into(),
            (LossBasis::Difference, Some(veth)) => {
                format!("counters on both sides (veth driver: {})", grouped(veth))
            }
            (LossBasis::Difference, None) => "counters on both sides".to_owned(),
        };
        text += &format!(
            "  {:<40}{:>14}{:>13}   {basis}\n",
            loss.location,
            grouped(loss.packets),
            percentage(loss.packets, accounting.offered)
        );
    }
    for mismatch in &accounting.mismatches {
        text += &format!("  UNEXPLAINED: {} {}\n", grouped(mismatch.packets), mismatch.description);
    }

    let mode = |port: &PortReport| {
        // As in xdpfwd's own text: this mode makes a copy that the others do not make.
        let remark = if port.mode == "packet-mmap" { " (+1 copy)" } else { "" };
        format!("{} on {}: {}{remark}", port.name, port.interface, or_unknown(&port.mode))
    };
    text += &format!(
        "\nmode              {}\n",
        report.ports.iter().map(mode).collect::<Vec<_>>().join(", ")
    );
    let received = report.received();
    if received > 0 {
        text += &format!(
            "system calls      {} = {:.4} per packet\n",
            grouped(report.kernel.syscalls),
            report.kernel.syscalls as f64 / received as f64
        );
    }
    text += &cycles_line(&report.kernel_ledger);
    for stage in &report.stages {
        let cycles = stage.cycles_per_packet.filter(|_| stage.packets > 0);
        text += &format!(
            "stage             {:<24}{:>10} cycles per packet, {:>5.1} packets per batch, \
             {} dropped\n",
            format!("{} {}", stage.path, stage.name),
            cycles.map_or("–".into(), |cycles| format!("{cycles:.1}")),
            if stage.calls > 0 { stage.packets as f64 / stage.calls as f64 } else { 0.0 },
            grouped(stage.drops)
        );
    }
    let frames = &report.frames;
    text += &format!(
        "buffers           {} = pool {} + fill {} + rx {} + in flight {} + tx {} + completion {}, \
         leaked {}\n\n",
        frames.total,
        frames.pool,
        frames.fill,
        frames.rx,
        frames.in_flight,
        frames.tx,
        frames.completion,
        accounting.leaked
    );
    text += &accounting.verdict(traffic.rate);
    text.push('\n');
    text
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "not reported" } else { text }
}

fn percentage(part: i128, total: u64) -> String {
    if total == 0 { "–".into() } else { format!("{:.2} %", 100.0 * part as f64 / total as f64) }
}
