//! Builds test binaries with cargo.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::suite::Suite;
use crate::tool;

/// A message of cargo, with only the fields that this module uses.
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

/// Builds the suite's programs with the same features as its tests.
pub(crate) fn build_programs(suite: &Suite) -> Result<()> {
    if suite.programs.is_empty() {
        return Ok(());
    }
    let programs = suite.programs.iter().flat_map(|program| ["--bin", program]);
    let status = Command::new(program())
        .args(["build", "--workspace", "--all-features"])
        .args(programs)
        .stdin(Stdio::null())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the programs of suite {} do not build, see above", suite.name);
    }
    Ok(())
}

fn program() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Builds the suite's test binary and returns its path. Selects the whole workspace, so that cargo
/// reuses dependencies that `make test` has built.
pub(crate) fn test_binary(suite: &Suite) -> Result<PathBuf> {
    let output = Command::new(program())
        .args(["test", "--no-run", "--workspace", "--all-features", "--test", suite.test_target])
        .args(["--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!(
            "suite {} does not build; run: cargo test --no-run --all-features --test {}",
            suite.name,
            suite.test_target
        );
    }
    executable(&String::from_utf8_lossy(&output.stdout), suite.test_target).with_context(|| {
        format!("cargo reported no executable for test target {}", suite.test_target)
    })
}

/// Fails if the test binary lacks one of the tests. Without this check, a renamed test would be
/// skipped silently.
pub(crate) fn require_tests(binary: &Path, tests: &[&str]) -> Result<()> {
    let test_list = tool::text(Command::new(binary).args(["--list", "--format", "terse"]))?;
    match first_missing(&test_list, tests) {
        None => Ok(()),
        Some(test) => {
            bail!(
                "{} has no test `{test}`; correct the name in crates/vm/src/suite.rs",
                binary.display()
            )
        }
    }
}

/// Returns the first of the tests that is not in the list. Each line of the list is the name of a
/// test, followed by `: test`.
fn first_missing<'a>(test_list: &str, tests: &[&'a str]) -> Option<&'a str> {
    let mut names = tests.iter().copied();
    names.find(|test| !test_list.lines().any(|line| line.strip_suffix(": test") == Some(test)))
}

/// Returns the path of the target's executable from cargo's messages.
fn executable(messages: &str, target_name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter(|message| message.target.as_ref().is_some_and(|target| target.name == target_name))
        .find_map(|message| message.executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_missing_returns_first_unlisted_test() {
        let test_list = "a: test\nmodule::b: test\nc: benchmark\n";
        assert_eq!(first_missing(test_list, &["a", "module::b"]), None);
        assert_eq!(first_missing(test_list, &["a", "b"]), Some("b"));
        assert_eq!(first_missing(test_list, &["c"]), Some("c"));
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
