//! Tests that commands end quietly when the reader of stdout is gone, and with an error when stdout
//! cannot be written. Needs no privileges; `root_ctl.rs` tests `ctl` and a running forwarder.

use std::fs::{self, OpenOptions};
use std::process::{Command, Output, Stdio};

use xdpfwd_testkit::Folder;

const CONFIG: &str = r#"
    [[port]]
    name = "lan"
    interface = "xdpfwd-none0"
    [[path]]
    from = "lan"
    to = "lan"
    stages = ["edge"]
    [stage.edge]
    kind = "filter"
    default = "accept"
    rules = ["drop proto tcp"]
"#;

/// Number of packets in the capture. Their verdicts are too long for a single write to stdout.
const PACKETS: usize = 20_000;

/// Returns the arguments of each command that prints something.
fn commands(folder: &Folder) -> Vec<Vec<String>> {
    let config = folder.join("fw.toml");
    fs::write(&config, CONFIG).unwrap();
    let pcap = folder.join("a.pcap");
    let header = [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65535, 1].map(u32::to_le_bytes).concat();
    let record = [[0_u32, 0, 60, 60].map(u32::to_le_bytes).concat(), vec![0; 60]].concat();
    fs::write(&pcap, [header, record.repeat(PACKETS)].concat()).unwrap();
    let (config, pcap) = (config.display().to_string(), pcap.display().to_string());
    let key = folder.join("out.key").display().to_string();
    [
        &["--help"][..],
        &["-h"],
        &["--version"],
        &["help", "doctor"],
        &["ctl", "--help"],
        &["doctor", "--help"],
        &["filter", "--help"],
        &["filter", "test", "--help"],
        &["esp", "new-key", "--help"],
        &["--config", &config, "--check"],
        &["--config", &config, "--check", "--json"],
        &["doctor", "lo", "--no-probe"],
        &["doctor", "lo", "--no-probe", "--json"],
        &["filter", "test", "--config", &config, "--pcap", &pcap],
        &["filter", "test", "--config", &config, "--pcap", &pcap, "--json"],
        &["esp", "new-key", "--transform", "aes-128-gcm", &key],
    ]
    .iter()
    .map(|arguments| arguments.iter().map(ToString::to_string).collect())
    .collect()
}

fn run(arguments: &[String], stdout: impl Into<Stdio>) -> Output {
    if let ["esp", "new-key", .., key] =
        &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        let _ = fs::remove_file(key);
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdpfwd"));
    command.args(arguments).stdout(stdout).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn command_without_reader_of_stdout_ends_quietly() {
    let folder = Folder::new();
    for arguments in commands(&folder) {
        let normal = run(&arguments, Stdio::piped());
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let closed = run(&arguments, writer);
        assert_eq!(closed.status.code(), normal.status.code(), "{arguments:?}: {closed:?}");
        assert_eq!(closed.stderr, normal.stderr, "{arguments:?}: {closed:?}");
    }
}

#[test]
fn command_with_full_disk_behind_stdout_fails_with_1() {
    let folder = Folder::new();
    for arguments in commands(&folder) {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = run(&arguments, full);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains("cannot write to stdout: No space left"), "{arguments:?}: {text}");
    }
}

/// In a shell, `2>&1 | head -1` closes stderr as well as stdout.
#[test]
fn command_without_reader_of_stderr_keeps_its_exit_code() {
    for (arguments, code) in [
        (&["--config", "/nonexistent"][..], 2),
        (&["--config", "/nonexistent", "--check"], 2),
        (&["--unknown"], 2),
        (&["ctl", "status", "--socket", "/nonexistent"], 1),
        (&["esp", "new-key", "--transform", "aes-128-gcm", "/nonexistent/out.key"], 1),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_xdpfwd"));
        let status = command.args(arguments).stdout(Stdio::null()).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}
