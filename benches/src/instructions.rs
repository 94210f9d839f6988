//! `instructions`: instructions of the data path per packet, counted by callgrind and compared with
//! the numbers in the repository.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::common::build_output;
use xdpfwd_bench::machine::said;

const SCENARIOS: [&str; 6] =
    ["kernel", "rings", "port", "worker", "worker-mac-swap", "worker-three-stages"];
/// Packets per round of examples/counted.rs.
const BATCH: u64 = 64;
/// Rounds of the first count; the second has three times as many.
const ROUNDS: u64 = 500;
/// An increase beyond this fails; a decrease beyond this requests an update.
const TOLERANCE: f64 = 0.05;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The program to count: examples/counted.rs, built with the release profile
    /// [default: beside this program]
    #[arg(long)]
    program: Option<PathBuf>,
    /// The numbers in the repository
    #[arg(long, default_value = "benches/instructions.json")]
    numbers: PathBuf,
    /// Write the counts to this file instead of comparing
    #[arg(long)]
    update: bool,
}

/// The numbers in the repository.
#[derive(Debug, Deserialize, Serialize)]
struct Numbers {
    /// `rustc --version`, because the counts depend on the compiler.
    rustc: String,
    /// Instructions of user code per packet.
    per_packet: BTreeMap<String, f64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let rustc = said("rustc", &["--version"]);
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => build_output()?.join("examples/counted"),
    };
    let mut per_packet = BTreeMap::new();
    for scenario in SCENARIOS {
        let (few, many) =
            (count(&program, scenario, ROUNDS)?, count(&program, scenario, 3 * ROUNDS)?);
        let each = many.saturating_sub(few) as f64 / (2 * ROUNDS * BATCH) as f64;
        per_packet.insert(scenario.to_owned(), (100.0 * each).round() / 100.0);
    }
    let counted = Numbers { rustc, per_packet };
    if arguments.update {
        let text = serde_json::to_string_pretty(&counted)? + "\n";
        fs::write(&arguments.numbers, text)
            .with_context(|| format!("writing {}", arguments.numbers.display()))?;
        println!(
            "{} is up to date; commit it with what changed the numbers",
            arguments.numbers.display()
        );
        return Ok(());
    }
    let text = fs::read_to_string(&arguments.numbers).with_context(|| {
        format!(
            "{} can't be read; `make bench-instructions UPDATE=1` writes it",
            arguments.numbers.display()
        )
    })?;
    let known: Numbers =
        serde_json::from_str(&text).with_context(|| format!("{}", arguments.numbers.display()))?;
    let judged = judge(&known, &counted);
    print!("{}", judged.text);
    if judged.worse.is_empty() {
        return Ok(());
    }
    bail!(
        "more than {} % worse: {}. If that is as it must be, `make bench-instructions UPDATE=1`, and say why in the commit",
        100.0 * TOLERANCE,
        judged.worse.join(", ")
    )
}

struct Judged {
    text: String,
    worse: Vec<String>,
}

fn judge(known: &Numbers, counted: &Numbers) -> Judged {
    let same_compiler = known.rustc == counted.rustc;
    let mut text = format!("instructions for each packet, batches of {BATCH}, callgrind\n");
    let mut worse = Vec::new();
    let mut update = false;
    for (name, now) in &counted.per_packet {
        let (before, verdict) = match known.per_packet.get(name) {
            None => {
                update = true;
                ("none".to_owned(), "new".to_owned())
            }
            Some(before) => {
                let change = now / before - 1.0;
                if change > TOLERANCE {
                    worse.push(name.clone());
                }
                update |= change < -TOLERANCE;
                let word = if change > TOLERANCE {
                    "  WORSE"
                } else if change < -TOLERANCE {
                    "  better"
                } else {
                    ""
                };
                (format!("{before:.2}"), format!("{:+.1} %{word}", 100.0 * change))
            }
        };
        text += &format!("  {name:<22}{now:>8.2}   in the repository {before:>8}   {verdict}\n");
    }
    for gone in known.per_packet.keys().filter(|name| !counted.per_packet.contains_key(*name)) {
        text += &format!("  {gone:<22}in the repository, and not counted any more\n");
        update = true;
    }
    if update {
        text += "Better than the repository says, or different: `make bench-instructions UPDATE=1`, and commit it.\n";
    }
    if !same_compiler {
        // Another compiler: report clearly that nothing was compared.
        text += &format!(
            "NOT JUDGED: the numbers are of {}, this is {}. Another compiler makes other code. To judge a change here, \
             `make bench-instructions UPDATE=1` before it, and without after it.\n",
            known.rustc, counted.rustc
        );
        worse.clear();
    }
    Judged { text, worse }
}

/// Returns the instructions of one run of the program.
fn count(program: &Path, scenario: &str, rounds: u64) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([scenario, &rounds.to_string()])
        .output()
        .context("valgrind can't be started: apt-get install valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!(
            "`valgrind … {} {scenario} {rounds}` failed with {}: {}",
            program.display(),
            output.status,
            said.trim()
        );
    }
    // ==1234== Collected : 5678
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .map(|(_, count)| count.trim().parse());
    match collected {
        Some(Ok(count)) => Ok(count),
        _ => bail!("callgrind does not say how many instructions it counted: {}", said.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(rustc: &str, per_packet: &[(&str, f64)]) -> Numbers {
        let per_packet = per_packet.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        Numbers { rustc: rustc.to_owned(), per_packet }
    }

    #[test]
    fn increase_of_5_percent_fails_and_decrease_requests_update() {
        let known = numbers("1", &[("a", 100.0), ("b", 100.0), ("c", 100.0)]);
        let judged = judge(&known, &numbers("1", &[("a", 105.1), ("b", 104.9), ("c", 94.9)]));
        assert_eq!(judged.worse, ["a"]);
        assert!(
            judged.text.contains("UPDATE=1") && !judged.text.contains("NOT JUDGED"),
            "{}",
            judged.text
        );
        let judged = judge(&known, &numbers("1", &[("a", 96.0), ("b", 104.0), ("c", 100.0)]));
        assert!(judged.worse.is_empty() && !judged.text.contains("UPDATE=1"), "{}", judged.text);
    }

    #[test]
    fn other_compiler_reports_not_compared() {
        let judged = judge(&numbers("1", &[("a", 100.0)]), &numbers("2", &[("a", 200.0)]));
        assert!(judged.worse.is_empty());
        assert!(
            judged.text.contains("NOT JUDGED") && judged.text.contains("WORSE"),
            "{}",
            judged.text
        );
    }

    #[test]
    fn new_or_removed_scenario_requests_update() {
        for counted in [numbers("1", &[]), numbers("1", &[("a", 1.0), ("b", 1.0)])] {
            let judged = judge(&numbers("1", &[("a", 1.0)]), &counted);
            assert!(judged.worse.is_empty() && judged.text.contains("UPDATE=1"), "{}", judged.text);
        }
    }
}
