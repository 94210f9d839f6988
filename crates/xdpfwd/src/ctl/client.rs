//! The client side of `ctl`.

use std::fmt::{self, Write as _};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use super::{Command, Request, default_socket};
use crate::app::App;
use crate::cli::{Ctl, USAGE};
use crate::program;

/// The server's limit is shorter, so that the client receives the server's error about a timeout.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(40);

/// Exit status: the user lacks permission.
const PRIVILEGE: u8 = 3;

#[derive(Debug)]
struct Denied(String);

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Denied {}

pub(crate) fn run(cli: &Ctl, app: &App) -> ExitCode {
    if super::command::is_builtin(&cli.command) && !cli.arguments.is_empty() {
        program::print_error(anyhow!("`ctl {}` takes no arguments", cli.command).as_ref());
        return ExitCode::from(USAGE);
    }
    match query(cli, app) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            program::print_error(error.as_ref());
            ExitCode::from(if error.is::<Denied>() { PRIVILEGE } else { 1 })
        }
    }
}

fn query(cli: &Ctl, app: &App) -> Result<()> {
    let path = &cli.socket;
    let connected = UnixStream::connect(path);
    if connected.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
        return Err(Denied(format!(
            "cannot connect to {}: only root and the user of the running {} may use this socket",
            path.display(),
            app.name
        ))
        .into());
    }
    let stream = connected.map_err(|error| {
        let is_default = *path == std::path::Path::new(&default_socket(app.name));
        let hint = if is_default { "" } else { ", or pass another --socket" };
        let path = path.display().to_string();
        anyhow!(
            "no {} listens on {path}: {error}; start it with [engine] control = {path:?}{hint}",
            app.name
        )
    })?;
    stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
    let request = Request { command: cli.command.clone(), arguments: cli.arguments.clone() };
    let request = serde_json::to_string(&request)? + "\n";
    // If the write fails, the server's response may state why.
    let sent = (&stream).write_all(request.as_bytes());
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).context("cannot read the response")?;
    if line.is_empty() {
        sent.context("cannot send the request")?;
    }
    if line.is_empty() {
        bail!("{} closed the connection without a response", app.name);
    }
    let answer: Value = serde_json::from_str(&line).context("the response is not JSON")?;
    if let Some(error) = answer["error"].as_str() {
        if answer["denied"] == true {
            return Err(Denied(error.to_owned()).into());
        }
        let mut text = error.to_owned();
        for problem in answer["problems"].as_array().into_iter().flatten().filter_map(Value::as_str)
        {
            let _ = write!(text, "\n{problem}");
        }
        bail!(text);
    }
    let text = match Command::named(&cli.command) {
        _ if cli.json => line,
        Some(command) => text(command, &answer),
        None => custom_answer(&answer["answer"]),
    };
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

fn append_sas(sas: &[Value], text: &mut String) {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
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
            endpoints.push(format!("UDP port {}", ports.join(" to ")));
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
            .map(|(reason, count)| format!("{count} as {reason}"))
            .collect();
        if !drops.is_empty() {
            let _ = writeln!(text, "    dropped: {}", drops.join(", "));
        }
        if let Some(fault) = sa["fault"].as_str() {
            let _ = writeln!(text, "    fault: {fault}");
        }
    }
}

fn append_faults(answer: &Value, text: &mut String) {
    let faults = answer["faults"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for fault in faults {
        let _ = writeln!(text, "fault: {fault}");
    }
}

/// Appends a warning if some workers did not answer.
fn append_missing_workers(answer: &Value, text: &mut String) {
    if answer["answered"] != answer["workers"] {
        let _ = writeln!(
            text,
            "{} of {} workers answered; the counters of the others are missing",
            answer["answered"], answer["workers"]
        );
    }
}

fn append_tables(answer: &Value, text: &mut String) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().map_or_else(|| cell(value), ToOwned::to_owned);
    append_missing_workers(answer, text);
    let tables = list(&answer["tables"]);
    if tables.is_empty() {
        let _ = writeln!(text, "no stage has tables");
    }
    for table in tables {
        let path_suffix =
            table["path"].as_str().map_or(String::new(), |path| format!(" of {path}"));
        let _ = writeln!(text, "{}{path_suffix}: {}", word(&table["stage"]), word(&table["name"]));
        text.push_str(&columns_and_rows(&table));
    }
}

