//! The paths and columns of the matrix between any two interfaces: their configuration files.

use std::{fmt::Write as _, fs, net::Ipv4Addr, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{
    forwarders::Environment,
    matrix::{
        columns::{COLUMNS, Column},
        rows::xdpfwd::{name, stage},
    },
    paths::{PATHS, PacketPath},
};

pub(super) use crate::matrix::rows::{row::MTU as ESP_MTU, xdpfwd::describe};

/// Source and destination of the tunnel in columns with ESP.
pub(super) const TUNNEL: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];

/// Returns the path of xdpfwd with this name in the matrix.
pub(super) fn find_path(wanted: &str) -> Result<&'static PacketPath> {
    PATHS.iter().find(|path| name(path) == wanted).with_context(|| {
        let known: Vec<_> = PATHS.iter().map(name).collect();
        format!("unknown path {wanted:?}; use {}", known.join(", "))
    })
}

/// Returns the column of the matrix with this name.
pub(super) fn find_column(wanted: &str) -> Result<&'static Column> {
    COLUMNS.iter().find(|column| column.name == wanted).with_context(|| {
        let known: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
        format!("unknown column {wanted:?}; use {}", known.join(", "))
    })
}

/// Returns the length in memory with which a frame of `bytes` leaves the forwarder.
pub(super) fn outgoing_bytes(column: &Column, bytes: u16) -> u16 {
    const ETHERNET: u16 = 14;
    // Outer IPv4 header, ESP header, IV; padding to a multiple of 4 with its length and the next
    // header; ICV. All AEAD transforms have these lengths.
    const BEFORE: u16 = 20 + 8 + 8;
    const AFTER: u16 = 16;
    match column.transform() {
        None => bytes,
        Some(_) => {
            let packet = bytes.saturating_sub(ETHERNET);
            ETHERNET + BEFORE + (packet + 2).next_multiple_of(4) + AFTER
        }
    }
}

/// A path with a column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub(super) path: &'static PacketPath,
    pub(super) column: &'static Column,
    pub(super) kernel_ledger: bool,
}

impl Cell {
    /// Returns whether the frames at the sink are ESP, without a readable send time.
    pub(super) fn encrypts(&self) -> bool {
        self.column.transform().is_some()
    }

    /// Returns the names of row and column.
    pub(super) fn names(&self) -> (String, String) {
        (name(self.path).to_owned(), self.column.name.to_owned())
    }
}

/// Where xdpfwd runs.
pub(super) struct Placement {
    pub(super) input: String,
    pub(super) output: String,
    /// One worker for each core, which serves one queue of each interface.
    pub(super) cores: Vec<usize>,
    pub(super) environment: Environment,
}

impl Placement {
    /// Writes the configuration file of a cell, with the files that it names. ESP gets a new key
    /// and state file.
    pub(super) fn config(&self, cell: &Cell) -> Result<PathBuf> {
        let Cell { path, column, kernel_ledger } = cell;
        let file_name = format!("nic-{}-{}", name(path), column.name);
        let queues = self.cores.len();
        let mut text = format!("[engine]\ncores = {:?}\nmode = \"{}\"\n", self.cores, path.mode);
        if *kernel_ledger {
            text += "kernel_ledger = \"sampled\"\n";
        }
        for (port, interface) in [("in", &self.input), ("out", &self.output)] {
            let _ = write!(
                text,
                "\n[[port]]\nname = \"{port}\"\ninterface = {interface:?}\nqueues = {queues}\n\
                 io = \"{}\"\n",
                path.io
            );
        }
        let (mut names, mut tables) = (Vec::new(), String::new());
        for &wanted in column.stages {
            let files = ["key", "state"].map(|kind| format!("{file_name}.{kind}"));
            let (name, table) = stage(wanted, files, &self.environment)?;
            names.push(name);
            tables += &format!("\n{table}");
        }
        let _ =
            write!(text, "\n[[path]]\nfrom = \"in\"\nto = \"out\"\nstages = {names:?}\n{tables}");
        let file = self.environment.scratch.join(format!("{file_name}.toml"));
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_path_or_column_error_lists_names_of_the_matrix() {
        let error = find_path("zero").unwrap_err().to_string();
        assert!(error.contains("af_xdp-zero-copy"), "{error}");
        assert!(find_column("aes").unwrap_err().to_string().contains("aes-128-gcm"));
        assert_eq!(find_path("af_xdp-zero-copy").unwrap().mode, "zero-copy");
    }

    #[test]
    fn esp_makes_frames_longer_by_its_headers_padding_and_icv() {
        let length = |column, bytes| outgoing_bytes(find_column(column).unwrap(), bytes);
        assert_eq!([60, 1514].map(|bytes| length("filter-1k-user", bytes)), [60, 1514]);
        // 46 + 2 and 47 + 2 bytes are padded to 48 and 52.
        assert_eq!([60, 61].map(|bytes| length("aes-128-gcm", bytes)), [114, 118]);
        assert_eq!(length("filter-1k-aes-128", 1514), 14 + 36 + 1504 + 16);
    }

    #[test]
    fn configuration_of_each_cell_is_valid_toml_with_its_files() {
        let scratch = tempfile::tempdir().unwrap();
        let environment = Environment {
            xdpfwd: "xdpfwd".into(),
            sources: "peers".into(),
            scratch: scratch.path().to_owned(),
            generator: 0,
            core: 1,
        };
        let (input, output, cores) = ("in0".into(), "out0".into(), vec![1, 2]);
        let placement = Placement { input, output, cores, environment };
        let path = find_path("af_xdp-zero-copy").unwrap();
        for column in &COLUMNS {
            let file = placement.config(&Cell { path, column, kernel_ledger: true }).unwrap();
            let config: toml::Table = toml::from_str(&fs::read_to_string(file).unwrap()).unwrap();
            let stages = config["path"][0]["stages"].as_array().unwrap();
            assert_eq!(stages.len(), column.stages.len(), "{config}");
            assert_eq!(config["port"][1]["queues"].as_integer(), Some(2), "{config}");
            for stage in stages {
                let stage = &config["stage"][stage.as_str().unwrap()];
                if let Some(sa) = stage.get("sa") {
                    let ends = ["source", "destination"].map(|end| sa[0][end].as_str().unwrap());
                    assert_eq!(ends, TUNNEL.map(|address| address.to_string()), "{stage}");
                }
                for key in ["rules", "signatures", "state_file"] {
                    let file = stage.get(key).and_then(toml::Value::as_str);
                    assert!(file.is_none_or(|file| scratch.path().join(file).exists()), "{stage}");
                }
            }
        }
    }
}
