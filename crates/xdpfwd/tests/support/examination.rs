//! Runs `xdpfwd doctor`, and applies the fixes of its findings.

use std::process::Command;

use serde_json::Value;
use xdpfwd_lab::Namespace;
use xdpfwd_testkit::process::run;

use super::{Config, XDPFWD, stderr};

/// Kernel parameters that isolate core 1: the suite `isolated` boots with them, and in the suite
/// `doctor` they are the fix.
pub const CORE_1_ISOLATION: &str = "isolcpus=1 nohz_full=1 rcu_nocbs=1";

/// The output and exit status of `doctor` in a namespace.
pub struct Examination {
    pub json: Value,
    pub code: i32,
}

impl Examination {
    pub fn by(mut command: Command) -> Self {
        let output = command.output().unwrap();
        assert!(output.stderr.is_empty(), "{}", stderr(&output));
        let json = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let examination = Self { json, code: output.status.code().unwrap() };
        examination.assert_guarantees();
        examination
    }

    pub fn of(namespace: &Namespace, arguments: &[&str]) -> Self {
        let mut command = namespace.command(XDPFWD);
        command.args(["doctor", "--json"]).args(arguments);
        Self::by(command)
    }

    pub fn of_config(namespace: &Namespace, text: &str) -> Self {
        let config = Config::new(text);
        Self::of(namespace, &["--config", config.path()])
    }

    /// Checks the guarantees of docs/doctor.md for every output.
    pub fn assert_guarantees(&self) {
        let json = &self.json;
        assert_eq!((&json["schema"], &json["type"]), (&1.into(), &"doctor".into()));
        let mut worst = 0;
        for finding in json["findings"].as_array().unwrap() {
            let level = ["ok", "unknown", "warning", "error"]
                .iter()
                .position(|level| finding["level"] == *level)
                .unwrap();
            assert_eq!(finding["fix"].is_null(), level < 2, "{finding}");
            assert!(!finding["finding"].as_str().unwrap().is_empty(), "{finding}");
            worst = worst.max(level);
        }
        assert_eq!(self.code, [0, 0, 1, 3][worst], "{json}");
        assert_eq!(json["level"], ["ok", "ok", "warning", "error"][worst]);
    }

    pub fn finding(&self, subject: &str, check: &str) -> &Value {
        let all = self.json["findings"].as_array().unwrap();
        let mut found =
            all.iter().filter(|finding| finding["subject"] == subject && finding["check"] == check);
        let finding = found
            .next()
            .unwrap_or_else(|| panic!("no finding {check} of {subject}: {}", self.json));
        assert!(found.next().is_none(), "two findings {check} of {subject}: {}", self.json);
        finding
    }

    /// Returns the fix of a finding, which must have this level and contain this text.
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

/// Applies a fix verbatim in a namespace.
#[track_caller]
pub fn apply(namespace: &Namespace, command: &str) {
    run(namespace.command("sh").args(["-c", command]));
}

/// Returns the command in a fix that begins with `command`, up to the end of its line.
pub fn line<'a>(fix: &'a str, command: &str) -> &'a str {
    let found = fix.lines().find_map(|line| line.find(command).map(|at| &line[at..]));
    found.unwrap_or_else(|| panic!("no {command:?} in {fix:?}"))
}
