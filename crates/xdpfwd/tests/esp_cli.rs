//! Tests `xdpfwd esp`: key files and state files. Needs no privileges.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use xdpfwd_testkit::Folder;

const XDPFWD: &str = env!("CARGO_BIN_EXE_xdpfwd");

/// Runs `xdpfwd esp` with `arguments` and the path of a key or state file.
fn esp(arguments: &[&str], file: &Path) -> Output {
    // With umask 0, a new file has the mode that xdpfwd requests.
    let command = format!("umask 0; exec {XDPFWD} esp \"$@\"");
    Command::new("sh").args(["-c", &command, "sh"]).args(arguments).arg(file).output().unwrap()
}

fn outcome(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn new_key_creates_random_private_file_and_keeps_existing_file() {
    let folder = Folder::new();
    // Hexadecimal digits of key and salt.
    for (transform, digit_count) in [
        ("aes-128-gcm", 40),
        ("aes-256-gcm", 72),
        ("chacha20-poly1305", 72),
        ("null-aes-128-gmac", 40),
        ("null-aes-256-gmac", 72),
    ] {
        let path = folder.join(transform);
        let (code, stdout, stderr) = outcome(&esp(&["new-key", "--transform", transform], &path));
        assert_eq!((code, &*stderr), (Some(0), ""), "{transform}");
        let key = fs::read_to_string(&path).unwrap();
        let line = key.strip_suffix('\n').unwrap();
        assert!(
            line.len() == digit_count && line.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{transform}: the key file does not consist of {digit_count} hexadecimal digits"
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let fingerprint = stdout.strip_suffix('\n').unwrap();
        assert!(
            fingerprint.len() == 16 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{stdout}"
        );
        assert!(!key.contains(fingerprint), "the fingerprint is a part of the key");

        let (code, stdout, stderr) = outcome(&esp(&["new-key", "--transform", transform], &path));
        assert_eq!((code, &*stdout), (Some(1), ""));
        let rm = format!("remove it first: rm {}", path.display());
        assert!(stderr.contains("exists and was not changed") && stderr.contains(&rm), "{stderr}");
        assert_eq!(fs::read_to_string(&path).unwrap(), key);

        let other = folder.join(format!("{transform}-other"));
        assert!(esp(&["new-key", "--transform", transform], &other).status.success());
        assert_ne!(fs::read_to_string(&other).unwrap(), key);
    }
}

#[test]
fn new_state_creates_private_file_and_keeps_existing_file() {
    let folder = Folder::new();
    let path = folder.join("wan.state");
    let (code, stdout, stderr) = outcome(&esp(&["new-state"], &path));
    assert_eq!((code, &*stdout, &*stderr), (Some(0), "", ""));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\nversion = 2\nwrite_failed = false\n"), "{text}");
    assert_eq!(text.matches("\nepoch = ").count(), 2, "{text}");

    let (code, _, stderr) = outcome(&esp(&["new-state"], &path));
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains(&format!("state file {}: exists and was not changed", path.display())),
        "{stderr}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), text);

    let (code, _, stderr) = outcome(&esp(&["new-state"], &folder.join("no/wan.state")));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot be written: No such file or directory"), "{stderr}");
}

#[test]
fn new_key_rejects_invalid_arguments_and_lists_transforms() {
    let folder = Folder::new();
    let path = folder.join("key");
    for arguments in [&["new-key"][..], &["new-key", "--transform", "aes-128-cbc"], &["new-keys"]] {
        let (code, stdout, stderr) = outcome(&esp(arguments, &path));
        assert_eq!((code, &*stdout), (Some(2), ""), "{arguments:?}: {stderr}");
        assert!(!path.exists(), "{arguments:?}: xdpfwd created a key file");
    }
    let (_, _, stderr) = outcome(&esp(&["new-key", "--transform", "aes-128-cbc"], &path));
    for transform in [
        "aes-128-gcm",
        "aes-256-gcm",
        "chacha20-poly1305",
        "null-aes-128-gmac",
        "null-aes-256-gmac",
    ] {
        assert!(stderr.contains(transform), "{stderr}");
    }
}

#[test]
fn esp_help_has_example_and_exit_codes() {
    for command in ["new-key", "new-state", "accept-state"] {
        let (code, help, _) = outcome(&esp(&[command, "--help"], Path::new("x")));
        assert_eq!(code, Some(0));
        assert!(
            help.contains("Exit codes:") && help.contains(&format!("xdpfwd esp {command} ")),
            "{help}"
        );
    }
}

#[test]
fn accept_state_changes_only_a_file_with_a_failed_write() {
    let folder = Folder::new();
    let path = folder.join("wan.state");
    assert!(esp(&["new-state"], &path).status.success());
    let text = fs::read_to_string(&path).unwrap();
    let (code, stdout, stderr) = outcome(&esp(&["accept-state"], &path));
    assert_eq!((code, &*stderr), (Some(0), ""));
    assert!(stdout.contains("records no failed write; it was not changed"), "{stdout}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);

    // The second newline keeps the length.
    let marked = text.replacen("write_failed = false\n", "write_failed = true\n\n", 1);
    fs::write(&path, marked).unwrap();
    let (code, stdout, stderr) = outcome(&esp(&["accept-state"], &path));
    assert_eq!((code, &*stderr), (Some(0), ""));
    assert!(stdout.contains("could be accepted again"), "{stdout}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);

    fs::write(&path, "nonsense").unwrap();
    let (code, _, stderr) = outcome(&esp(&["accept-state"], &path));
    assert!(code == Some(1) && stderr.contains("is incomplete or was edited"), "{stderr}");
}
