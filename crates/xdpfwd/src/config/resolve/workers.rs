//! Resolves the workers: one per configured core.

use std::collections::BTreeSet;

use toml::Spanned;

use crate::config::findings::Findings;
use crate::config::machine::Machine;
use crate::config::table::Written;
use crate::config::words::ranges;

/// Returns each worker's core; `None` if the number of workers is unknown.
pub(super) fn resolve(
    cores: &Written<Vec<Spanned<u16>>>,
    machine: &dyn Machine,
    findings: &mut Findings<'_>,
) -> Option<Vec<Option<usize>>> {
    let written = match cores {
        Written::Absent => return Some(vec![None]),
        Written::Refused => return None,
        Written::Is(cores) => cores,
    };
    let there = machine.cores();
    if written.get_ref().is_empty() {
        let choice =
            if there.is_empty() { String::new() } else { format!(" of {}", ranges(&there)) };
        let message = format!(
            "cores = []: list at least one core{choice}, or remove the key for one worker on any core"
        );
        findings.error(&written.span(), message);
        return None;
    }
    let mut countable = true;
    let mut named = BTreeSet::new();
    let mut workers = Vec::new();
    for core in written.get_ref() {
        let number = usize::from(*core.get_ref());
        if !named.insert(number) {
            let message =
                format!("core {number} is listed twice: each worker needs its own core");
            findings.error(&core.span(), message);
            countable = false;
        } else if !there.is_empty() && !there.contains(&number) {
            let there = ranges(&there);
            let message = format!(
                "core {number} is missing or this process may not run on it, expected one of {there}"
            );
            findings.error(&core.span(), message);
            countable = false;
        }
        workers.push(Some(number));
    }
    countable.then_some(workers)
}
