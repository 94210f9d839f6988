//! Builds test binaries with cargo.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::suite::Suite;
use crate::tool;

/// The fields used of a line of cargo's `--message-format json`.
#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Builds the suite's test binary and returns its path.
///
/// The whole workspace is selected, as in `make test`: with the same features, cargo builds no
/// dependency again.
pub(crate) fn test_binary(suite: &Suite) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--no-run", "--workspace", "--all-features", "--test", suite.test])
        .args(["--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!(
            "suite {} does not build; run: cargo test --no-run --all-features --test {}",
            suite.name,
            suite.test
        );
    }
    executable(&String::from_utf8_lossy(&output.stdout), suite.test)
        .with_context(|| format!("cargo reported no executable for test target {}", suite.test))
}

/// Fails if the test binary lacks one of these tests, so that a renamed test is not skipped
/// silently.
pub(crate) fn require_tests(binary: &Path, tests: &[&str]) -> Result<()> {
    let listed = tool::text(Command::new(binary).args(["--list", "--format", "terse"]))?;
    match missing(&listed, tests) {
        None => Ok(()),
        Some(test) => {
            bail!("{} has no test `{test}`, which crates/vm/src/suite.rs lists", binary.display())
        }
    }
}

/// Returns the first test missing from the list, whose lines look like `name: test`.
fn missing<'a>(listed: &str, tests: &[&'a str]) -> Option<&'a str> {
    let mut names = tests.iter().copied();
    names.find(|test| !listed.lines().any(|line| line.strip_suffix(": test") == Some(test)))
}

fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter(|message| message.target.as_ref().is_some_and(|found| found.name == target))
        .find_map(|message| message.executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_returns_first_unlisted_test() {
        let listed = "a: test\nmodule::b: test\nc: benchmark\n";
        assert_eq!(missing(listed, &["a", "module::b"]), None);
        assert_eq!(missing(listed, &["a", "b"]), Some("b"));
        assert_eq!(missing(listed, &["c"]), Some("c"));
    }

    #[test]
    fn executable_returns_path_of_named_target() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"xdpfwd"},"executable":"/t/xdpfwd"}"#,
            "\n",
            r#"{"reason":"build-script-executed","package_id":"x"}"#,
            "\n",
            "not JSON\n",
            r#"{"reason":"compiler-artifact","target":{"name":"vm_zero_copy"},"executable":"/t/vm_zero_copy-1"}"#,
        );
        assert_eq!(executable(messages, "vm_zero_copy"), Some("/t/vm_zero_copy-1".into()));
        assert_eq!(executable(messages, "other"), None);
    }
}
