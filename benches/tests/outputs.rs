//! Tests that commands end quietly when the reader of stdout is gone, and with an error when stdout
//! cannot be written.

use std::fs::OpenOptions;
use std::process::{Command, Output, Stdio};

const COMMANDS: [&[&str]; 4] = [
    &["--help"],
    &["--version"],
    &["forward", "--help"],
    &["classbench", "--seed", "acl", "--rules", "10", "--output", "/dev/null"],
];

fn run(arguments: &[&str], stdout: impl Into<Stdio>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xdpfwd-bench"));
    command.args(arguments).stdout(stdout).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn command_without_reader_of_stdout_ends_quietly() {
    for arguments in COMMANDS {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = run(arguments, writer);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn command_with_full_disk_behind_stdout_fails() {
    for arguments in COMMANDS {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = run(arguments, full);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("cannot write to stdout: No space left"), "{text}");
    }
}

#[test]
fn unknown_name_in_only_option_lists_known_names() {
    for (command, names) in [
        ("paths", "unknown path \"nope\"; use packet, packet-mmsg, packet-mmap, af_xdp-skb"),
        ("copies", "unknown path \"nope\"; use packet,"),
        ("forward", "unknown forwarder \"nope\"; use xdpfwd, bare-loop"),
    ] {
        let output = run(&[command, "--only", "nope"], Stdio::null());
        assert_eq!(output.status.code(), Some(1), "{command}: {output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(names), "{text}");
    }
}

#[test]
fn matrix_with_unknown_selection_lists_known_names() {
    for (option, expected) in [
        ("--rows", "unknown row \"nope\"; use packet, packet-mmsg,"),
        ("--columns", "unknown column \"nope\"; use none, filter-1-user,"),
        ("--sizes", "invalid frame length \"nope\"; use 60 to 1514 bytes, or imix"),
    ] {
        let output = run(&["matrix", option, "nope"], Stdio::null());
        assert_eq!(output.status.code(), Some(1), "{option}: {output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn matrix_list_names_rows_and_columns() {
    let output = run(&["matrix", "--list"], Stdio::piped());
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in ["af_xdp-copy", "testpmd", "filter-10k-kernel", "aes-128-gcm"] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(name)), "{text}");
    }
}

/// `pairs` runs the two given commands.
#[test]
fn pairs_rejects_options_that_it_would_ignore() {
    for option in ["--only", "--core", "--xdpfwd", "--peers", "--results"] {
        let output = run(&["pairs", "a", "b", option, "1"], Stdio::null());
        assert_eq!(output.status.code(), Some(2), "{option}: {output:?}");
    }
}
