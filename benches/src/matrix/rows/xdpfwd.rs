//! The packet paths of xdpfwd.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;
use xdpfwd_bench::{classbench::Random, results};
use xdpfwd_ipsec::Transform;
use xdpfwd_lab::{Chain, Forwarder, Report};
use xdpfwd_stages::esp::{key_file, state_file::StateFile};

use super::rule_set::rule_set;
use crate::{
    forwarders::{Environment, MissingReason, check_config},
    lab_config::LabConfig,
    lab_run::{last_report, sum},
    launch::{REPORT_INTERVAL, STOP_DEADLINE, start_xdpfwd, xdpfwd_command},
    matrix::{
        columns::{Column, Place, SIGNATURES, Stage},
        rows::row::{MTU, Prepared, Progress, Row, Running, Stopped},
    },
    paths::{PATHS, PacketPath, Step},
};

struct XdpfwdRow {
    path: &'static PacketPath,
}

pub(super) fn rows() -> Vec<Box<dyn Row>> {
    PATHS.iter().map(|path| Box::new(XdpfwdRow { path }) as Box<dyn Row>).collect()
}

/// Returns the name of a path in the matrix.
pub(crate) fn name(path: &PacketPath) -> &'static str {
    match path.name {
        "zero-copy" => "af_xdp-zero-copy",
        name => name,
    }
}

/// Returns the row of a path in the format of results.
pub(crate) fn describe(path: &PacketPath) -> results::Row {
    let (title, remark) = match path.name {
        "packet" => ("packet sockets, recv/send", PACKET_REMARK),
        "packet-mmsg" => ("packet sockets, recvmmsg/sendmmsg", PACKET_REMARK),
        "packet-mmap" => ("packet sockets, PACKET_MMAP", PACKET_REMARK),
        "af_xdp-skb" => ("AF_XDP, skb mode", ""),
        "af_xdp-copy" => ("AF_XDP, copy mode", ""),
        "xsk-rs" => ("AF_XDP through xsk-rs, copy mode", ""),
        "zero-copy" => ("AF_XDP, zero-copy mode", ""),
        name => (name, ""),
    };
    let copies = path.copies.iter().filter(|copy| copy.step != Step::FarEnd);
    results::Row {
        name: name(path).into(),
        title: title.into(),
        place: "user".into(),
        remark: remark.into(),
        copies: copies.map(|copy| copy.function.to_owned()).collect(),
    }
}

impl Row for XdpfwdRow {
    fn describe(&self) -> results::Row {
        describe(self.path)
    }

    fn prepare(
        &self,
        column: &'static Column,
        environment: &Environment,
    ) -> Result<Box<dyn Prepared>, MissingReason> {
        if let Some(reason) = self.path.unsupported_by_lab() {
            return Err(reason.into());
        }
        let config =
            self.write_config(column, environment).map_err(|error| format!("{error:#}"))?;
        check_config(&environment.xdpfwd, &config).map_err(|reason| brief_reason(&reason))?;
        let xdpfwd = environment.xdpfwd.clone();
        Ok(Box::new(PreparedXdpfwd { xdpfwd, config, column }))
    }
}

const PACKET_REMARK: &str = "The kernel also processes every packet.";

impl XdpfwdRow {
    fn write_config(&self, column: &Column, environment: &Environment) -> Result<PathBuf> {
        let stages = column
            .stages
            .iter()
            .map(|&wanted| stage(wanted, esp_files(name(self.path), column.name), environment));
        let (names, tables): (Vec<_>, Vec<_>) =
            stages.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let file = format!("matrix-{}-{}.toml", name(self.path), column.name);
        self.path.with_config(environment.core, "", |lab| {
            LabConfig { stages: &names, tables: &tables.join("\n"), ..lab }
                .write(&environment.scratch, &file)
        })
    }
}

/// Returns the name and the configuration of a stage. `files` are the names of the key file and the
/// state file of ESP, which are created in the scratch folder.
pub(crate) fn stage(
    stage: Stage,
    files: [String; 2],
    environment: &Environment,
) -> Result<(&'static str, String)> {
    Ok(match stage {
        Stage::Filter { rules, place } => {
            let rules = rule_set(environment, rules)?;
            let place = if place == Place::Kernel { "kernel" } else { "user" };
            ("fw", rules.stage(place, rules.verdict_for_passing(), "accept"))
        }
        Stage::Signatures => {
            let file = signatures(environment)?.display().to_string();
            let stage = "[stage.signatures]\nkind = \"payload\"\n";
            ("signatures", format!("{stage}signatures = {file:?}\n"))
        }
        Stage::Seal(transform) => {
            // `--check` reads the files.
            create_esp_files(&environment.scratch, &files, transform)?;
            let [key, state] = files;
            let stage = format!(
                "[stage.seal]\nkind = \"esp-seal\"\nlab = true\nmtu = {MTU}\n\
                 state_file = \"{state}\"\n\n[[stage.seal.sa]]\nspi = 4097\n\
                 transform = \"{transform}\"\nkey_file = \"{key}\"\n\
                 source = \"192.0.2.1\"\ndestination = \"192.0.2.2\"\n"
            );
            ("seal", stage)
        }
        Stage::Memcpy => ("memcpy", "[stage.memcpy]\nkind = \"memcpy\"\ncopies = 1\n".to_owned()),
    })
}

