//! The paths and security columns of a measurement on NICs, and their configuration files.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use xdpfwd_bench::classbench::{Seed, generate, write_rules};
use xdpfwd_bench::results::{Column, Row};
use xdpfwd_ipsec::Transform;
use xdpfwd_stages::esp::{key_file, state_file::StateFile};

use crate::paths::{PATHS, PacketPath};

/// The MTU that ESP columns need at the forwarder's output and at the sink: 1500 bytes and the
/// headers and trailer of ESP.
pub(super) const ESP_MTU: u32 = 1600;

/// A path of xdpfwd between two interfaces.
#[derive(Clone, Copy, Debug)]
pub(super) struct NicPath {
    pub(super) name: &'static str,
    path: &'static PacketPath,
}

/// Returns all paths. The names are those of the matrix.
pub(super) fn paths() -> impl Iterator<Item = NicPath> {
    PATHS.iter().map(|path| NicPath {
        name: if path.name == "zero-copy" { "af_xdp-zero-copy" } else { path.name },
        path,
    })
}

impl NicPath {
    pub(super) fn find(name: &str) -> Result<Self> {
        paths().find(|path| path.name == name).with_context(|| {
            let known: Vec<_> = paths().map(|path| path.name).collect();
            format!("unknown path {name:?}; use {}", known.join(", "))
        })
    }

    pub(super) fn row(&self) -> Row {
        let title = match self.name {
            "packet" => "recv and send",
            "packet-mmsg" => "recvmmsg and sendmmsg",
            "packet-mmap" => "PACKET_MMAP",
            "af_xdp-skb" => "AF_XDP, skb mode",
            "af_xdp-copy" => "AF_XDP, copy mode",
            "af_xdp-zero-copy" => "AF_XDP, zero-copy",
            "xsk-rs" => "AF_XDP through xsk-rs",
            name => name,
        };
        Row {
            name: self.name.to_owned(),
            title: title.to_owned(),
            place: "user".to_owned(),
            remark: String::new(),
            copies: self.path.copies.iter().map(|copy| copy.function.to_owned()).collect(),
        }
    }
}