/// Formats an inspection table without its name.
fn columns_and_rows(table: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let columns = list(&table["columns"]);
    let head = columns.iter().map(|column| match column["unit"].as_str() {
        Some(unit) if column["name"] != unit => format!("{} ({unit})", cell(&column["name"])),
        _ => cell(&column["name"]),
    });
    let rows =
        list(&table["rows"]).iter().map(|row| list(row).iter().map(cell).collect()).collect();
    crate::text::columns(head.collect(), rows)
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(value) => if *value { "yes" } else { "no" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(cells) if cells.is_empty() => "-".to_owned(),
        Value::Array(cells) => cells.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(map) if map.is_empty() => "-".to_owned(),
        Value::Object(map) => map
            .iter()
            .map(|(name, number)| format!("{name} {number}"))
            .collect::<Vec<_>>()
            .join(", "),
        number => number.to_string(),
    }
}

fn custom_answer(answer: &Value) -> String {
    match answer {
        Value::Null => String::new(),
        Value::String(text) => text.trim_end().to_owned() + "\n",
        Value::Array(rows) if rows.iter().all(Value::is_object) && !rows.is_empty() => {
            let names: Vec<&String> =
                rows[0].as_object().into_iter().flat_map(|row| row.keys()).collect();
            let row = |row: &Value| names.iter().map(|name| cell(&row[name.as_str()])).collect();
            crate::text::columns(
                names.iter().map(ToString::to_string).collect(),
                rows.iter().map(row).collect(),
            )
        }
        table if table["columns"].is_array() && table["rows"].is_array() => columns_and_rows(table),
        other => serde_json::to_string_pretty(other).unwrap_or_default() + "\n",
    }
}

fn text(command: Command, answer: &Value) -> String {
    let mut text = String::new();
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
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
                    "port {}: {}, {} queue(s), {}",
                    word(&port["name"]),
                    word(&port["interface"]),
                    port["queues"],
                    word(&port["mode"])
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
            // Each kind of loss; the interval report prints only their sum.
            let kernel = &answer["kernel"];
            let lost = ["rx_ring_full", "fill_ring_empty", "rx_dropped", "tx_dropped"];
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
                let _ = writeln!(text, "dropped as {reason}: {count}");
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
        Command::Inspect => append_tables(answer, &mut text),
        Command::Rules => {
            if list(&answer["filters"]).is_empty() {
                let _ = writeln!(text, "no stage has rules");
            }
            append_missing_workers(answer, &mut text);
            for filter in list(&answer["filters"]) {
                let _ = writeln!(
                    text,
                    "{} of {}{}",
                    word(&filter["stage"]),
                    word(&filter["path"]),
                    placement(&filter)
                );
                for rule in list(&filter["rules"]) {
                    let _ = writeln!(
                        text,
                        "{:>6}  {:>12}  {}",
                        number(&rule["rule"]),
                        number(&rule["packets"]),
                        word(&rule["text"])
                    );
                }
                let _ = writeln!(text, "{:>6}  {:>12}  (default)", "", number(&filter["default"]));
                for exception in list(&filter["exceptions"]) {
                    for verdict in ["accepted", "dropped"] {
                        let packets = &exception[verdict];
                        if packets != 0 {
                            let (packets, name) = (number(packets), word(&exception["exception"]));
                            let _ = writeln!(text, "{:>6}  {packets:>12}  ({name}, {verdict})", "");
                        }
                    }
                }
            }
        }
    }
    text
}
