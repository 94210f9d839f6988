//! Runs `xdpfwd doctor`, and applies the fixes of its findings.

use std::process::Command;

use serde_json::Value;
use xdpfwd_lab::Namespace;
use xdpfwd_testkit::process::run;

use super::{Config, XDPFWD, stderr};

/// Kernel parameters that isolate core 1. vm_doctor.rs checks that doctor prints them; the VM that
/// runs vm_isolated.rs boots with them.
pub const CORE_1_ISOLATION: &str = "isolcpus=1 nohz_full=1 rcu_nocbs=1";

/// The findings and the exit code of one run of `xdpfwd doctor`.
pub struct Examination {
    pub json: Value,
    pub exit_code: i32,
}

impl Examination {
    /// Runs a command that executes `doctor --json`.
    pub fn from_command(mut command: Command) -> Self {
        let output = command.output().unwrap();
        assert!(output.stderr.is_empty(), "{}", stderr(&output));
        let json = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let examination = Self { json, exit_code: output.status.code().unwrap() };
        examination.assert_guarantees();
        examination
    }

    pub fn run(namespace: &Namespace, arguments: &[&str]) -> Self {
        let mut command = namespace.command(XDPFWD);
        command.args(["doctor", "--json"]).args(arguments);
        Self::from_command(command)
    }

    pub fn run_with_config(namespace: &Namespace, text: &str) -> Self {
        let config = Config::new(text);
        Self::run(namespace, &["--config", config.path()])
    }

    /// Checks what docs/doctor.md guarantees about levels, fixes and exit codes.
    pub fn assert_guarantees(&self) {
        let json = &self.json;
        assert_eq!((&json["schema"], &json["type"]), (&1.into(), &"doctor".into()));
        let mut worst_severity = 0;
        for finding in json["findings"].as_array().unwrap() {
            let severity = ["ok", "unknown", "warning", "error"]
                .iter()
                .position(|level| finding["level"] == *level)
                .unwrap();
            // Warnings and errors have a fix, `ok` findings none, unknown findings may have one.
            assert!(severity == 1 || finding["fix"].is_null() == (severity == 0), "{finding}");
            assert!(!finding["finding"].as_str().unwrap().is_empty(), "{finding}");
            worst_severity = worst_severity.max(severity);
        }
        assert_eq!(self.exit_code, [0, 0, 1, 3][worst_severity], "{json}");
        assert_eq!(json["level"], ["ok", "ok", "warning", "error"][worst_severity]);
    }

    /// Returns the only finding of a check on a subject.
    pub fn finding(&self, subject: &str, check: &str) -> &Value {
        let all = self.json["findings"].as_array().unwrap();
        let mut matching =
            all.iter().filter(|finding| finding["subject"] == subject && finding["check"] == check);
        let finding = matching
            .next()
            .unwrap_or_else(|| panic!("no finding {check} of {subject}: {}", self.json));
        assert!(matching.next().is_none(), "two findings {check} of {subject}: {}", self.json);
        finding
    }

    /// Returns the fix of a finding, which must have this level and contain `text`.
    #[track_caller]
    pub fn fix(&self, subject: &str, check: &str, level: &str, text: &str) -> String {
        let finding = self.finding(subject, check);
        assert_eq!(finding["level"], level, "{finding}");
        assert!(finding["finding"].as_str().unwrap().contains(text), "{finding}");
        finding["fix"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn assert_ok(&self, subject: &str, check: &str) {
        let finding = self.finding(subject, check);
        assert_eq!(finding["level"], "ok", "{finding}");
    }
}

#[track_caller]
pub fn run_shell(namespace: &Namespace, command: &str) {
    run(namespace.command("sh").args(["-c", command]));
}

/// Returns the part of a fix from `command` to the end of its line.
pub fn command_in_fix<'a>(fix: &'a str, command: &str) -> &'a str {
    let found = fix.lines().find_map(|line| line.find(command).map(|at| &line[at..]));
    found.unwrap_or_else(|| panic!("no {command:?} in {fix:?}"))
}