/// A kind of security processing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NicColumn {
    pub(super) name: &'static str,
    title: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    None,
    /// A filter with this number of rules in this placement.
    Filter(u32, &'static str),
    /// ESP encapsulation with this transform.
    Esp(&'static str),
}

/// All columns, with the names of the matrix. To add a column, add an entry.
pub(super) const COLUMNS: [NicColumn; 8] = [
    NicColumn { name: "none", title: "nothing", kind: Kind::None },
    NicColumn {
        name: "filter-1k-user",
        title: "filter, 1,000 rules, user space",
        kind: Kind::Filter(1_000, "user"),
    },
    NicColumn {
        name: "filter-10k-user",
        title: "filter, 10,000 rules, user space",
        kind: Kind::Filter(10_000, "user"),
    },
    NicColumn {
        name: "filter-1k-kernel",
        title: "filter, 1,000 rules, kernel",
        kind: Kind::Filter(1_000, "kernel"),
    },
    NicColumn {
        name: "filter-10k-kernel",
        title: "filter, 10,000 rules, kernel",
        kind: Kind::Filter(10_000, "kernel"),
    },
    NicColumn { name: "aes-128-gcm", title: "ESP, AES-128-GCM", kind: Kind::Esp("aes-128-gcm") },
    NicColumn { name: "aes-256-gcm", title: "ESP, AES-256-GCM", kind: Kind::Esp("aes-256-gcm") },
    NicColumn {
        name: "chacha20-poly1305",
        title: "ESP, ChaCha20-Poly1305",
        kind: Kind::Esp("chacha20-poly1305"),
    },
];

impl NicColumn {
    pub(super) fn find(name: &str) -> Result<Self> {
        COLUMNS.into_iter().find(|column| column.name == name).with_context(|| {
            let known: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
            format!("unknown column {name:?}; use {}", known.join(", "))
        })
    }

    /// Returns whether the sink cannot recognise the frames, nor read their send time.
    pub(super) fn encrypts(&self) -> bool {
        matches!(self.kind, Kind::Esp(_))
    }

    pub(super) fn column(&self) -> Column {
        let (group, rules) = match self.kind {
            Kind::None => ("none", None),
            Kind::Filter(rules, _) => ("filter", Some(rules)),
            Kind::Esp(_) => ("aead", None),
        };
        Column {
            name: self.name.to_owned(),
            title: self.title.to_owned(),
            group: group.to_owned(),
            rules,
        }
    }
}

/// Where xdpfwd runs.
#[derive(Clone, Debug)]
pub(super) struct Placement {
    pub(super) input: String,
    pub(super) output: String,
    /// One worker for each core, which serves one queue of each interface.
    pub(super) cores: Vec<usize>,
    pub(super) scratch: PathBuf,
}

impl Placement {
    /// Writes the configuration file of a cell with the files that it names. ESP gets a new key
    /// and state file.
    pub(super) fn config(
        &self,
        path: &NicPath,
        column: &NicColumn,
        kernel_ledger: bool,
    ) -> Result<PathBuf> {
        let name = format!("nic-{}-{}", path.name, column.name);
        let (stages, stage) = self.stage(&name, column)?;
        let queues = self.cores.len();
        let mut text =
            format!("[engine]\ncores = {:?}\nmode = \"{}\"\n", self.cores, path.path.mode);
        if kernel_ledger {
            text += "kernel_ledger = \"sampled\"\n";
        }
        for (port, interface) in [("in", &self.input), ("out", &self.output)] {
            let _ = write!(
                text,
                "\n[[port]]\nname = \"{port}\"\ninterface = {interface:?}\nqueues = {queues}\n\
                 io = \"{}\"\n",
                path.path.io
            );
        }
        let _ = write!(text, "\n[[path]]\nfrom = \"in\"\nto = \"out\"\nstages = {stages}\n{stage}");
        let file = self.scratch.join(format!("{name}.toml"));
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }

    /// Returns the list of stages and the table of the stage.
    fn stage(&self, name: &str, column: &NicColumn) -> Result<(&'static str, String)> {
        let file = |extension: &str| self.scratch.join(format!("{name}.{extension}"));
        match column.kind {
            Kind::None => Ok(("[]", String::new())),
            Kind::Filter(rules, place) => {
                let seed = Seed::built_in("acl").context("no built-in seed `acl`")?;
                let random_seed = 1;
                let mut text = Vec::new();
                write_rules(&mut text, &generate(&seed, rules as usize, random_seed))?;
                let path = file("rules");
                fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
                let stage = format!(
                    "\n[stage.fw]\nkind = \"filter\"\nformat = \"classbench\"\naction = \"drop\"\n\
                     default = \"accept\"\nrules = {:?}\nplace = \"{place}\"\n",
                    path.display().to_string()
                );
                Ok(("[\"fw\"]", stage))
            }
            Kind::Esp(transform_name) => {
                let transform =
                    Transform::ALL.into_iter().find(|transform| transform.name() == transform_name);
                let Some(transform) = transform else {
                    bail!("unknown transform {transform_name:?}")
                };
                let (key, state) = (file("key"), file("state"));
                for old in [&key, &state] {
                    let _ = fs::remove_file(old);
                }
                key_file::create(&key, transform)?;
                StateFile::create(&state)?;
                let stage = format!(
                    "\n[stage.seal]\nkind = \"esp-seal\"\nlab = true\nmtu = {ESP_MTU}\n\
                     state_file = {:?}\n\n[[stage.seal.sa]]\nspi = 4097\n\
                     transform = \"{transform_name}\"\nkey_file = {:?}\n\
                     source = \"192.0.2.1\"\ndestination = \"192.0.2.2\"\n",
                    state.display().to_string(),
                    key.display().to_string()
                );
                Ok(("[\"seal\"]", stage))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_paths_and_columns_are_unique_and_found() {
        for path in paths() {
            assert_eq!(NicPath::find(path.name).unwrap().name, path.name);
            assert_eq!(paths().filter(|other| other.name == path.name).count(), 1);
        }
        for column in COLUMNS {
            assert_eq!(NicColumn::find(column.name).unwrap(), column);
        }
        let error = NicPath::find("zero").unwrap_err().to_string();
        assert!(error.contains("af_xdp-zero-copy"), "{error}");
        assert!(NicColumn::find("aes").unwrap_err().to_string().contains("aes-128-gcm"));
    }

    #[test]
    fn configuration_of_each_cell_is_valid_toml_with_its_files() {
        let scratch = tempfile::tempdir().unwrap();
        let placement = Placement {
            input: "in0".into(),
            output: "out0".into(),
            cores: vec![1, 2],
            scratch: scratch.path().to_owned(),
        };
        for column in COLUMNS {
            let path = NicPath::find("af_xdp-zero-copy").unwrap();
            let file = placement.config(&path, &column, true).unwrap();
            let config: toml::Table = toml::from_str(&fs::read_to_string(file).unwrap()).unwrap();
            let stages = config["path"][0]["stages"].as_array().unwrap();
            assert_eq!(stages.is_empty(), column.name == "none", "{config}");
            assert_eq!(config["port"][1]["queues"].as_integer(), Some(2), "{config}");
            for stage in stages {
                let stage = &config["stage"][stage.as_str().unwrap()];
                let name = stage.get("rules").or(stage.get("state_file")).unwrap();
                assert!(std::path::Path::new(name.as_str().unwrap()).exists(), "{stage}");
            }
        }
    }
}
