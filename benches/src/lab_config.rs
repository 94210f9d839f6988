//! Configuration files of xdpfwd for the lab.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// A configuration with the ports `lan` (fwd0) and `wan` (fwd1), and a path from `lan` to `wan`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LabConfig<'a> {
    pub(crate) core: usize,
    /// More lines of the table `engine`.
    pub(crate) engine: &'a str,
    /// More lines of both ports.
    pub(crate) port: &'a str,
    /// The stages of each path.
    pub(crate) stages: &'a [&'a str],
    /// Whether there is a path from `wan` to `lan`, too.
    pub(crate) both_directions: bool,
    /// More tables.
    pub(crate) tables: &'a str,
}

impl LabConfig<'_> {
    /// Writes the configuration to a file in a folder.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<PathBuf> {
        let file = folder.join(name);
        fs::write(&file, self.to_string())
            .with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }
}

impl fmt::Display for LabConfig<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[engine]\ncores = [{}]\n{}", self.core, lines(self.engine))?;
        for (name, interface) in [("lan", "fwd0"), ("wan", "fwd1")] {
            writeln!(f, "\n[[port]]\nname = \"{name}\"\ninterface = \"{interface}\"")?;
            f.write_str(&lines(self.port))?;
        }
        let directions = [("lan", "wan"), ("wan", "lan")];
        for (from, to) in &directions[..1 + usize::from(self.both_directions)] {
            writeln!(f, "\n[[path]]\nfrom = \"{from}\"\nto = \"{to}\"")?;
            if !self.stages.is_empty() {
                writeln!(f, "stages = {:?}", self.stages)?;
            }
        }
        if !self.tables.is_empty() {
            write!(f, "\n{}", lines(self.tables))?;
        }
        Ok(())
    }
}

/// Returns the text with a line break at its end, unless it is empty.
fn lines(text: &str) -> String {
    match text.is_empty() || text.ends_with('\n') {
        true => text.to_owned(),
        false => format!("{text}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_has_all_parts_as_valid_toml() {
        let config = LabConfig {
            core: 3,
            engine: "idle = \"spin\"",
            port: "io = \"packet\"\n",
            stages: &["one", "two"],
            both_directions: true,
            tables: "[stage.one]\nkind = \"mac-swap\"",
        };
        let table: toml::Table = config.to_string().parse().unwrap();
        assert_eq!(table["engine"]["cores"][0].as_integer(), Some(3));
        assert_eq!(table["engine"]["idle"].as_str(), Some("spin"));
        for (port, interface) in [(0, "fwd0"), (1, "fwd1")] {
            assert_eq!(table["port"][port]["interface"].as_str(), Some(interface));
            assert_eq!(table["port"][port]["io"].as_str(), Some("packet"));
            assert_eq!(table["path"][port]["stages"][1].as_str(), Some("two"));
        }
        assert_eq!(table["path"][1]["from"].as_str(), Some("wan"));
        assert_eq!(table["stage"]["one"]["kind"].as_str(), Some("mac-swap"));
        let small: toml::Table = LabConfig::default().to_string().parse().unwrap();
        assert_eq!(small["path"].as_array().map(Vec::len), Some(1));
    }
}
