//! Compares two starts of a matrix: a matrix is continued only with the same machine, kernel,
//! programs and options.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use xdpfwd_bench::machine::Machine;

use super::plan::Plan;

/// A machine and its kernel. A reboot does not change it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MachineIdentity {
    /// /etc/machine-id; empty if the machine has none.
    machine_id: String,
    cpu: String,
    cores: usize,
    kernel: String,
}

impl MachineIdentity {
    /// Reads the identity of this machine.
    pub(crate) fn of(machine: &Machine) -> Self {
        Self {
            machine_id: fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned(),
            cpu: machine.cpu.clone(),
            cores: machine.cores,
            kernel: machine.kernel.clone(),
        }
    }

    /// Describes how this machine differs from another; empty if it does not.
    pub(crate) fn differences(&self, other: &Self) -> String {
        let fields = [
            ("machine ID", self.machine_id.clone(), other.machine_id.clone()),
            ("processor", self.cpu.clone(), other.cpu.clone()),
            ("cores", self.cores.to_string(), other.cores.to_string()),
            ("kernel", self.kernel.clone(), other.kernel.clone()),
        ];
        let differences = fields.into_iter().filter(|(_, this, other)| this != other);
        let differences = differences
            .map(|(name, this, other)| format!("{name} \"{this}\" here, \"{other}\" there"));
        differences.collect::<Vec<_>>().join("; ")
    }
}

/// Settings that two starts must have in common, apart from the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// `git describe` of the sources.
    pub(crate) commit: String,
    /// CRC-32 of the programs that are measured and that measure, and of the sources that are
    /// compiled for each matrix: a modified work tree has one commit, but many builds.
    pub(crate) build: u32,
    /// Versions of the compared programs.
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) seconds: f64,
    pub(crate) warmup: f64,
    /// Seconds of each trial that confirms a rate, and of each measurement of latency.
    pub(crate) trial_seconds: f64,
    /// All options of the traffic, and the forwarder's core.
    pub(crate) traffic: String,
    /// The generator that is used: `"live"` or `"pktgen"`.
    #[serde(default)]
    pub(crate) generator: String,
    pub(crate) plan: Plan,
}

impl Settings {
    /// Names the settings that differ; empty if none do.
    pub(crate) fn differences(&self, other: &Self) -> String {
        let mut names = Vec::new();
        let mut compare = |name, is_equal: bool| {
            if !is_equal {
                names.push(name);
            }
        };
        compare("commit", self.commit == other.commit);
        compare("build", self.build == other.build);
        compare("versions of programs", self.versions == other.versions);
        compare("--seconds", self.seconds == other.seconds);
        compare("--warmup", self.warmup == other.warmup);
        compare("duration of trials", self.trial_seconds == other.trial_seconds);
        compare("options of the traffic", self.traffic == other.traffic);
        compare("generator", self.generator == other.generator);
        let (this, other) = (&self.plan, &other.plan);
        compare("rows", this.rows == other.rows);
        compare("columns", this.columns == other.columns);
        compare("sizes", this.sizes == other.sizes);
        compare("rounds", this.rounds == other.rounds);
        compare(
            "rates",
            this.rate_columns == other.rate_columns && this.rate_sizes == other.rate_sizes,
        );
        compare("available cells", this.unavailable_cells() == other.unavailable_cells());
        names.join(", ")
    }
}

/// Returns a checksum of programs and of the BPF sources in `peers`, which are compiled when the
/// matrix starts.
pub(crate) fn checksum(peers: &Path, programs: &[&Path]) -> Result<u32> {
    // The sources include headers of the repository's folder `bpf`.
    let headers = peers.join("../../bpf");
    let mut files: Vec<PathBuf> = programs.iter().map(|program| program.to_path_buf()).collect();
    files.extend(with_suffix(peers, ".bpf.c")?);
    if headers.is_dir() {
        files.extend(with_suffix(&headers, ".h")?);
    }
    let mut hasher = crc32fast::Hasher::new();
    for file in files {
        let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        hasher.update(&bytes);
    }
    Ok(hasher.finalize())
}

/// Returns the files in a folder whose names end with a suffix, sorted.
fn with_suffix(folder: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let list = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect();
    let files: io::Result<Vec<PathBuf>> = list();
    let mut files = files.with_context(|| format!("reading {}", folder.display()))?;
    files.retain(|file| file.to_str().is_some_and(|name| name.ends_with(suffix)));
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::fake;

    #[test]
    fn differences_of_machines_name_both_values() {
        let this = fake::identity();
        assert_eq!(this.differences(&this), "");
        let other = MachineIdentity { cores: 64, ..this.clone() };
        assert_eq!(this.differences(&other), "cores \"2\" here, \"64\" there");
    }

    #[test]
    fn differences_of_settings_name_each_that_differs() {
        let this = fake::settings(fake::plan(&["a"], &["x"], &["60"]));
        assert_eq!(this.differences(&this), "");
        let mut other = this.clone();
        other.build += 1;
        other.plan.rounds += 1;
        assert_eq!(this.differences(&other), "build, rounds");
    }

    #[test]
    fn checksum_of_changed_program_source_or_header_differs() {
        let root = tempfile::tempdir().unwrap();
        let peers = root.path().join("benches/peers");
        let program = root.path().join("program");
        let sources = [peers.join("redirect.bpf.c"), root.path().join("bpf/classify.h")];
        for file in sources.iter().chain([&program]) {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "one").unwrap();
        }
        let sum = || checksum(&peers, &[&program]).unwrap();
        for file in sources.iter().chain([&program]) {
            let before = sum();
            fs::write(file, "two").unwrap();
            assert_ne!(sum(), before, "{}", file.display());
        }
        let before = sum();
        fs::write(peers.join("ring_twin.c"), "not part of the matrix").unwrap();
        assert_eq!(sum(), before);
    }
}
