//! Mutated and random texts cause no panic, and every error has a position and advice.

use proptest::prelude::*;

use super::{is_printable, plan};

const VALID_FILES: [&str; 4] = [
    include_str!("../../../../../configs/demo.toml"),
    include_str!("../../../../../configs/router-hop.toml"),
    include_str!("../../../../../configs/two-workers.toml"),
    include_str!("../../../../../configs/jumbo.toml"),
];

/// Pieces of TOML text, valid and invalid.
const PIECES: [&str; 48] = [
    "[engine]",
    "[umem]",
    "[[port]]",
    "[[path]]",
    "[stage.a]",
    "[stage]",
    "[[stage]]",
    "[port]",
    "[[engine]]",
    "[stage.a.b]",
    "mode",
    "cores",
    "frames",
    "frame_size",
    "huge_pages",
    "name",
    "interface",
    "queues",
    "io",
    "from",
    "to",
    "stages",
    "kind",
    "source",
    "stage.a.kind",
    "port",
    " = ",
    "=",
    "\n",
    "\n",
    "\r\n",
    "\"a\"",
    "\"eth1\"",
    "\"ttl\"",
    "\"set-mac\"",
    "[\"a\"]",
    "[",
    "]",
    "{",
    "}",
    "0",
    "-1",
    "4096",
    "9e99",
    "true",
    "'''",
    "# ü",
    "\u{feff}",
];

/// A change of a text. A position or line number beyond the end of the text wraps around.
#[derive(Clone, Debug)]
enum Mutation {
    /// Position and number of characters.
    Delete(usize, usize),
    /// Position and text.
    Insert(usize, String),
    /// Position and number of characters.
    Repeat(usize, usize),
    /// Two line numbers.
    SwapLines(usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let piece = prop_oneof![
        prop::sample::select(&PIECES[..]).prop_map(ToOwned::to_owned),
        any::<char>().prop_map(String::from),
        any::<i128>().prop_map(|number| number.to_string()),
    ];
    prop_oneof![
        (any::<usize>(), 1..20usize).prop_map(|(at, length)| Mutation::Delete(at, length)),
        (any::<usize>(), piece).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        (any::<usize>(), 1..80usize).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Mutation::SwapLines(one, other)),
    ]
}

fn mutate(text: &str, mutations: &[Mutation]) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for mutation in mutations {
        let index = |at: usize| at % (text.len() + 1);
        match mutation {
            &Mutation::Delete(at, length) => {
                let end = (index(at) + length).min(text.len());
                text.drain(index(at)..end);
            }
            Mutation::Insert(at, piece) => {
                let at = index(*at);
                text.splice(at..at, piece.chars());
            }
            &Mutation::Repeat(at, length) => {
                let end = (index(at) + length).min(text.len());
                let piece = text[index(at)..end].to_vec();
                text.splice(end..end, piece);
            }
            &Mutation::SwapLines(one, other) => {
                let mut lines: Vec<String> =
                    text.iter().collect::<String>().split('\n').map(ToOwned::to_owned).collect();
                let (one, other) = (one % lines.len(), other % lines.len());
                lines.swap(one, other);
                text = lines.join("\n").chars().collect();
            }
        }
    }
    text.into_iter().collect()
}

/// Phrases before accepted values or a fix. Each error contains one of them.
const ADVICE: [&str; 18] = [
    "is 6 groups of",
    "must be",
    "expected",
    "write ",
    "keep one",
    "add a ",
    "list at least",
    "are needed",
    "defined: ",
    "needs its own",
    "one path only",
    "would fit",
    "use fewer",
    "need at least",
    "give it ",
    "at most three levels",
    "may only go",
    "lower the MTU",
];

