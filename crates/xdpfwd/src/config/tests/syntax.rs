//! Files that are empty or not TOML.

use super::{REST, answers, answers_with, plan, said};

#[test]
fn what_is_not_toml_has_its_place() {
    assert_reads!(answers(&[
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

/// The parser continues after a mistake and reports false errors.
#[test]
fn what_only_follows_from_a_mistake_is_not_told() {
    assert_reads!(answers_with(
        REST,
        &[
            "[engine]\ncores = [0, 1\n[umem]\nframes = 1024",
            "engine = { mode = \"auto\"",
            "[engine]\nmode = \"\"\"auto\"",
            "[engine]\ncores = [\"0, 1]",
            "[engine\nmode = \"auto\"",
            "[port]\nname = \"a\"",
            "[stage.a]\nkind = \"ttl\"\n[stage.a]\nkind = \"ttl\"\n[engine]\nidle = \"poll\"\nidle = \"spin\"",
            "engine: auto",
            "[engine]\rmode = \"auto\"\r",
        ]
    ));
}

#[test]
fn words_that_are_no_values_say_what_would_be() {
    assert_reads!(answers(&[
        "[umem]\nframes = 16k\nframe_size = 2 * 1024\nhuge_pages = off",
        "[umem]\nframes = 0x4g\nframe_size = 02048\nhuge_pages = null",
        "[engine]\nmode = “auto”\nbusy_poll = True\nidle\u{a0}= \"poll\"\ncores == [0]",
        "[engine]\nmode = \"au\u{7}to\"\nidle = \"\\q\"",
        "engine = { mode = \"auto\" }\nengine.idle = \"poll\"",
    ]));
}

#[test]
fn an_empty_file_says_what_is_needed() {
    assert_reads!(answers(&["", "\n\n", "# only a comment\n", "\u{feff}"]));
}

#[test]
fn deep_nesting_is_an_error() {
    let array = said(&format!("[engine]\ncores = {}", "[".repeat(100_000)));
    assert!(array.starts_with("x.toml:2:"), "{array}");
    let key = said(&format!("{}a = 1", "a.".repeat(100_000)));
    assert!(key.starts_with("x.toml:1:1: keys or values nested too deeply"), "{key}");
    let table = said(&format!("engine = {}", "{a=".repeat(100_000)));
    assert!(table.starts_with("x.toml:1:250: keys or values nested too deeply"), "{table}");
}

/// Would take minutes if each parser error were located by scanning from the start of the text or
/// line.
#[test]
fn a_line_of_mistakes_is_judged_in_no_time() {
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
        let text = said(&piece.repeat((1 << 20) / piece.len()));
        assert!((1..=10).contains(&text.lines().count()), "{piece}: {text}");
    }
}

#[test]
fn a_byte_order_mark_and_carriage_returns_change_nothing() {
    let windows = format!("\u{feff}{}", REST.replace('\n', "\r\n"));
    assert_eq!(format!("{:?}", plan(&windows).unwrap()), format!("{:?}", plan(REST).unwrap()));
    let wrong = said(&windows.replace("\"eth1\"", "1"));
    assert!(wrong.starts_with("x.toml:4:13: interface = 1: must be"), "{wrong}");
}

#[test]
fn a_file_of_another_kind_is_not_taken_apart() {
    let yaml = said(&"port:\n  - name: lan\n".repeat(100));
    let lines: Vec<&str> = yaml.lines().collect();
    assert_eq!(lines.len(), 10, "{yaml}");
    assert!(lines[0].starts_with("x.toml:1:"), "{yaml}");
}

/// Would take minutes if each undefined name were compared with each defined one.
#[test]
fn a_large_file_is_judged_in_no_time() {
    let used: String = (0..60_000).map(|n| format!("\"s{n}\",")).collect();
    let defined: String = (0..20_000).map(|n| format!("[stage.t{n}]\n")).collect();
    let text = said(&format!("{REST}stages = [{used}]\n{defined}"));
    assert!(text.contains("there is no stage \"s0\"; defined: \"t0\""), "{text}");
}

#[test]
fn a_flood_of_errors_is_cut_short() {
    let text = said(&"[[port]]\n".repeat(20_000));
    assert_eq!(text.lines().count(), 51);
    assert!(text.ends_with("more like these\n"), "{text}");
}
