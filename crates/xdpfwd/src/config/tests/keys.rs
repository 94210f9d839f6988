//! Keys that are unknown or missing, and values of the wrong type or outside of the valid range.

use super::{MINIMAL, diagnose, diagnose_cases, diagnose_cases_with};

#[test]
fn unknown_keys_are_rejected_at_every_level() {
    assert_snapshot!(diagnose_cases(&[
        "[enigne]\nmode = \"copy\"",
        "[engine]\nmetrics = \"127.0.0.1:9184\"\nbusy-poll = true",
        "[umem]\nframe = 4096",
        "[[port]]\nname = \"lan\"\ninterface = \"eth1\"\nqueue = 1\nkept = []",
        "[[path]]\nfrom = \"lan\"\nto = \"wan\"\nstage = [\"edge\"]",
        "[stage.edge]\nkind = \"set-mac\"\nsource = \"02:00:00:00:00:01\"\ndest = \
         \"02:00:00:00:00:02\"",
        "[stage.edge]\nkind = \"ttl\"\nmin = 1",
        "[engine.mode]\nauto = true",
    ]));
}

#[test]
fn missing_key_error_names_the_key() {
    assert_snapshot!(diagnose_cases(&[
        "[[port]]\n[[path]]\n[stage.edge]",
        "port = [{ name = \"lan\" }]\npath = [{}]"
    ]));
}

#[test]
fn wrong_type_error_lists_accepted_values() {
    assert_snapshot!(diagnose_cases_with(
        MINIMAL,
        &[
            "engine.mode = true\nengine.cores = 1\nengine.busy_poll = \"yes\"\nengine.idle = \
             [\"poll\"]",
            "[engine]\ncores = [0, \"1\", 2.0, true]",
            "[umem]\nframe_size = \"2048\"\nframes = 16384.0\nhuge_pages = true",
            "[umem]\nframes = 1979-05-27",
        ]
    ));
    assert_snapshot!(diagnose_cases(&[
        "[[port]]\nname = 1\ninterface = [\"eth1\"]\nqueues = \"2\"\nio = false",
        "[[path]]\nfrom = [\"lan\"]\nto = { port = \"wan\" }\nstages = \"edge\"",
        "[[path]]\nfrom = \"\"\"\nlan\"\"\"\nto = \"route\"\nstages = [\"a\", 1]",
        "[stage.edge]\nkind = 1",
        "[stage.edge]\nkind = \"set-mac\"\nsource = 1",
    ]));
}

#[test]
fn misplaced_table_error_names_expected_heading() {
    assert_snapshot!(diagnose_cases(&[
        "engine = 1\numem = []\nport = \"eth1\"\npath = 1\nstage = false",
        "port = [1]\npath = [[]]\nstage.edge = \"ttl\"",
        "[port]\nname = \"lan\"\n[path]\nfrom = \"lan\"",
        "[[engine]]\nmode = \"auto\"",
        "[[stage]]\nkind = \"ttl\"",
        "[stage]\nkind = \"ttl\"",
        "engine.mode.x = 1\n[[path]]\nfrom = \"a\"\nto = \"a\"\n[[path.stages]]\nkind = \"ttl\"",
        "[port.lan]\ninterface = \"eth1\"\n[path.there]\nfrom = \"lan\"",
        "[[stage.edge]]\nkind = \"ttl\"",
    ]));
}

#[test]
fn out_of_range_number_error_states_range() {
    assert_snapshot!(diagnose_cases_with(
        MINIMAL,
        &[
            "[umem]\nframe_size = 1024\nframes = 255",
            "[umem]\nframe_size = -2048\nframes = -1",
            "[umem]\nframe_size = 4_294_969_344\nframes = 1048577",
            "[umem]\nframes = 0xffff_ffff_ffff_ffff_ffff_ffff_ffff_ffff_ff",
            "[umem]\nframes = 99999999999999999999999999999999999999999999999999999999999999999999999999999999",
            "[engine]\ncores = [-1, 8192, 99999999999999999999999999999999999999999999]",
        ]
    ));
    assert_snapshot!(diagnose_cases(&[
        "[[port]]\nname = \"a\"\ninterface = \"eth1\"\nqueues = 0",
        "[[port]]\nname = \"a\"\ninterface = \"eth1\"\nqueues = -1",
        "[[port]]\nname = \"a\"\ninterface = \"eth1\"\nqueues = 65536",
    ]));
}

#[test]
fn unknown_choice_error_lists_choices() {
    assert_snapshot!(diagnose_cases_with(
        MINIMAL,
        &[
            "[engine]\nmode = \"zerocopy\"\nidle = \"sleep\"",
            "[engine]\nmode = \"native\"",
            "[engine]\nmode = \"\\u001b[31mcopy\"",
            "[umem]\nhuge_pages = \"yes\"",
            "[[port]]\nname = \"third\"\ninterface = \"jumbo\"\nio = \"af_packet\"",
        ]
    ));
}

#[test]
fn invalid_name_error_states_naming_rules() {
    let port = |name: &str, interface: &str| {
        format!("[[port]]\nname = {name:?}\ninterface = {interface:?}")
    };
    let cases = [
        port("", ""),
        port("route", "eth1/0"),
        port("lan 1", "eth 1"),
        port("größe", "sixteen-bytes-if"),
        // The file has these characters unescaped; the message escapes them.
        "[[port]]\nname = \"\u{202e}nal\"\ninterface = \"eth1\u{a0}\"".to_owned(),
        "[[port]]\nname = \"a\\nb\"\ninterface = \"\\u001b[31m\"".to_owned(),
        port(&"x".repeat(33), ".."),
        "[stage.\"\"]\nkind = \"ttl\"\n[stage.\"a b\"]\nkind = \"ttl\"".to_owned(),
    ];
    assert_snapshot!(diagnose_cases(&cases.iter().map(String::as_str).collect::<Vec<_>>()));
}

#[test]
fn all_missing_keys_of_a_stage_are_reported() {
    let missing = |stage: &str| {
        let text = diagnose(&format!("{MINIMAL}[stage.x]\n{stage}"));
        let lines = text.lines().filter_map(|line| line.split("missing key `").nth(1));
        let mut keys: Vec<_> =
            lines.map(|line| line.split('`').next().unwrap().to_owned()).collect();
        keys.sort();
        keys
    };
    assert_eq!(missing("kind = \"filter\""), ["default", "rules"]);
    assert_eq!(missing("kind = \"filter\"\ndefault = \"drop\""), ["rules"]);
    assert_eq!(missing("kind = \"esp-seal\""), ["sa", "state_file"]);
    assert_eq!(
        missing("kind = \"esp-open\"\nlab = true\n[[stage.x.sa]]\nesn = true"),
        ["key_file", "spi", "state_file", "transform"]
    );
    assert_eq!(
        missing("kind = \"esp-open\"\nlab = true\nstate_file = \"s\"\n[[stage.x.sa]]\nspi = 300"),
        ["key_file", "transform"]
    );
}
