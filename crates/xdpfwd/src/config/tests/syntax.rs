//! Files that are empty or not TOML.

use super::{MINIMAL, diagnose, diagnose_cases, diagnose_cases_with, plan};

#[test]
fn invalid_toml_error_has_position() {
    assert_snapshot!(diagnose_cases(&[
        "[engine]\nmode = auto",
        "[engine]\nmode =\nidle = spin",
        "[engine\nmode = \"auto\"",
        "engine",
        "[[port]]\nname = \"lan\ninterface = \"eth1\"",
        "[engine]\ncores = [0, 1\n",
        "[engine]\nidle = \"poll\"\nidle = \"spin\"",
        "[port]\nname = \"lan\"\n[port]\nname = \"wan\"",
        "[engine]\n[engine]",
        "[umem]\nframes = 16_384_",
        "größe = 1",
        "[engine]\nmode = \u{1b}[31m",
        "[engine] # ä\nmode = \"ü\" ö",
    ]));
}

/// After a mistake, the TOML parser continues, and reports consequential errors. xdpfwd omits them.
#[test]
fn consequential_toml_errors_are_omitted() {
    assert_snapshot!(diagnose_cases_with(
        MINIMAL,
        &[
            "[engine]\ncores = [0, 1\n[umem]\nframes = 1024",
            "engine = { mode = \"auto\"",
            "[engine]\nmode = \"\"\"auto\"",
            "[engine]\ncores = [\"0, 1]",
            "[engine\nmode = \"auto\"",
            "[port]\nname = \"a\"",
            "[stage.a]\nkind = \"ttl\"\n[stage.a]\nkind = \"ttl\"\n[engine]\nidle = \
             \"poll\"\nidle = \"spin\"",
            "engine: auto",
            "[engine]\rmode = \"auto\"\r",
        ]
    ));
}

#[test]
fn invalid_toml_value_error_states_valid_form() {
    assert_snapshot!(diagnose_cases(&[
        "[umem]\nframes = 16k\nframe_size = 2 * 1024\nhuge_pages = off",
        "[umem]\nframes = 0x4g\nframe_size = 02048\nhuge_pages = null",
        "[engine]\nmode = “auto”\nbusy_poll = True\nidle\u{a0}= \"poll\"\ncores == [0]",
        "[engine]\nmode = \"au\u{7}to\"\nidle = \"\\q\"",
        "engine = { mode = \"auto\" }\nengine.idle = \"poll\"",
    ]));
}

#[test]
fn empty_file_error_names_required_tables() {
    assert_snapshot!(diagnose_cases(&["", "\n\n", "# only a comment\n", "\u{feff}"]));
}

#[test]
fn deep_nesting_is_error() {
    let array = diagnose(&format!("[engine]\ncores = {}", "[".repeat(100_000)));
    assert!(array.starts_with("x.toml:2:"), "{array}");
    let key = diagnose(&format!("{}a = 1", "a.".repeat(100_000)));
    assert!(key.starts_with("x.toml:1:1: keys or values nested too deeply"), "{key}");
    let table = diagnose(&format!("engine = {}", "{a=".repeat(100_000)));
    assert!(table.starts_with("x.toml:1:250: keys or values nested too deeply"), "{table}");
}

/// This test would take minutes if the lookup of each error's line scanned the whole text.
#[test]
fn text_full_of_errors_is_checked_quickly() {
    for piece in [
        "=",
        "\"",
        "[",
        "{",
        "'",
        "a={b=1,b=1}\n",
        "[a]\n",
        "[a]\nb=1\n",
        "a=[\n",
        "a,",
        "\u{feff}",
    ] {
        let text = diagnose(&piece.repeat((1 << 20) / piece.len()));
        assert!((1..=10).contains(&text.lines().count()), "{piece}: {text}");
    }
}

#[test]
fn byte_order_mark_and_crlf_do_not_change_plan() {
    let windows = format!("\u{feff}{}", MINIMAL.replace('\n', "\r\n"));
    assert_eq!(format!("{:?}", plan(&windows).unwrap()), format!("{:?}", plan(MINIMAL).unwrap()));
    let diagnostics = diagnose(&windows.replace("\"eth1\"", "1"));
    assert!(diagnostics.starts_with("x.toml:4:13: interface = 1: must be"), "{diagnostics}");
}

#[test]
fn yaml_file_gives_only_ten_errors() {
    let yaml = diagnose(&"port:\n  - name: lan\n".repeat(100));
    let lines: Vec<&str> = yaml.lines().collect();
    assert_eq!(lines.len(), 10, "{yaml}");
    assert!(lines[0].starts_with("x.toml:1:"), "{yaml}");
}

/// This test would take minutes if each undefined name were compared with each defined name.
#[test]
fn large_file_is_checked_quickly() {
    let used: String = (0..60_000).map(|n| format!("\"s{n}\",")).collect();
    let defined: String = (0..20_000).map(|n| format!("[stage.t{n}]\n")).collect();
    let text = diagnose(&format!("{MINIMAL}stages = [{used}]\n{defined}"));
    assert!(text.contains("there is no stage \"s0\"; defined: \"t0\""), "{text}");
}

#[test]
fn errors_beyond_fifty_are_only_counted() {
    let text = diagnose(&"[[port]]\n".repeat(20_000));
    assert_eq!(text.lines().count(), 51);
    assert!(text.ends_with("more not shown\n"), "{text}");
}
