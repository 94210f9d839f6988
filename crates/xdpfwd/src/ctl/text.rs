//! Formats the answers of `ctl` as text.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Command, escape};

/// Formats a string without quotes, and other values as JSON.
pub(super) fn word(value: &Value) -> String {
    escape::line(&value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
}

/// Returns the names of the columns, each with its unit, if any, in parentheses.
pub(super) fn column_names(columns: &Value) -> Vec<String> {
    let columns = columns.as_array().into_iter().flatten();
    let name = |column: &Value| match column["unit"].as_str() {
        Some(unit) if column["name"] != unit => {
            format!("{} ({})", cell(&column["name"]), escape::line(unit))
        }
        _ => cell(&column["name"]),
    };
    columns.map(name).collect()
}

fn append_sas(sas: &[Value], text: &mut String) {
    let limit = |sa: &Value, key: &str| match &sa[key] {
        Value::Null => "no limit".to_owned(),
        limit => format!("of {limit}"),
    };
    if sas.is_empty() {
        let _ = writeln!(text, "no stage has security associations");
    }
    for sa in sas {
        let esn = if sa["esn"] == true { ", ESN" } else { "" };
        let _ = writeln!(
            text,
            "{} {} {:#x}: {}{esn}, {}, key {}, backend {}",
            word(&sa["stage"]),
            word(&sa["direction"]),
            sa["spi"].as_u64().unwrap_or_default(),
            word(&sa["transform"]),
            word(&sa["mode"]),
            word(&sa["fingerprint"]),
            word(&sa["backend"])
        );
        let addresses = [("from", &sa["source"]), ("to", &sa["destination"])];
        let mut endpoints: Vec<String> = addresses
            .iter()
            .filter(|(_, address)| !address.is_null())
            .map(|(preposition, address)| format!("{preposition} {}", word(address)))
            .collect();
        let ports: Vec<String> =
            sa["udp_ports"].as_array().into_iter().flatten().map(ToString::to_string).collect();
        if !ports.is_empty() {
            endpoints.push(format!("UDP port {}", ports.join(" to port ")));
        }
        if !sa["queue"].is_null() {
            endpoints.push(format!("queue {}, window {}", sa["queue"], sa["window"]));
        }
        if !endpoints.is_empty() {
            let _ = writeln!(text, "    {}", endpoints.join(", "));
        }
        let _ = writeln!(
            text,
            "    sequence number {}; {} packets ({}), {} bytes ({})",
            sa["sequence"],
            sa["packets"],
            limit(sa, "hard_packets"),
            sa["bytes"],
            limit(sa, "hard_bytes")
        );
        let drops: Vec<String> = sa["drops"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(reason, count)| format!("{count} as {}", escape::line(reason)))
            .collect();
        if !drops.is_empty() {
            let _ = writeln!(text, "    dropped: {}", drops.join(", "));
        }
        if sa["fault"].is_string() {
            let _ = writeln!(text, "    fault: {}", word(&sa["fault"]));
        }
    }
}

fn append_faults(answer: &Value, text: &mut String) {
    for fault in answer["faults"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "fault: {}", word(fault));
    }
}

/// Formats an inspection table without its name.
fn columns_and_rows(table: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let rows =
        list(&table["rows"]).iter().map(|row| list(row).iter().map(cell).collect()).collect();
    crate::text::columns(column_names(&table["columns"]), rows)
}

pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(value) => if *value { "yes" } else { "no" }.to_owned(),
        Value::String(text) => escape::line(text),
        Value::Array(cells) if cells.is_empty() => "-".to_owned(),
        Value::Array(cells) => cells.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(map) if map.is_empty() => "-".to_owned(),
        Value::Object(map) => map
            .iter()
            .map(|(name, number)| format!("{} {number}", escape::line(name)))
            .collect::<Vec<_>>()
            .join(", "),
        number => number.to_string(),
    }
}

