//! Tests the binary with configuration files: output and exit codes. Needs no privileges.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// xdpfwd warns about the two interfaces, which exist on no machine.
const VALID: &str = "\
[[port]]
name = \"lan\"
interface = \"xdpfwd-none0\"
[[port]]
name = \"wan\"
interface = \"xdpfwd-none1\"
[[path]]
from = \"lan\"
to = \"wan\"
stages = [\"hop\"]
[stage.hop]
kind = \"ttl\"
";

struct Outcome {
    exit_code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn xdpfwd(arguments: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_xdpfwd")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome {
        exit_code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn write_file(name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, contents).unwrap();
    path
}

/// Runs `xdpfwd --check`. In the returned output, `FILE` replaces the path of the file.
fn check(file: &Path, arguments: &[&str]) -> Outcome {
    let path = file.to_str().unwrap();
    let outcome = xdpfwd(&[&["--config", path, "--check"], arguments].concat());
    let with_placeholder = |text: String| text.replace(path, "FILE");
    Outcome {
        exit_code: outcome.exit_code,
        stdout: with_placeholder(outcome.stdout),
        stderr: with_placeholder(outcome.stderr),
    }
}

#[test]
fn check_of_valid_file_prints_plan_and_warnings() {
    let outcome = check(&write_file("valid.toml", VALID), &[]);
    assert_eq!(outcome.exit_code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.ends_with("FILE is valid, with 2 warnings\n"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("lan -> wan: hop (decrements TTL"), "{}", outcome.stdout);
    let warnings: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(warnings.len(), 2, "number of warnings: {}", outcome.stderr);
    assert!(
        warnings[0]
            .starts_with("FILE:3:13: warning: interface \"xdpfwd-none0\" does not exist now"),
        "{}",
        warnings[0]
    );
}

#[test]
fn check_json_prints_one_object() {
    let outcome = check(&write_file("json.toml", VALID), &["--json"]);
    assert_eq!((outcome.exit_code, outcome.stdout.lines().count()), (Some(0), 1));
    let json: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&json["schema"], &json["type"]), (&1.into(), &"check".into()));
    assert_eq!(json["ports"][1]["present"], false);
    assert_eq!(json["paths"][0]["stages"][0]["name"], "hop");
    assert_eq!(json["warnings"][0]["line"], 3);
}

#[test]
fn check_of_invalid_file_prints_only_to_stderr() {
    let file =
        write_file("invalid.toml", VALID.replace("xdpfwd-none0", "a/b").replace("ttl", "tll"));
    for arguments in [&[][..], &["--json"]] {
        let outcome = check(&file, arguments);
        assert_eq!((outcome.exit_code, outcome.stdout.as_str()), (Some(2), ""));
        assert_eq!(
            outcome.stderr,
            "FILE:3:13: interface = \"a/b\": must be the name of an interface in quotes, 1 to 15 printable bytes, none of \
             them `/`, `:` or white space\n\
             FILE:12:8: kind = \"tll\": must be \"esp-open\", \"esp-seal\", \"filter\", \"mac-swap\", \"memcpy\", \"payload\", \"set-mac\" or \"ttl\"; did you mean \"ttl\"?\n"
        );
    }
}

#[test]
fn unreadable_or_empty_file_is_rejected_with_reason() {
    const EMPTY_FILE_ERROR: &str = "FILE:1:1: the file is empty; at least a [[port]] and a \
        [[path]] are needed, as in configs/cross-connect.toml\n";
    let pipe = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pipe");
    let _ = fs::remove_file(&pipe);
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let cases = [
        (
            PathBuf::from("/none/such.toml"),
            "FILE: file not found; expected the path of a TOML file\n",
        ),
        (PathBuf::from("/"), "FILE: is a directory; expected the path of a TOML file\n"),
        (
            PathBuf::from("/dev/zero"),
            "FILE:1:1: byte 0x00 is not UTF-8 text; save the file as UTF-8\n",
        ),
        (
            write_file("long.toml", vec![b'\n'; (1 << 20) + 1]),
            "FILE:1048577:1: the file is longer than 1048576 bytes, the limit for a configuration\n",
        ),
        (
            write_file("latin.toml", b"# gr\xfc\xdfe"),
            "FILE:1:5: byte 0xfc is not UTF-8 text; save the file as UTF-8\n",
        ),
        (
            write_file("utf16.toml", b"\xff\xfe[\0"),
            "FILE:1:1: byte 0xff is not UTF-8 text; save the file as UTF-8\n",
        ),
        (write_file("empty.toml", ""), EMPTY_FILE_ERROR),
        (PathBuf::from("/dev/null"), EMPTY_FILE_ERROR),
        // A pipe without a writer: xdpfwd does not wait for one, and reads an empty file.
        (pipe, EMPTY_FILE_ERROR),
    ];
    for (file, expected) in cases {
        let path = file.to_str().unwrap();
        let outcome = xdpfwd(&["--config", path, "--check"]);
        let expected = expected.replacen("FILE", path, 1);
        assert_eq!(
            (outcome.exit_code, outcome.stderr.as_str(), outcome.stdout.as_str()),
            (Some(2), &*expected, "")
        );
    }
}

#[test]
fn configuration_written_to_pipe_in_two_parts_is_read_completely() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_xdpfwd"))
        .args(["--config", "/dev/stdin", "--check"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for part in [&VALID[..40], &VALID[40..]] {
        std::thread::sleep(std::time::Duration::from_millis(50));
        stdin.write_all(part.as_bytes()).unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("/dev/stdin is valid"));
}

#[test]
fn control_characters_in_file_name_are_escaped() {
    for arguments in [&["--check"][..], &["--check", "--json"], &[]] {
        let file = write_file("red\u{1b}[31m\n.toml", "[engine]\nmode = 1\n");
        let outcome = xdpfwd(&[&["--config", file.to_str().unwrap()], arguments].concat());
        assert_eq!(outcome.exit_code, Some(2));
        assert!(
            outcome.stderr.lines().all(|line| line.contains("red\\u{1b}[31m\\n.toml:")),
            "{}",
            outcome.stderr
        );
    }
    let outcome = check(&write_file("valid\u{1b}[31m.toml", VALID), &[]);
    assert_eq!(outcome.exit_code, Some(0));
    assert!(!(outcome.stdout + &outcome.stderr).contains('\u{1b}'));
}

#[test]
fn xdpfwd_exits_with_2_on_usage_error_and_0_on_help() {
    for arguments in [
        &[][..],
        &["--config"],
        &["--config", "a", "--interval", "0"],
        &["--config", "a", "--duration", "NaN"],
        &["--config", "a", "--duration", "-1"],
        &["--config", "a", "--log-format", "xml"],
        &["doctor"],
    ] {
        let outcome = xdpfwd(arguments);
        assert_eq!((outcome.exit_code, outcome.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(!outcome.stderr.is_empty(), "{arguments:?}: no error on stderr");
    }
    let help = xdpfwd(&["--help"]);
    assert_eq!((help.exit_code, help.stderr.as_str()), (Some(0), ""));
    assert!(
        help.stdout.contains("Exit codes:") && help.stdout.contains("Examples:"),
        "{}",
        help.stdout
    );
    let version = xdpfwd(&["--version"]);
    assert_eq!(version.stdout, format!("xdpfwd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn write_error_on_stderr_keeps_exit_code() {
    for (file, code) in
        [(write_file("full.toml", VALID), 0), (write_file("full-invalid.toml", ""), 2)]
    {
        // Every write to /dev/full fails with ENOSPC.
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_xdpfwd"));
        command
            .args(["--config", file.to_str().unwrap(), "--check"])
            .stdout(Stdio::null())
            .stderr(full);
        assert_eq!(command.status().unwrap().code(), Some(code), "{file:?}");
    }
}

#[test]
fn closed_stdout_pipe_keeps_exit_code() {
    let file = write_file("pipe.toml", VALID);
    let mut child = Command::new(env!("CARGO_BIN_EXE_xdpfwd"))
        .args(["--config", file.to_str().unwrap(), "--check"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Errors must not leak secrets, for example of `--config /etc/shadow` as root.
#[test]
fn errors_about_files_without_configuration_do_not_quote_them() {
    let contents = [
        ("shadow", "root:$6$saltsalt$hashhashhash:19000:0:99999:7:::\nbin:*:19000::::::\n"),
        ("key", "0123456789abcdef0123456789abcdef01234567\n"),
        ("env", "port=5432\npassword=hunter22222\nDB_TOKEN='abcdefghijklm\n"),
        ("pem", "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n"),
        ("toml", "password = \"hunter22222\"\n[database]\nsecret = \"abcdefghijklm\"\n"),
        ("quotes", "\"0123456789abcdef\n'0123456789abcdef\n= 0123456789abcdef\n"),
        ("escapes", "a\u{1b}[2Jb = \u{9b}\n"),
    ];
    for (name, text) in contents {
        let file = write_file(&format!("foreign-{name}"), text);
        let rules = write_file(
            &format!("foreign-{name}.toml"),
            VALID.replace("\"ttl\"", &format!("\"filter\"\ndefault = \"drop\"\nrules = {file:?}")),
        );
        for config in [&file, &rules] {
            let outcome = check(config, &[]);
            assert_eq!(outcome.exit_code, Some(2), "{name}: {}", outcome.stderr);
            let message = outcome.stderr.replace(file.to_str().unwrap(), "");
            // Ignore parts of words that also occur in the messages themselves.
            for secret in text.split_whitespace().flat_map(|word| windows(word, 5)) {
                let is_ours =
                    ["passw", "asswo", "sswor", "sword", "datab", "ataba", "tabas", "abase"]
                        .contains(&secret)
                        || ["port=", "secre", "ecret"].contains(&secret);
                assert!(is_ours || !message.contains(secret), "{name}, {secret:?}: {message}");
            }
            let is_control = |c: char| c.is_control() && c != '\n';
            assert!(!message.contains(is_control), "{name}: {message:?}");
        }
    }
}

/// Returns all parts of a word that have `length` bytes.
fn windows(word: &str, length: usize) -> impl Iterator<Item = &str> {
    (0..word.len()).filter_map(move |start| word.get(start..start + length))
}
