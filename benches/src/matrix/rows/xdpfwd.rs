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
use xdpfwd_lab::{Chain, Forwarder, MIN_SIZE, Report, Traffic};
use xdpfwd_stages::esp::{key_file, state_file::StateFile};

use super::rule_set::rule_set;
use crate::{
    forwarders::{Environment, MissingReason, rejection},
    lab_config::LabConfig,
    lab_run::{last_report, sum},
    launch::{REPORT_INTERVAL, STOP_DEADLINE, start_xdpfwd, xdpfwd_command},
    matrix::{
        columns::{Column, Placement, SIGNATURES, Stage},
        rows::row::{ConfiguredPath, FinalCounts, MTU, Progress, Row, RunningPath},
    },
    obstacle::Obstacle,
    paths::{PATHS, PacketPath, Step},
};

/// Bytes of a signature.
const SIGNATURE_LENGTH: usize = 12;

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
    ) -> Result<Box<dyn ConfiguredPath>, Obstacle> {
        if let Some(reason) = self.path.unsupported_by_lab() {
            return Err(Obstacle::CannotExist(reason.into()));
        }
        let config = self.write_config(column, environment)?;
        if let Some(reason) = rejection(&environment.xdpfwd, &config)? {
            return Err(Obstacle::CannotExist(brief_reason(&reason)));
        }
        let xdpfwd = environment.xdpfwd.clone();
        Ok(Box::new(PreparedXdpfwd { xdpfwd, config, column }))
    }
}

/// The last stage of all columns: testpmd and the XDP programs change MAC addresses, too.
pub(crate) const MAC_SWAP: &str = "swap";
const MAC_SWAP_STAGE: &str = "[stage.swap]\nkind = \"mac-swap\"\n";

const PACKET_REMARK: &str = "The kernel also processes every packet.";