/// Shortens an error of xdpfwd: its first sentence, without its position in the file.
pub(crate) fn brief_reason(error: &str) -> MissingReason {
    if error.contains("which uses no XDP program") {
        return "packet sockets have no XDP program".into();
    }
    let error = error.trim_start_matches(|c: char| c == ':' || c.is_ascii_digit()).trim();
    let error = error.strip_prefix("error: ").unwrap_or(error);
    error.split(';').next().unwrap_or(error).to_owned()
}

/// Returns the names of key file and state file.
fn esp_files(row: &str, column: &str) -> [String; 2] {
    ["key", "state"].map(|kind| format!("matrix-{row}-{column}.{kind}"))
}

/// Creates a key and a state file, in place of older ones: the sequence numbers of a key end.
fn create_esp_files(scratch: &Path, names: &[String; 2], transform: &str) -> Result<()> {
    let [key, state] = names.each_ref().map(|name| scratch.join(name));
    for old in [&key, &state] {
        match fs::remove_file(old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", old.display()));
            }
            _ => {}
        }
    }
    let found = Transform::ALL.into_iter().find(|found| found.name() == transform);
    key_file::create(&key, found.with_context(|| format!("unknown transform {transform:?}"))?)?;
    StateFile::create(&state)?;
    Ok(())
}

/// Writes the signatures: words of twelve letters, which the generator's payload does not contain.
fn signatures(environment: &Environment) -> Result<PathBuf> {
    let file = environment.scratch.join("matrix.signatures");
    let mut random = Random::new(1);
    let mut text = String::new();
    for _ in 0..SIGNATURES {
        let word: String = (0..12).map(|_| char::from(b'a' + (random.below(26) as u8))).collect();
        let _ = writeln!(text, "drop text \"{word}\"");
    }
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

struct PreparedXdpfwd {
    xdpfwd: PathBuf,
    config: PathBuf,
    column: &'static Column,
}

impl PreparedXdpfwd {
    fn command(&self) -> Vec<String> {
        xdpfwd_command(&self.xdpfwd, &self.config, REPORT_INTERVAL)
    }
}

impl Prepared for PreparedXdpfwd {
    fn commands(&self) -> String {
        self.command().join(" ")
    }

    fn encapsulates(&self) -> bool {
        self.column.transform().is_some()
    }

    fn start(&self, chain: &Chain) -> Result<Box<dyn Running>> {
        if let Some(transform) = self.column.transform() {
            let [folder, stem] = [self.config.parent(), self.config.file_stem().map(Path::new)];
            let stem = stem.context("no file name")?.display();
            let names = ["key", "state"].map(|kind| format!("{stem}.{kind}"));
            create_esp_files(folder.context("no folder")?, &names, transform)?;
        }
        let forwarder = start_xdpfwd(chain, &self.xdpfwd, &self.config, REPORT_INTERVAL)?;
        Ok(Box::new(RunningXdpfwd { forwarder }))
    }
}

struct RunningXdpfwd {
    forwarder: Forwarder,
}

impl Running for RunningXdpfwd {
    fn pid(&self) -> Option<u32> {
        Some(self.forwarder.pid())
    }

    fn check(&mut self) -> Result<()> {
        Ok(self.forwarder.check_running()?)
    }

    fn progress(&self) -> Result<Option<Progress>> {
        Ok(Some(progress(&last_report(&self.forwarder, "interval")?)))
    }

    fn stop(mut self: Box<Self>, _chain: &Chain) -> Result<Stopped> {
        self.forwarder.stop(STOP_DEADLINE)?;
        let report: Report = serde_json::from_value(last_report(&self.forwarder, "final")?)?;
        let transmitted = report.port("fwd1").map(|port| port.tx_packets);
        Ok(Stopped { transmitted, report: Some(report) })
    }
}

fn progress(report: &Value) -> Progress {
    let number = |number: Option<f64>| number.unwrap_or(0.0);
    Progress {
        transmitted: number(sum(&report["ports"], |port| port["tx_packets"].as_f64())),
        syscalls: number(report["kernel"]["syscalls"].as_f64()),
        stage_cycles: number(sum(&report["stages"], |stage| {
            Some(stage["packets"].as_f64()? * stage["cycles_per_packet"].as_f64()?)
        })),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn progress_adds_up_ports_and_stages() {
        let report = json!({
            "ports": [{"tx_packets": 0}, {"tx_packets": 50}],
            "kernel": {"syscalls": 7},
            "stages": [
                {"packets": 50, "cycles_per_packet": 20.0},
                {"packets": 50, "cycles_per_packet": 100.0},
                {"packets": 0, "cycles_per_packet": null},
            ],
        });
        let expected = Progress { transmitted: 50.0, syscalls: 7.0, stage_cycles: 6000.0 };
        assert_eq!(progress(&report), expected);
    }

    #[test]
    fn brief_reason_has_no_position_and_no_advice() {
        assert_eq!(brief_reason(":9:6: io = \"x\": unknown; use y"), "io = \"x\": unknown");
        assert_eq!(brief_reason("error: no such file"), "no such file");
        let error = ":15:8: stage \"fw\": port lan has io = \"packet\", which uses no XDP program";
        assert_eq!(brief_reason(error), "packet sockets have no XDP program");
    }
}
