//! The binary and its configuration file: what is said, where, and with which exit code. Needs no
//! privilege.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file that is fine on any machine: its interfaces are on none.
const FINE: &str = "\
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

struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn xdpfwd(arguments: &[&str]) -> Answer {
    let output = Command::new(env!("CARGO_BIN_EXE_xdpfwd")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Answer { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn written(name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, contents).unwrap();
    path
}

/// `--config FILE --check`, with the file's path taken out of what is said.
fn check(file: &Path, more: &[&str]) -> Answer {
    let path = file.to_str().unwrap();
    let answer = xdpfwd(&[&["--config", path, "--check"], more].concat());
    let plain = |text: String| text.replace(path, "FILE");
    Answer { code: answer.code, stdout: plain(answer.stdout), stderr: plain(answer.stderr) }
}

#[test]
fn a_file_that_is_fine_is_shown_with_its_warnings() {
    let answer = check(&written("fine.toml", FINE), &[]);
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    assert!(answer.stdout.ends_with("FILE is fine, with 2 warnings\n"), "{}", answer.stdout);
    assert!(answer.stdout.contains("lan -> wan: hop (decrements TTL"), "{}", answer.stdout);
    let warnings: Vec<&str> = answer.stderr.lines().collect();
    assert_eq!(warnings.len(), 2);
    assert!(
        warnings[0].starts_with("FILE:3:13: warning: there is no interface \"xdpfwd-none0\""),
        "{}",
        warnings[0]
    );
}

#[test]
fn json_is_one_object() {
    let answer = check(&written("json.toml", FINE), &["--json"]);
    assert_eq!((answer.code, answer.stdout.lines().count()), (Some(0), 1));
    let json: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!((&json["schema"], &json["type"]), (&1.into(), &"check".into()));
    assert_eq!(json["ports"][1]["present"], false);
    assert_eq!(json["paths"][0]["stages"][0]["name"], "hop");
    assert_eq!(json["warnings"][0]["line"], 3);
}

#[test]
fn errors_go_to_stderr_and_nothing_to_stdout() {
    let file = written("wrong.toml", FINE.replace("xdpfwd-none0", "a/b").replace("ttl", "tll"));
    for more in [&[][..], &["--json"]] {
        let answer = check(&file, more);
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(2), ""));
        assert_eq!(
            answer.stderr,
            "FILE:3:13: interface = \"a/b\": must be the name of an interface in quotes, 1 to 15 printable bytes without /, : \
             and white space\n\
             FILE:12:8: kind = \"tll\": must be \"esp-open\", \"esp-seal\", \"filter\", \"mac-swap\", \"payload\", \"set-mac\" or \"ttl\"; did you mean \"ttl\"?\n"
        );
    }
}

#[test]
fn files_that_cannot_be_read() {
    const NOTHING: &str = "FILE:1:1: the file says nothing; at least a [[port]] and a [[path]] are needed, as in \
                           configs/cross-connect.toml\n";
    let pipe = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pipe");
    let _ = fs::remove_file(&pipe);
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let cases = [
        (
            PathBuf::from("/none/such.toml"),
            "FILE: there is no such file; expected the path of a TOML file\n",
        ),
        (PathBuf::from("/"), "FILE: is a directory; expected the path of a TOML file\n"),
        (
            PathBuf::from("/dev/zero"),
            "FILE:1:1: byte 0x00 is not UTF-8 text; save the file as UTF-8\n",
        ),
        (
            written("long.toml", vec![b'\n'; (1 << 20) + 1]),
            "FILE:1048577:1: the file is longer than 1048576 bytes, the most that a configuration may have\n",
        ),
        (
            written("latin.toml", b"# gr\xfc\xdfe"),
            "FILE:1:5: byte 0xfc is not UTF-8 text; save the file as UTF-8\n",
        ),
        (
            written("utf16.toml", b"\xff\xfe[\0"),
            "FILE:1:1: byte 0xff is not UTF-8 text; save the file as UTF-8\n",
        ),
        (written("empty.toml", ""), NOTHING),
        (PathBuf::from("/dev/null"), NOTHING),
        // Nobody writes to it, and nobody waits for that.
        (pipe, NOTHING),
    ];
    for (file, expected) in cases {
        let path = file.to_str().unwrap();
        let answer = xdpfwd(&["--config", path, "--check"]);
        let expected = expected.replacen("FILE", path, 1);
        assert_eq!(
            (answer.code, answer.stderr.as_str(), answer.stdout.as_str()),
            (Some(2), &*expected, "")
        );
    }
}

#[test]
fn a_configuration_may_come_through_a_pipe() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_xdpfwd"))
        .args(["--config", "/dev/stdin", "--check"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for half in [&FINE[..40], &FINE[40..]] {
        std::thread::sleep(std::time::Duration::from_millis(50));
        stdin.write_all(half.as_bytes()).unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("/dev/stdin is fine"));
}

#[test]
fn the_name_of_a_file_says_nothing_to_the_terminal() {
    for (more, code) in [(&["--check"][..], 2), (&["--check", "--json"], 2), (&[], 2)] {
        let file = written("red\u{1b}[31m\n.toml", "[engine]\nmode = 1\n");
        let answer = xdpfwd(&[&["--config", file.to_str().unwrap()], more].concat());
        assert_eq!(answer.code, Some(code));
        assert!(
            answer.stderr.lines().all(|line| line.contains("red\\u{1b}[31m\\n.toml:")),
            "{}",
            answer.stderr
        );
    }
    let answer = check(&written("fine\u{1b}[31m.toml", FINE), &[]);
    assert_eq!(answer.code, Some(0));
    assert!(!(answer.stdout + &answer.stderr).contains('\u{1b}'));
}

#[test]
fn usage_errors_are_code_2_and_help_is_0() {
    for arguments in [
        &[][..],
        &["--config"],
        &["--config", "a", "--interval", "0"],
        &["--config", "a", "--duration", "NaN"],
        &["--config", "a", "--duration", "-1"],
        &["--config", "a", "--log-format", "xml"],
        &["doctor"],
    ] {
        let answer = xdpfwd(arguments);
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(!answer.stderr.is_empty());
    }
    let help = xdpfwd(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    assert!(
        help.stdout.contains("Exit codes:") && help.stdout.contains("Examples:"),
        "{}",
        help.stdout
    );
    let version = xdpfwd(&["--version"]);
    assert_eq!(version.stdout, format!("xdpfwd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_full_disk_under_the_log_changes_no_exit_code() {
    for (file, code) in [(written("full.toml", FINE), 0), (written("full-wrong.toml", ""), 2)] {
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
fn a_reader_that_goes_away_is_no_failure() {
    let file = written("pipe.toml", FINE);
    let mut child = Command::new(env!("CARGO_BIN_EXE_xdpfwd"))
        .args(["--config", file.to_str().unwrap(), "--check"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
