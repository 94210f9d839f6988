//! Compares `docs/configuration.md` with the accepted configuration.

use std::collections::BTreeMap;

use xdpfwd_engine::KeepRule;

use super::{KeyFolder, MINIMAL, diagnose, plan};

const PAGE: &str = include_str!("../../../../../docs/configuration.md");

/// A date, which is invalid for every key.
const INVALID: &str = "1979-05-27";

/// Returns the required keys of stage kinds, as (kind, key, valid value).
fn required_keys(key_files: &KeyFolder) -> [(&'static str, &'static str, String); 9] {
    let sa = |more_keys: &str| {
        format!(
            "[{{ spi = 256, transform = \"aes-128-gcm\", key_file = \"{}/in.key\"{more_keys} }}]",
            key_files.display()
        )
    };
    let text = ToOwned::to_owned;
    [
        ("filter", "rules", text("[]")),
        ("filter", "default", text(r#""drop""#)),
        ("payload", "signatures", text("[]")),
        ("esp-open", "lab", text("true")),
        ("esp-open", "state_file", text(r#""x.state""#)),
        ("esp-open", "sa", sa("")),
        ("esp-seal", "lab", text("true")),
        ("esp-seal", "state_file", text(r#""x.state""#)),
        ("esp-seal", "sa", sa(", source = \"192.0.2.1\", destination = \"192.0.2.2\"")),
    ]
}

thread_local! {
    /// The key files of the test that runs on this thread.
    static KEYS: KeyFolder = KeyFolder::new();
}

/// The first three cells of a row of a key table: `| key | accepted values | default | meaning |`.
struct Row {
    key: String,
    accepted: String,
    /// The cell, which contains backquotes if it states a value of the key.
    default: String,
}

/// Returns the rows of the key tables on the page, by heading.
fn documented_rows() -> BTreeMap<String, Vec<Row>> {
    let mut sections = BTreeMap::new();
    let mut rows: &mut Vec<Row> = &mut Vec::new();
    let mut in_key_table = false;
    for line in PAGE.lines() {
        if let Some(heading) = line.trim_start_matches('#').strip_prefix(" `") {
            rows = sections.entry(heading.trim_end_matches('`').to_owned()).or_default();
        } else if !line.starts_with('|') {
            in_key_table = false;
        } else if line.starts_with("| key ") {
            in_key_table = true;
        } else if let Some(row) = line.strip_prefix("| `").filter(|_| in_key_table) {
            let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
            let &[key, accepted, default, _] = cells.as_slice() else { panic!("{line}") };
            let plain = |cell: &str| cell.trim_matches('`').to_owned();
            rows.push(Row {
                key: plain(key),
                accepted: plain(accepted),
                default: default.to_owned(),
            });
        }
    }
    sections
}

/// Returns a valid configuration in which one table contains `line`. `heading` is its heading on
/// the page, such as `[engine]` or `kind = "ttl"`.
fn with_line(heading: &str, line: &str) -> String {
    match heading {
        // Replace the line of the same key.
        "[[port]]" | "[[path]]" => {
            let key = line.split(' ').next().unwrap();
            let (before, after) = MINIMAL.split_once(heading).unwrap();
            let (table, others) = after.split_at(after.find("[[").unwrap_or(after.len()));
            let mut other_lines: Vec<&str> =
                table.lines().filter(|line| !line.starts_with(&format!("{key} "))).collect();
            if key == "qdisc" {
                other_lines.push("io = \"packet\"");
            }
            format!("{before}{heading}\n{line}\n{}\n{others}", other_lines.join("\n"))
        }
        _ => match heading.strip_prefix("kind = ") {
            Some(kind) => {
                let key = line.split(' ').next().unwrap();
                let required_keys = KEYS.with(required_keys);
                let required = required_keys.iter().filter(|(required_kind, required_key, _)| {
                    kind.contains(required_kind) && *required_key != key
                });
                let required: String =
                    required.map(|(_, key, value)| format!("{key} = {value}\n")).collect();
                format!("{MINIMAL}[stage.x]\nkind = {kind}\n{required}{line}\n")
            }
            None => format!("{MINIMAL}{}\n{line}\n", heading.replace("NAME", "x")),
        },
    }
}

/// Returns the accepted keys, from the error about an unknown key.
fn accepted_keys(heading: &str) -> Vec<String> {
    let text = diagnose(&with_line(heading, "zzz = 1"));
    let line = text
        .lines()
        .find(|line| line.contains("unknown key `zzz`"))
        .unwrap_or_else(|| panic!("{heading}: {text}"));
    let (_, list) = line.split_once(", expected ").unwrap();
    let keys = list.split('`').skip(1).step_by(2).map(ToOwned::to_owned);
    // `kind` itself is documented under `[stage.NAME]`.
    keys.filter(|key| key != "kind").collect()
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

#[test]
fn documented_keys_equal_accepted_keys() {
    let documented = documented_rows();
    for (heading, rows) in &documented {
        let keys: Vec<String> = rows.iter().map(|row| row.key.clone()).collect();
        if heading == "[stage.NAME]" {
            assert_eq!(keys, ["kind"]);
        } else {
            assert_eq!(sorted(keys), sorted(accepted_keys(heading)), "{heading}");
        }
    }
}

#[test]
fn documented_keep_rules_equal_accepted_rules() {
    let (_, section) = PAGE.split_once("### What stays with the kernel").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `\"")).flat_map(|row| {
        let (rules, _) = row.trim_start_matches("| ").split_once(" | ").unwrap();
        rules
            .split(", ")
            .map(|rule| rule.trim_matches(['`', '"']).replace("PORT", "1").replace("ID", "1"))
    });
    let rows: Vec<String> = rows.collect();
    let accepted = KeepRule::ACCEPTED.split('"').skip(1).step_by(2);
    let accepted: Vec<String> =
        accepted.map(|rule| rule.replace("PORT", "1").replace("ID", "1")).collect();
    assert_eq!(sorted(rows.clone()), sorted(accepted));
    assert!(rows.iter().all(|rule| rule.parse::<KeepRule>().is_ok()));
}

#[test]
fn documented_sections_equal_tables_and_kinds() {
    let text = diagnose(&format!("zzz = 1\n{MINIMAL}"));
    let (_, list) = text.split_once(", expected ").unwrap();
    let tables: Vec<String> = list.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect();
    let kinds: Vec<String> = xdpfwd_stages::builtin::<crate::registry::Toml>()
        .kinds()
        .map(|kind| format!("kind = \"{kind}\""))
        .collect();
    let bare =
        |heading: &String| heading.trim_matches(['[', ']']).trim_end_matches(".NAME").to_owned();
    let headings: Vec<String> = documented_rows().keys().map(bare).collect();
    assert_eq!(sorted(headings), sorted([tables, kinds].concat()));
}

#[test]
fn documented_values_equal_accepted_values_in_errors() {
    for (heading, rows) in documented_rows() {
        for Row { key, accepted, .. } in rows {
            let text = diagnose(&with_line(&heading, &format!("{key} = {INVALID}\n")));
            assert!(!text.contains("unknown key"), "{heading} {key}: {text}");
            // Errors about the keys of a stage kind may have a different form.
            if let Some((_, must_be)) = text.split_once(&format!("{key} = {INVALID}: must be ")) {
                assert_eq!(must_be.lines().next(), Some(accepted.as_str()), "{heading} {key}");
            } else {
                assert!(heading.starts_with("kind = "), "{heading} {key}: {text}");
            }
        }
    }
}

#[test]
fn documented_defaults_equal_values_of_missing_keys() {
    // Returns the plan as text, without random seeds. If `text` defines a stage, puts it on a path.
    let planned = |text: &str| {
        let text = text.replacen(
            "from = \"lan\"",
            "from = \"lan\"\nstages = [\"x\"]",
            usize::from(text.contains("[stage.x]")),
        );
        let debug = format!("{:?}", plan(&text).unwrap());
        let parts = debug
            .split("seed: ")
            .map(|part| part.trim_start_matches(|digit: char| digit.is_ascii_digit()));
        parts.collect::<Vec<_>>().join("seed: ")
    };
    let mut compared = 0;
    for (heading, rows) in documented_rows() {
        for Row { key, default, .. } in rows {
            let text = with_line(&heading, &format!("{key} = {}\n", default.trim_matches('`')));
            if default.starts_with('`') {
                let line = format!("{key} = {}\n", default.trim_matches('`'));
                let without = text.replacen(&line, "", 1);
                assert_eq!(planned(&text), planned(&without), "{heading} {key} = {default}");
                compared += 1;
            } else if default == "required" {
                let missing = match heading.as_str() {
                    "[stage.NAME]" => diagnose(&format!("{MINIMAL}[stage.x]")),
                    kind if kind.starts_with("kind = ") => diagnose(
                        &with_line(kind, &format!("{key} = 1")).replace(&format!("{key} = 1"), ""),
                    ),
                    _ => diagnose(&heading),
                };
                assert!(
                    missing.contains(&format!("missing key `{key}`")),
                    "{heading} {key}: {missing}"
                );
            }
        }
    }
    assert_eq!(compared, 32, "documented default values");
}

const OPERATIONS: &str = include_str!("../../../../../docs/operations.md");

/// systemd's default limit would leave the service failed after five quick starts.
#[test]
fn documented_unit_restarts_for_ever_with_a_pause() {
    let (unit, service) =
        OPERATIONS.split_once("[Unit]").unwrap().1.split_once("[Service]").unwrap();
    let service = service.split("[Install]").next().unwrap();
    assert!(unit.contains("\nStartLimitIntervalSec=0\n"), "{unit}");
    for line in ["Restart=on-failure", "RestartSec=5", "LimitNOFILE=65536"] {
        assert!(service.contains(&format!("\n{line}\n")), "{service}");
    }
}

#[test]
fn documented_setcap_comes_after_chgrp_and_chmod() {
    let position = |command: &str| OPERATIONS.find(command).unwrap();
    assert!(position("chgrp xdpfwd /usr/local/bin/xdpfwd-caps\n") < position("chmod 0750 "));
    assert!(position("chmod 0750 ") < position("setcap cap_net_admin"));
    assert_eq!(OPERATIONS.matches("+ep").count(), 1, "each `setcap` needs a group");
    // After `setcap`, `chmod` would not remove the capabilities.
    assert_eq!(OPERATIONS.matches("sudo chmod ").count(), 1, "only before `setcap`");
}

/// The user of the service is not in the group that may execute the binary with capabilities. The
/// names differ, because systemd refuses a dynamic user with the name of a group.
#[test]
fn documented_service_user_differs_from_group_of_operators() {
    let words_after = |text: &str| -> Vec<&str> {
        let rests = OPERATIONS.split(text).skip(1);
        rests.map(|rest| rest.split([' ', '\n', '`']).next().unwrap()).collect()
    };
    assert_eq!(words_after("groupadd --system --force "), ["xdpfwd"]);
    assert_eq!(words_after("\nUser="), ["xdpfwd-run", "xdpfwd-run"]);
    assert_eq!(words_after("--shell /usr/sbin/nologin "), ["xdpfwd-run"]);
    for text in ["install -d -o ", "sudo -u "] {
        let users = words_after(text);
        assert!(!users.is_empty() && users.iter().all(|user| *user == "xdpfwd-run"), "{users:?}");
    }
    assert_eq!(words_after("ExecStart="), ["/usr/local/bin/xdpfwd"]);
    assert!(OPERATIONS.contains("-m 0755 target/release/xdpfwd /usr/local/bin/xdpfwd\n"));
}
