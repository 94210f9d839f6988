//! The control socket of an xdpfwd, and requests to it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use super::{TIMEOUT, XDPFWD, cross_connect};

/// The path of a control socket: unique, and short enough for a Unix socket. Drop removes the file.
pub struct Socket(pub PathBuf);

impl Socket {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("xdpfwd-{}-{name}.sock", std::process::id()));
        let _ = fs::remove_file(&path);
        Self(path)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Returns a configuration that forwards both ways, with this control socket. The path from lan
    /// to wan has the filter `edge` with these rules and `default = "drop"`.
    pub fn config(&self, rules: &[&str]) -> String {
        self.config_with_place("user", rules)
    }

    /// Like [`config`](Self::config), with a value of the filter's key `place`.
    pub fn config_with_place(&self, place: &str, rules: &[&str]) -> String {
        let engine = format!("cores = [1]\ncontrol = {:?}", self.path());
        let text =
            cross_connect(1, &engine).replace("to = \"wan\"", "to = \"wan\"\nstages = [\"edge\"]");
        format!(
            "{text}\n[stage.edge]\nkind = \"filter\"\ndefault = \"drop\"\n\
             place = \"{place}\"\nrules = {rules:?}\n"
        )
    }

    pub fn ctl(&self, arguments: &[&str]) -> Output {
        Command::new(XDPFWD)
            .arg("ctl")
            .args(arguments)
            .args(["--socket", self.path()])
            .output()
            .unwrap()
    }

    /// Returns the JSON output of a `ctl` command that must succeed.
    pub fn query(&self, command: &str) -> Value {
        let output = self.ctl(&[command, "--json"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Sends bytes to the socket, and returns the response.
    pub fn send_raw(&self, request: &[u8]) -> Value {
        let mut stream = UnixStream::connect(&self.0).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(request).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut response = String::new();
        BufReader::new(stream).read_line(&mut response).unwrap();
        serde_json::from_str(&response).unwrap_or_else(|error| panic!("{error}: {response:?}"))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
