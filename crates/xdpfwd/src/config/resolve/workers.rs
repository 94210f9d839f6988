//! Resolves the workers: one per configured core.

use std::collections::BTreeSet;

use toml::Spanned;

use crate::config::findings::Findings;
use crate::config::machine::Machine;
use crate::config::table::ParsedKey;
use crate::config::words::ranges;

/// Returns the core of each worker, or `None` for a worker that is not pinned. Returns `None`
/// instead of the list if `cores` is invalid.
pub(super) fn resolve(
    cores: &ParsedKey<Vec<Spanned<u16>>>,
    machine: &dyn Machine,
    findings: &mut Findings<'_>,
) -> Option<Vec<Option<usize>>> {
    let configured = match cores {
        ParsedKey::Absent => return Some(vec![None]),
        ParsedKey::Invalid => return None,
        ParsedKey::Valid(cores) => cores,
    };
    let available = machine.cores();
    if configured.get_ref().is_empty() {
        let available_cores = if available.is_empty() {
            String::new()
        } else {
            format!(" of {}", ranges(&available))
        };
        let message = format!(
            "cores = []: list at least one core{available_cores}, or remove the key for one worker \
             on any core"
        );
        findings.error(&configured.span(), message);
        return None;
    }
    if available.is_empty() && machine.is_real() {
        let message = "cannot check whether this process may use the cores (sched_getaffinity)";
        findings.warning(&configured.span(), message.to_owned());
    }
    let mut all_valid = true;
    let mut seen = BTreeSet::new();
    let mut workers = Vec::new();
    for core in configured.get_ref() {
        let number = usize::from(*core.get_ref());
        if !seen.insert(number) {
            let message = format!("core {number} is listed twice: each worker needs its own core");
            findings.error(&core.span(), message);
            all_valid = false;
        } else if !available.is_empty() && !available.contains(&number) {
            let available = ranges(&available);
            let message = format!(
                "core {number} is not available to this process; expected one of {available}"
            );
            findings.error(&core.span(), message);
            all_valid = false;
        }
        workers.push(Some(number));
    }
    all_valid.then_some(workers)
}
