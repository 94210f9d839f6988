//! `instructions`: CPU instructions per packet, counted by callgrind and compared with the stored
//! numbers.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::common::{build_output, print};
use xdpfwd_bench::machine::tool_output;

const SCENARIOS: [&str; 7] = [
    "kernel",
    "rings",
    "port",
    "worker",
    "worker-mac-swap",
    "worker-memcpy",
    "worker-three-stages",
];
/// Packets per round in examples/counted.rs.
const BATCH: u64 = 64;
/// Rounds of the first count; the second has three times as many.
const ROUNDS: u64 = 500;
/// Accepted relative change. A larger increase is an error; a larger decrease requests an update.
const TOLERANCE: f64 = 0.05;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Store the counts in the file instead of comparing
    #[arg(long)]
    update: bool,
    /// File with the stored numbers
    #[arg(long, value_name = "FILE", default_value = "benches/instructions.json")]
    numbers: PathBuf,
    /// The measured program, a release build of examples/counted.rs [default: next to this program]
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Numbers {
    /// `rustc --version`, because the counts depend on the compiler.
    rustc: String,
    /// User-space instructions per packet, by scenario.
    per_packet: BTreeMap<String, f64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let rustc = tool_output("rustc", &["--version"]);
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => build_output()?.join("examples/counted"),
    };
    let mut per_packet = BTreeMap::new();
    for scenario in SCENARIOS {
        let (first_count, second_count) =
            (count(&program, scenario, ROUNDS)?, count(&program, scenario, 3 * ROUNDS)?);
        let instructions =
            second_count.saturating_sub(first_count) as f64 / (2 * ROUNDS * BATCH) as f64;
        per_packet.insert(scenario.to_owned(), (100.0 * instructions).round() / 100.0);
    }
    let counted = Numbers { rustc, per_packet };
    if arguments.update {
        let text = serde_json::to_string_pretty(&counted)? + "\n";
        fs::write(&arguments.numbers, text)
            .with_context(|| format!("writing {}", arguments.numbers.display()))?;
        print(
            &(format!(
                "updated {}; commit it together with the change that affects the numbers",
                arguments.numbers.display()
            ) + "\n"),
        )?;
        return Ok(());
    }
    let text = fs::read_to_string(&arguments.numbers).with_context(|| {
        format!(
            "cannot read {}; create it with: make bench-instructions UPDATE=1",
            arguments.numbers.display()
        )
    })?;
    let stored: Numbers =
        serde_json::from_str(&text).with_context(|| format!("{}", arguments.numbers.display()))?;
    let comparison = compare(&stored, &counted);
    print(&comparison.text)?;
    if comparison.worse.is_empty() {
        return Ok(());
    }
    bail!(
        "more than {} % more instructions: {}; if this is intended, run \
         `make bench-instructions UPDATE=1` and give the reason in the commit",
        100.0 * TOLERANCE,
        comparison.worse.join(", ")
    )
}

struct Comparison {
    text: String,
    worse: Vec<String>,
}

fn compare(stored: &Numbers, counted: &Numbers) -> Comparison {
    let same_compiler = stored.rustc == counted.rustc;
    let mut text = format!("instructions per packet, batches of {BATCH}, callgrind\n");
    let mut worse = Vec::new();
    let mut needs_update = false;
    for (name, now) in &counted.per_packet {
        let (before, verdict) = match stored.per_packet.get(name) {
            None => {
                needs_update = true;
                ("none".to_owned(), "new".to_owned())
            }
            Some(before) => {
                let change = now / before - 1.0;
                if change > TOLERANCE {
                    worse.push(name.clone());
                }
                needs_update |= change < -TOLERANCE;
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
        text += &format!("  {name:<22}{now:>8.2}   stored {before:>8}   {verdict}\n");
    }
    for removed in stored.per_packet.keys().filter(|name| !counted.per_packet.contains_key(*name)) {
        text += &format!("  {removed:<22}stored, but no longer counted\n");
        needs_update = true;
    }
    if needs_update {
        text += "The stored numbers are outdated: run `make bench-instructions UPDATE=1` and \
                 commit the result.\n";
    }
    if !same_compiler {
        text += &format!(
            "NOT COMPARED: the stored numbers are of {}, this is {}. Another compiler \
             generates other code. To compare a change, run `make bench-instructions UPDATE=1` \
             before it and `make bench-instructions` after it.\n",
            stored.rustc, counted.rustc
        );
        worse.clear();
    }
    Comparison { text, worse }
}

fn count(program: &Path, scenario: &str, rounds: u64) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([scenario, &rounds.to_string()])
        .output()
        .context("cannot start valgrind; run: apt-get install valgrind")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!(
            "`valgrind … {} {scenario} {rounds}` failed with {}: {}",
            program.display(),
            output.status,
            stderr.trim()
        );
    }
    // For example: ==1234== Collected : 5678
    let collected = stderr
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .map(|(_, count)| count.trim().parse());
    match collected {
        Some(Ok(count)) => Ok(count),
        _ => bail!("callgrind printed no number of instructions: {}", stderr.trim()),
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
        let stored = numbers("1", &[("a", 100.0), ("b", 100.0), ("c", 100.0)]);
        let comparison =
            compare(&stored, &numbers("1", &[("a", 105.1), ("b", 104.9), ("c", 94.9)]));
        assert_eq!(comparison.worse, ["a"]);
        assert!(
            comparison.text.contains("UPDATE=1") && !comparison.text.contains("NOT COMPARED"),
            "{}",
            comparison.text
        );
        let comparison =
            compare(&stored, &numbers("1", &[("a", 96.0), ("b", 104.0), ("c", 100.0)]));
        assert!(
            comparison.worse.is_empty() && !comparison.text.contains("UPDATE=1"),
            "{}",
            comparison.text
        );
    }

    #[test]
    fn other_compiler_reports_not_compared() {
        let comparison = compare(&numbers("1", &[("a", 100.0)]), &numbers("2", &[("a", 200.0)]));
        assert!(comparison.worse.is_empty());
        assert!(
            comparison.text.contains("NOT COMPARED") && comparison.text.contains("WORSE"),
            "{}",
            comparison.text
        );
    }

    #[test]
    fn new_or_removed_scenario_requests_update() {
        for counted in [numbers("1", &[]), numbers("1", &[("a", 1.0), ("b", 1.0)])] {
            let comparison = compare(&numbers("1", &[("a", 1.0)]), &counted);
            assert!(
                comparison.worse.is_empty() && comparison.text.contains("UPDATE=1"),
                "{}",
                comparison.text
            );
        }
    }
}
