//! Versions of the compared programs.

use std::{collections::BTreeMap, path::Path, process::Command};

/// Programs, and the arguments that make them print their version.
const PROGRAMS: [(&str, &[&str]); 5] = [
    ("nft", &["--version"]),
    ("ip", &["-V"]),
    ("ethtool", &["--version"]),
    ("clang", &["--version"]),
    // testpmd prints its version only after it has started: the package knows it, too.
    ("dpkg-query", &["--show", "--showformat=${Version}", "dpdk-dev"]),
];

/// Returns the first line that each installed program prints about its version.
pub(crate) fn detect(xdpfwd: &Path) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    for (program, arguments) in PROGRAMS {
        let name = if program == "dpkg-query" { "dpdk-testpmd" } else { program };
        if let Some(version) = first_line(Path::new(program), arguments) {
            versions.insert(name.to_owned(), version);
        }
    }
    if let Some(version) = first_line(xdpfwd, &["--version"]) {
        versions.insert("xdpfwd".to_owned(), version);
    }
    versions
}

fn first_line(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_contain_only_installed_programs() {
        assert!(!detect(Path::new("/nonexistent")).contains_key("xdpfwd"));
        // `env --version` prints its version, as xdpfwd does.
        let version = detect(Path::new("env"))["xdpfwd"].clone();
        assert!(version.starts_with("env (GNU coreutils)"), "{version}");
    }
}
