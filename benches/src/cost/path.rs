//! The measured paths of packets, and their configuration files.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use xdpfwd_ipsec::Transform;
use xdpfwd_stages::esp::{key_file, state_file::StateFile};

use crate::{forwarders::Environment, lab_config::LabConfig};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path {
    /// Transform and backend of the path's `esp-seal` stage; `None`: no stage.
    pub(super) seal: Option<(String, String)>,
}

impl Path {
    pub(super) fn name(&self) -> String {
        match &self.seal {
            None => "forward".to_owned(),
            Some((transform, backend)) => format!("seal {transform}, {backend}"),
        }
    }
}

/// Writes a configuration file with key and state file. `index` is part of the file names; `frames`
/// is the key of this name, if any.
pub(super) fn config(
    path: &Path,
    index: usize,
    frames: Option<u32>,
    environment: &Environment,
) -> Result<PathBuf> {
    let mut tables = String::new();
    let mut stages: &[&str] = &[];
    if let Some((name, backend)) = &path.seal {
        let transform = Transform::ALL.into_iter().find(|transform| transform.name() == name);
        let transform = transform.with_context(|| format!("unknown transform {name:?}"))?;
        let (key, state) = (format!("cost-{index}.key"), format!("cost-{index}.state"));
        for old in [&key, &state] {
            let _ = fs::remove_file(environment.scratch.join(old));
        }
        key_file::create(&environment.scratch.join(&key), transform)?;
        StateFile::create(&environment.scratch.join(&state))?;
        stages = &["seal"];
        let _ = write!(
            tables,
            "[stage.seal]\nkind = \"esp-seal\"\nlab = true\n\
             state_file = \"{state}\"\nbackend = \"{backend}\"\n\n\
             [[stage.seal.sa]]\nspi = 4097\ntransform = \"{name}\"\nkey_file = \"{key}\"\n\
             source = \"192.0.2.1\"\ndestination = \"192.0.2.2\"\n"
        );
    }
    if let Some(frames) = frames {
        let _ = write!(tables, "\n[umem]\nframes = {frames}\n");
    }
    let (core, tables) = (environment.core, &*tables);
    let config = LabConfig { core, stages, tables, ..LabConfig::default() };
    config.write(&environment.scratch, &format!("cost-{index}.toml"))
}
