//! `xdpfwd esp`: key files and state files, as any user, on any machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use xdpfwd_testkit::Folder;

const XDPFWD: &str = env!("CARGO_BIN_EXE_xdpfwd");

fn esp(arguments: &[&str], file: &Path) -> Output {
    // What a file may be for others is not left to who starts it.
    let command = format!("umask 0; exec {XDPFWD} esp \"$@\"");
    Command::new("sh").args(["-c", &command, "sh"]).args(arguments).arg(file).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_key_is_random_its_users_alone_and_never_shown() {
    let folder = Folder::new();
    for (transform, digits) in [
        ("aes-128-gcm", 40),
        ("aes-256-gcm", 72),
        ("chacha20-poly1305", 72),
        ("null-aes-128-gmac", 40),
        ("null-aes-256-gmac", 72),
    ] {
        let path = folder.join(transform);
        let (code, stdout, stderr) = said(&esp(&["new-key", "--transform", transform], &path));
        assert_eq!((code, &*stderr), (Some(0), ""), "{transform}");
        let key = fs::read_to_string(&path).unwrap();
        let line = key.strip_suffix('\n').unwrap();
        assert!(
            line.len() == digits && line.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{transform}: {}",
            line.len()
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let fingerprint = stdout.strip_suffix('\n').unwrap();
        assert!(
            fingerprint.len() == 16 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{stdout}"
        );
        assert!(!key.contains(fingerprint));

        let (code, stdout, stderr) = said(&esp(&["new-key", "--transform", transform], &path));
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
fn a_state_is_new() {
    let folder = Folder::new();
    let path = folder.join("wan.state");
    let (code, stdout, stderr) = said(&esp(&["new-state"], &path));
    assert_eq!((code, &*stdout, &*stderr), (Some(0), "", ""));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\nversion = 1\nepoch = ") && text.ends_with("\n# end\n"), "{text}");

    let (code, _, stderr) = said(&esp(&["new-state"], &path));
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains(&format!("state file {}: exists and was not changed", path.display())),
        "{stderr}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), text);

    let (code, _, stderr) = said(&esp(&["new-state"], &folder.join("no/wan.state")));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot be written: No such file or directory"), "{stderr}");
}

#[test]
fn what_is_no_transform_is_refused_with_those_that_there_are() {
    let folder = Folder::new();
    let path = folder.join("key");
    for arguments in [&["new-key"][..], &["new-key", "--transform", "aes-128-cbc"], &["new-keys"]] {
        let (code, stdout, stderr) = said(&esp(arguments, &path));
        assert_eq!((code, &*stdout), (Some(2), ""), "{arguments:?}: {stderr}");
        assert!(!path.exists());
    }
    let (_, _, stderr) = said(&esp(&["new-key", "--transform", "aes-128-cbc"], &path));
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
fn help_says_how() {
    for command in ["new-key", "new-state"] {
        let (code, help, _) = said(&esp(&[command, "--help"], Path::new("x")));
        assert_eq!(code, Some(0));
        assert!(
            help.contains("Exit codes:") && help.contains(&format!("xdpfwd esp {command} ")),
            "{help}"
        );
    }
}
