//! Checks configurations against a fake machine.
//!
//! `snapshots/` contains each case's text and its diagnostics.

/// Compares a text with the file in `snapshots/` named after the test. The second file of a test
/// ends with `-2`.
macro_rules! assert_snapshot {
    ($text:expr) => {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!($text)
        })
    };
}

mod documented;
mod esp;
mod examples;
mod host;
mod io;
mod keep;
mod keys;
mod mutated;
mod planned;
mod ports;
mod stages;
mod syntax;

use std::fmt::Write as _;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use xdpfwd_engine::Plan;
use xdpfwd_ipsec::Transform;
use xdpfwd_stages::esp::key_file;

use super::words::is_printable;
use super::{Diagnostics, FakeMachine, Machine, Source};

/// Two ports and a path. Tests add other tables.
const MINIMAL: &str = "
[[port]]
name = \"lan\"
interface = \"eth1\"
[[port]]
name = \"wan\"
interface = \"eth2\"
[[path]]
from = \"lan\"
to = \"wan\"
";

/// A temporary folder with the key files `in.key` and `out.key` (AES-128) and `256.key` (AES-256),
/// removed on drop.
struct KeyFolder(PathBuf);

impl KeyFolder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("xdpfwd-keys-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        for (name, transform) in [
            ("in.key", Transform::Aes128Gcm),
            ("out.key", Transform::Aes128Gcm),
            ("256.key", Transform::Aes256Gcm),
        ] {
            key_file::create(&folder.join(name), transform).unwrap();
        }
        Self(folder)
    }
}

impl Deref for KeyFolder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for KeyFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn plan_on(machine: &dyn Machine, text: &str) -> Result<(Plan, Diagnostics), Diagnostics> {
    let source = Source::new("x.toml".into(), text.into());
    super::plan(&source, Path::new("."), &xdpfwd_stages::builtin(), machine)
}

fn plan(text: &str) -> Result<(Plan, Diagnostics), Diagnostics> {
    plan_on(&FakeMachine::new(), text)
}

/// Returns the errors of a configuration. If it is valid, returns the warnings and the line
/// `accepted`.
fn diagnose(text: &str) -> String {
    match plan(text) {
        Ok((_, warnings)) => format!("{warnings}accepted\n"),
        Err(errors) => errors.to_string(),
    }
}

/// Returns each configuration, with line numbers, and its diagnostics.
fn diagnose_cases(cases: &[&str]) -> String {
    diagnose_cases_with("", cases)
}

/// Like [`diagnose_cases`], but appends `suffix` to each configuration. The result does not show
/// the suffix.
fn diagnose_cases_with(suffix: &str, cases: &[&str]) -> String {
    let mut report = String::new();
    for case in cases {
        for (index, line) in case.trim_end_matches('\n').split('\n').enumerate() {
            writeln!(report, "{:>3} | {}", index + 1, super::escaped(line)).unwrap();
        }
        writeln!(report, "{}", diagnose(&format!("{case}{suffix}"))).unwrap();
    }
    report
}
