//! No text makes it panic, and every error has a place in the text.

use proptest::prelude::*;

use super::plan;

/// Files that are fine, for mutation to begin with.
const FINE: [&str; 4] = [
    include_str!("../../../../../configs/demo.toml"),
    include_str!("../../../../../configs/router-hop.toml"),
    include_str!("../../../../../configs/two-workers.toml"),
    include_str!("../../../../../configs/jumbo.toml"),
];

/// What a file is made of, and what it is not.
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

#[derive(Clone, Debug)]
enum Mutation {
    Delete(usize, usize),
    Insert(usize, String),
    Repeat(usize, usize),
    Swap(usize, usize),
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
        (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Mutation::Swap(one, other)),
    ]
}

fn mutate(text: &str, mutations: &[Mutation]) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for mutation in mutations {
        let place = |at: usize| at % (text.len() + 1);
        match mutation {
            &Mutation::Delete(at, length) => {
                let end = (place(at) + length).min(text.len());
                text.drain(place(at)..end);
            }
            Mutation::Insert(at, piece) => {
                let at = place(*at);
                text.splice(at..at, piece.chars());
            }
            &Mutation::Repeat(at, length) => {
                let end = (place(at) + length).min(text.len());
                let piece = text[place(at)..end].to_vec();
                text.splice(end..end, piece);
            }
            &Mutation::Swap(one, other) => {
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

/// Whether what is said about a text keeps to the form.
fn check(text: &str) -> Result<(), TestCaseError> {
    let bare = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = bare.split('\n').collect();
    let (diagnostics, accepted) = match plan(text) {
        Ok((plan, warnings)) => {
            prop_assert!(!plan.workers.is_empty() && !plan.ports.is_empty() && !plan.paths.is_empty());
            for path in &plan.paths {
                prop_assert!(usize::from(path.from.0.max(path.to.0)) < plan.ports.len());
            }
            (warnings, true)
        }
        Err(errors) => (errors, false),
    };
    prop_assert!(accepted || diagnostics.iter().next().is_some());
    for diagnostic in diagnostics.iter() {
        prop_assert!(!diagnostic.message().contains('\n'), "{diagnostic}");
        prop_assert!(!diagnostic.message().chars().any(char::is_control), "{diagnostic}");
        let Some(place) = diagnostic.place() else { continue };
        let line = lines.get(place.line - 1);
        prop_assert!(line.is_some_and(|line| place.column - 1 <= line.chars().count()), "{diagnostic}\n{text}");
    }
    Ok(())
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(2000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn mutated_files(
        file in prop::sample::select(&FINE[..]),
        mutations in prop::collection::vec(mutation(), 0..8),
    ) {
        check(&mutate(file, &mutations))?;
    }

    #[test]
    fn pieces_in_any_order(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..60)) {
        check(&pieces.concat())?;
    }

    #[test]
    fn any_text(text in any::<String>()) {
        check(&text)?;
    }
}
