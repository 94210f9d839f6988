//! The preparations that `xdpfwd doctor` asks for.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use xdpfwd_bench::results::Preparation;

/// What `xdpfwd doctor` reports about a configuration.
#[derive(Debug, PartialEq)]
pub(super) enum Examination {
    /// The machine can run it, after these preparations.
    Possible(Vec<Preparation>),
    /// The interfaces do not support it.
    Impossible(String),
}

pub(super) fn examine(xdpfwd: &Path, config: &Path) -> Result<Examination> {
    let output = Command::new(xdpfwd)
        .args(["doctor", "--json", "--config"])
        .arg(config)
        .output()
        .with_context(|| format!("cannot start {}; run: make build", xdpfwd.display()))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    match serde_json::from_str(&stdout) {
        Ok(report) => Ok(evaluate(&report)),
        // Exit code 2: the configuration is invalid, for example in a build without a feature.
        Err(_) if output.status.code() == Some(2) => {
            let error = stderr.lines().find(|line| !line.contains("warning:")).unwrap_or_default();
            let file = config.display().to_string();
            Ok(Examination::Impossible(error.trim_start_matches(&file).to_owned()))
        }
        Err(error) => bail!("`xdpfwd doctor --json` printed no report ({error}): {stdout}{stderr}"),
    }
}

/// Evaluates the JSON of `xdpfwd doctor`.
fn evaluate(report: &Value) -> Examination {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut preparations = Vec::new();
    for finding in report["findings"].as_array().into_iter().flatten() {
        let level = text(&finding["level"]);
        if !matches!(&*level, "warning" | "error") {
            continue;
        }
        // The path needs a mode that the interface does not support.
        if (finding["check"] == "mode" || finding["check"] == "xdp-features") && level == "error" {
            return Examination::Impossible(text(&finding["finding"]));
        }
        preparations.push(Preparation {
            subject: text(&finding["subject"]),
            check: text(&finding["check"]),
            level,
            finding: text(&finding["finding"]),
            fix: finding["fix"].as_str().map(str::to_owned),
        });
    }
    Examination::Possible(preparations)
}

/// Returns a line for each preparation, and its remedy.
pub(super) fn lines(preparations: &[Preparation]) -> String {
    let mut text = String::new();
    for Preparation { subject, check, level, finding, fix } in preparations {
        text += &format!("  {level:<8} {subject}, {check}: {finding}\n");
        for line in fix.iter().flat_map(|fix| fix.lines()) {
            text += &format!("           → {line}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn finding(check: &str, level: &str) -> Value {
        json!({
            "subject": "eth1", "check": check, "level": level, "finding": format!("{check} is so"),
            "fix": if level == "ok" { Value::Null } else { json!("first\nsecond") },
        })
    }

    #[test]
    fn evaluation_keeps_warnings_and_errors_with_their_remedies() {
        let report = json!({"findings": [
            finding("link", "ok"), finding("irq", "warning"), finding("mtu", "error"),
            finding("virtio", "unknown"),
        ]});
        let Examination::Possible(preparations) = evaluate(&report) else { panic!("{report}") };
        let checks: Vec<_> = preparations.iter().map(|one| &*one.check).collect();
        assert_eq!(checks, ["irq", "mtu"]);
        let lines = lines(&preparations);
        assert!(lines.contains("eth1, irq: irq is so\n           → first\n           → second\n"));
    }

    #[test]
    fn unsupported_mode_makes_path_impossible() {
        for check in ["mode", "xdp-features"] {
            let report = json!({"findings": [finding("irq", "warning"), finding(check, "error")]});
            assert_eq!(evaluate(&report), Examination::Impossible(format!("{check} is so")));
        }
        let report = json!({"findings": [finding("mode", "warning")]});
        assert!(matches!(evaluate(&report), Examination::Possible(_)));
    }
}