/// Formats the answer to a `ctl` command that a program based on `xdpfwd::App` has added.
pub(super) fn custom_answer(answer: &Value) -> String {
    match answer {
        Value::Null => String::new(),
        Value::String(text) => escape::text(text.trim_end()) + "\n",
        Value::Array(rows) if rows.iter().all(Value::is_object) && !rows.is_empty() => {
            let names: Vec<&String> =
                rows[0].as_object().into_iter().flat_map(|row| row.keys()).collect();
            let row = |row: &Value| names.iter().map(|name| cell(&row[name.as_str()])).collect();
            crate::text::columns(
                names.iter().map(|name| escape::line(name)).collect(),
                rows.iter().map(row).collect(),
            )
        }
        table if table["columns"].is_array() && table["rows"].is_array() => columns_and_rows(table),
        other => escape::text(&serde_json::to_string_pretty(other).unwrap_or_default()) + "\n",
    }
}

pub(super) fn answer(command: Command, answer: &Value) -> String {
    let mut text = String::new();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let placement = |stage: &Value| if stage["place"] == "kernel" { ", in the kernel" } else { "" };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    match command {
        Command::Status => {
            let _ = writeln!(
                text,
                "{} {}, pid {}, {} worker(s), running for {} s, configuration {}",
                word(&answer["program"]),
                word(&answer["version"]),
                answer["pid"],
                answer["workers"],
                answer["elapsed_seconds"],
                word(&answer["config"])
            );
            for port in list(&answer["ports"]) {
                let _ = writeln!(
                    text,
                    "port {}: {}, {} queue(s), {}{}",
                    word(&port["name"]),
                    word(&port["interface"]),
                    port["queues"],
                    word(&port["mode"]),
                    match &port["down_reason"] {
                        Value::Null => String::new(),
                        reason => format!(", down: {}", word(reason)),
                    }
                );
            }
            for path in list(&answer["paths"]) {
                let stages: Vec<_> = list(&path["stages"])
                    .iter()
                    .map(|stage| match word(&stage["summary"]) + placement(stage) {
                        empty if empty.is_empty() => word(&stage["name"]),
                        summary => format!("{} ({summary})", word(&stage["name"])),
                    })
                    .collect();
                let stages =
                    if stages.is_empty() { "no stages".to_owned() } else { stages.join(", ") };
                let _ = writeln!(text, "path {}: {stages}", word(&path["path"]));
            }
            append_faults(answer, &mut text);
        }
        Command::Stats => {
            for port in list(&answer["ports"]) {
                let _ = writeln!(
                    text,
                    "port {}: {} packets in, {} out, {} dropped by a filter in the kernel",
                    word(&port["name"]),
                    port["rx_packets"],
                    port["tx_packets"],
                    port["xdp_dropped"]
                );
            }
            // Print each kind of loss. The interval report prints only the sum of all kinds.
            let kernel = &answer["kernel"];
            let lost = ["rx_ring_full", "fill_ring_empty", "rx_dropped", "tx_dropped", "tx_lost"];
            for name in lost.into_iter().filter(|name| number(&kernel[*name]) > 0) {
                let _ = writeln!(text, "lost in the kernel as {name}: {}", kernel[name]);
            }
            for stage in list(&answer["stages"]) {
                let _ = writeln!(
                    text,
                    "stage {} of {}: {} packets, {} dropped, {} cycles each",
                    word(&stage["name"]),
                    word(&stage["path"]),
                    stage["packets"],
                    stage["drops"],
                    stage["cycles_per_packet"]
                );
            }
            for (reason, count) in
                answer["drops"].as_object().into_iter().flatten().filter(|(_, count)| **count != 0)
            {
                let _ = writeln!(text, "dropped as {}: {count}", escape::line(reason));
            }
            append_faults(answer, &mut text);
        }
        Command::Reload => {
            let _ = writeln!(text, "reloaded");
            for warning in list(&answer["warnings"]) {
                let _ = writeln!(text, "{}", word(&warning));
            }
        }
        Command::Sa => append_sas(&list(&answer["sas"]), &mut text),
        // The module `listing` prints rules and tables while they arrive, and `ledger` the ledger.
        Command::Inspect | Command::Rules | Command::Ledger => {}
    }
    text
}