impl XdpfwdRow {
    fn write_config(&self, column: &Column, environment: &Environment) -> Result<PathBuf> {
        let stages = column
            .stages
            .iter()
            .map(|&wanted| stage(wanted, esp_files(name(self.path), column.name), environment));
        // Only the first stage of a path can run in the kernel.
        let stages = stages.chain([Ok((MAC_SWAP, MAC_SWAP_STAGE.to_owned()))]);
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
        Stage::Filter { rules, placement } => {
            let rules = rule_set(environment, rules)?;
            let placement = if placement == Placement::Kernel { "kernel" } else { "user" };
            ("fw", rules.stage(placement, rules.verdict_for_passing(), "accept"))
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

/// Writes the signatures.
fn signatures(environment: &Environment) -> Result<PathBuf> {
    let file = environment.scratch.join("matrix.signatures");
    let text = signature_lines();
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

/// Returns the signatures, none of which matches a payload of the generator. Nine in ten are words
/// of letters. Of the others, the first 1 to 11 bytes occur in the payload's fixed pattern, so that
/// a search also follows partial matches. If all did, nearly every byte would read another part of
/// the automaton.
fn signature_lines() -> String {
    let pattern = &Traffic::new().size(1514).frame(0, 0).bytes()[usize::from(MIN_SIZE)..];
    let mut random = Random::new(1);
    let mut text = String::new();
    for number in 0..SIGNATURES {
        let mut bytes: Vec<u8> =
            (0..SIGNATURE_LENGTH).map(|_| b'a' + random.below(26) as u8).collect();
        if number % 10 == 0 {
            let start = random.below(pattern.len() - SIGNATURE_LENGTH);
            let length = 1 + number / 10 % (SIGNATURE_LENGTH - 1);
            bytes[..length].copy_from_slice(&pattern[start..start + length]);
            bytes[length] = !pattern[start + length];
        }
        let digits = bytes.iter().fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"));
        let _ = writeln!(text, "drop hex \"{digits}\"");
    }
    text
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

impl ConfiguredPath for PreparedXdpfwd {
    fn commands(&self) -> String {
        self.command().join(" ")
    }

    fn encapsulates(&self) -> bool {
        self.column.transform().is_some()
    }

    fn start(&self, chain: &Chain) -> Result<Box<dyn RunningPath>> {
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

impl RunningPath for RunningXdpfwd {
    fn pid(&self) -> Option<u32> {
        Some(self.forwarder.pid())
    }

    fn check(&mut self) -> Result<()> {
        Ok(self.forwarder.check_running()?)
    }

    fn progress(&self) -> Result<Option<Progress>> {
        Ok(Some(progress(&last_report(&self.forwarder, "interval")?)))
    }

    fn stop(mut self: Box<Self>, _chain: &Chain) -> Result<FinalCounts> {
        self.forwarder.stop(STOP_DEADLINE)?;
        let report: Report = serde_json::from_value(last_report(&self.forwarder, "final")?)?;
        let transmitted = report.port("fwd1").map(|port| port.tx_packets);
        Ok(FinalCounts { transmitted, report: Some(report) })
    }
}

fn progress(report: &Value) -> Progress {
    let number = |number: Option<f64>| number.unwrap_or(0.0);
    Progress {
        transmitted: number(sum(&report["ports"], |port| port["tx_packets"].as_f64())),
        syscalls: number(report["kernel"]["syscalls"].as_f64()),
        stage_cycles: number(sum(&report["stages"], |stage| {
            if stage["name"] == MAC_SWAP {
                return Some(0.0);
            }
            Some(stage["packets"].as_f64()? * stage["cycles_per_packet"].as_f64()?)
        })),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use xdpfwd_filter::{Addresses, Key, L4, Scanner, parse_signature};

    use super::*;

    #[test]
    fn progress_adds_up_ports_and_stages_of_the_column() {
        let report = json!({
            "ports": [{"tx_packets": 0}, {"tx_packets": 50}],
            "kernel": {"syscalls": 7},
            "stages": [
                {"name": "fw", "packets": 50, "cycles_per_packet": 20.0},
                {"name": "seal", "packets": 50, "cycles_per_packet": 100.0},
                {"name": "memcpy", "packets": 0, "cycles_per_packet": null},
                {"name": "swap", "packets": 50, "cycles_per_packet": 7.0},
            ],
        });
        let expected = Progress { transmitted: 50.0, syscalls: 7.0, stage_cycles: 6000.0 };
        assert_eq!(progress(&report), expected);
    }

    #[test]
    fn signatures_match_no_payload_but_some_begin_like_it() {
        let signatures: Vec<_> = (signature_lines().lines())
            .map(|line| parse_signature(line).unwrap().unwrap())
            .collect();
        assert_eq!(signatures.len(), SIGNATURES);
        let frame = Traffic::new().size(1514).frame(0, 0).bytes();
        // The UDP payload.
        let payload = &frame[42..];
        let scanner = Scanner::new(&signatures, 1).unwrap();
        let addresses = Addresses::V4 { source: 1, destination: 2 };
        let key = Key::new(addresses, 17, L4::Ports { source: 3, destination: 4 });
        assert_eq!(scanner.scan(&key, payload, &mut scanner.hits()).count(), 0);
        let begins = |length: usize| {
            let is_in_payload = |bytes: &[u8]| payload.windows(length).any(|part| part == bytes);
            signatures.iter().filter(|signature| is_in_payload(&signature.bytes[..length])).count()
        };
        // Of 100 signatures, 1 to 11 bytes, and of 54, at least 6.
        let begins = [6, SIGNATURE_LENGTH].map(begins);
        assert!((50..60).contains(&begins[0]) && begins[1] == 0, "{begins:?}");
    }

    #[test]
    fn brief_reason_has_no_position_and_no_advice() {
        assert_eq!(brief_reason(":9:6: io = \"x\": unknown; use y"), "io = \"x\": unknown");
        assert_eq!(brief_reason("error: no such file"), "no such file");
        let error = ":15:8: stage \"fw\": port lan has io = \"packet\", which uses no XDP program";
        assert_eq!(brief_reason(error), "packet sockets have no XDP program");
    }
}