fn value() -> impl Strategy<Value = String> {
    // The numbers before `=>` are relative frequencies.
    let leaf = prop_oneof![
        6 => prop::sample::select(&TEXTS[..]).prop_map(|text| format!("\"{text}\"")),
        4 => prop::sample::select(&NUMBERS[..]).prop_map(|number| number.to_string()),
        1 => any::<i128>().prop_map(|number| number.to_string()),
        1 => any::<f64>().prop_map(|number| format!("{number:?}").to_lowercase()),
        1 => prop::sample::select(&OTHER_VALUES[..]).prop_map(ToOwned::to_owned),
        1 => ".{0,60}".prop_map(|text| toml::Value::String(text).to_string()),
    ];
    // At most 4 levels, about 24 values, and up to 5 elements per list or table.
    leaf.prop_recursive(4, 24, 5, |value| {
        prop_oneof![
            2 => prop::collection::vec(value.clone(), 0..5).prop_map(|values| format!("[{}]", values.join(", "))),
            1 => prop::collection::vec((key(), value), 0..4)
                .prop_map(|entries| inline_table(&entries)),
        ]
    })
}

fn inline_table(entries: &[(String, String)]) -> String {
    let entries: Vec<String> =
        entries.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", entries.join(", "))
}

fn key() -> impl Strategy<Value = String> {
    let known = || prop::sample::select(&KEYS[..]);
    prop_oneof![
        20 => known().prop_map(ToOwned::to_owned),
        2 => (known(), known()).prop_map(|(outer, inner)| format!("{outer}.{inner}")),
        1 => "[^\\p{C}\"\\\\]{0,12}".prop_map(|text| format!("\"{text}\"")),
    ]
}

/// A valid table, or one with an invalid value, a missing key or an extra key.
fn table() -> impl Strategy<Value = String> {
    let changes =
        prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(value())), 0..3);
    let added = prop::collection::vec((key(), value()), 0..2);
    (prop::sample::select(&TABLES[..]), changes, added).prop_map(
        |((header, keys), changes, added)| {
            let mut keys: Vec<(String, String)> = keys
                .split_terminator('\n')
                .filter_map(|line| line.split_once(" = "))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
            for (index, value) in changes {
                if keys.is_empty() {
                    break;
                }
                let index = index.index(keys.len());
                match value {
                    Some(value) => keys[index].1 = value,
                    None => drop(keys.remove(index)),
                }
            }
            let lines =
                keys.into_iter().chain(added).map(|(key, value)| format!("{key} = {value}\n"));
            format!("{header}\n{}", lines.collect::<String>())
        },
    )
}

const TEXTS: [&str; 22] = [
    "lan",
    "wan",
    "a",
    "route",
    "eth1",
    "eth1-alias",
    "eth2",
    "multi1",
    "multi2",
    "opaque",
    "jumbo",
    "none0",
    "ttl",
    "set-mac",
    "hop",
    "mac-swap",
    "auto",
    "copy",
    "on",
    "af_xdp",
    "02:00:00:00:00:01",
    "01:00:00:00:00:01",
];

const NUMBERS: [u32; 12] = [0, 1, 2, 3, 4, 8, 255, 256, 1024, 2048, 4096, 16384];

const OTHER_VALUES: [&str; 9] = [
    "true",
    "false",
    "1979-05-27",
    "07:32:00",
    "1979-05-27T07:32:00Z",
    "nan",
    "-inf",
    "'''\n'''",
    "\"\"\"\n\\u202e\"\"\"",
];

const KEYS: [&str; 24] = [
    "engine",
    "umem",
    "port",
    "path",
    "stage",
    "mode",
    "cores",
    "busy_poll",
    "idle",
    "frame_size",
    "frames",
    "huge_pages",
    "name",
    "interface",
    "queues",
    "io",
    "from",
    "to",
    "stages",
    "kind",
    "source",
    "destination",
    "hop",
    "metrics",
];

const TABLES: [(&str, &str); 15] = [
    ("[[port]]", "name = \"lan\"\ninterface = \"eth1\"\n"),
    ("[[port]]", "name = \"wan\"\ninterface = \"eth2\"\nqueues = 1\n"),
    ("[[port]]", "name = \"lan\"\ninterface = \"multi1\"\nqueues = 8\nio = \"af_xdp\"\n"),
    ("[[port]]", "name = \"wan\"\ninterface = \"opaque\"\nqueues = 8\n"),
    ("[[path]]", "from = \"lan\"\nto = \"wan\"\nstages = [\"hop\"]\n"),
    ("[[path]]", "from = \"wan\"\nto = \"lan\"\nstages = [\"a\", \"hop\"]\n"),
    ("[[path]]", "from = \"lan\"\nto = \"lan\"\n"),
    ("[engine]", "mode = \"auto\"\ncores = [0, 1]\nbusy_poll = true\nidle = \"poll\"\n"),
    ("[umem]", "frame_size = 4096\nframes = 1024\nhuge_pages = \"on\"\n"),
    ("[stage.hop]", "kind = \"ttl\"\n"),
    (
        "[stage.a]",
        "kind = \"set-mac\"\nsource = \"02:00:00:00:00:01\"\ndestination = \"02:00:00:00:00:02\"\n",
    ),
    ("[stage.\"a b\"]", "kind = \"mac-swap\"\n"),
    ("[stage]", "a = { kind = \"ttl\" }\n"),
    ("[port]", "name = \"lan\"\n"),
    ("", "engine = { cores = [0] }\n"),
];

/// Checks the form, the position and the advice of each diagnostic.
fn check(text: &str) -> Result<(), TestCaseError> {
    let without_bom = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = without_bom.split('\n').collect();
    let (diagnostics, accepted) = match plan(text) {
        Ok((plan, warnings)) => {
            prop_assert!(
                !plan.workers.is_empty() && !plan.ports.is_empty() && !plan.paths.is_empty()
            );
            for path in &plan.paths {
                prop_assert!(usize::from(path.from.0.max(path.to.0)) < plan.ports.len());
            }
            (warnings, true)
        }
        Err(errors) => (errors, false),
    };
    prop_assert!(accepted || diagnostics.iter().next().is_some());
    for diagnostic in diagnostics.iter() {
        let message = diagnostic.message();
        prop_assert!(
            message.chars().all(is_printable) && message.chars().count() < 3000,
            "{diagnostic}"
        );
        let Some(position) = diagnostic.position() else {
            prop_assert!(message.ends_with("more not shown"), "{diagnostic}");
            continue;
        };
        prop_assert!(
            accepted || ADVICE.iter().any(|advice| message.contains(advice)),
            "{diagnostic}\n{text}"
        );
        let line = lines.get(position.line - 1);
        prop_assert!(
            line.is_some_and(|line| position.column - 1 <= line.chars().count()),
            "{diagnostic}\n{text}"
        );
    }
    Ok(())
}

proptest! {
    // For more cases, set the environment variable PROPTEST_CASES.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(2000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn mutated_files_give_well_formed_diagnostics(
        file in prop::sample::select(&VALID_FILES[..]),
        mutations in prop::collection::vec(mutation(), 0..8),
    ) {
        check(&mutate(file, &mutations))?;
    }

    #[test]
    fn random_pieces_give_well_formed_diagnostics(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..60)) {
        check(&pieces.concat())?;
    }

    #[test]
    fn invalid_tables_give_well_formed_diagnostics(tables in prop::collection::vec(table(), 0..8)) {
        check(&tables.concat())?;
    }

    #[test]
    fn any_value_for_any_key_gives_well_formed_diagnostics(key in key(), value in value(), is_first in any::<bool>()) {
        let line = format!("{key} = {value}\n");
        check(&if is_first { line + VALID_FILES[0] } else { VALID_FILES[1].to_owned() + &line })?;
    }

    #[test]
    fn any_text_gives_well_formed_diagnostics(text in any::<String>()) {
        check(&text)?;
    }
}
