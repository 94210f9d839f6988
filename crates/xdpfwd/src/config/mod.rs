//! The configuration: from a file as it is written to the plan that the engine runs.
//!
//! [`Source`] is the text and knows lines and columns. [`written`] is what it says: tables and keys
//! of the right kinds and sizes, each with its place. [`resolve`] makes a [`Plan`] of it: names
//! become indices, stages are planned, and everything is checked against the [`Machine`]. What is
//! found on the way is a [`Diagnostic`]. All errors of a file are reported at once, except that
//! nothing is read from a file that is not TOML.

mod diagnostic;
mod findings;
#[cfg(test)]
mod imagined;
mod machine;
mod resolve;
mod source;
mod syntax;
mod table;
#[cfg(test)]
mod tests;
mod words;
mod written;

use std::path::Path;

use crate::registry::Registry;
use xdpfwd_engine::Plan;

pub(crate) use diagnostic::{Diagnostic, Diagnostics};
#[cfg(test)]
pub(crate) use imagined::Imagined;
pub(crate) use machine::{Interface, Machine, NoMachine, ThisMachine};
pub(crate) use resolve::{Needed, longest_mtu};
pub(crate) use source::Source;
pub(crate) use words::plain;

use findings::Findings;
use resolve::Surroundings;
use written::File;

/// Reads a file and resolves it. Gives the plan and the warnings, or all errors.
pub(crate) fn load(
    path: &Path,
    registry: &Registry,
    machine: &dyn Machine,
) -> Result<(Plan, Diagnostics), Diagnostics> {
    let directory = path.parent().unwrap_or(Path::new(""));
    plan(&Source::read(path)?, directory, registry, machine)
}

/// Resolves a file's text. File names in it start from the directory.
pub(crate) fn plan(
    source: &Source,
    directory: &Path,
    registry: &Registry,
    machine: &dyn Machine,
) -> Result<(Plan, Diagnostics), Diagnostics> {
    let mut findings = Findings::new(source);
    let Some(root) = syntax::parse(source, &mut findings) else {
        return Err(findings.into_errors());
    };
    let file = File::read(root, &mut findings);
    let plan =
        resolve::resolve(file, &Surroundings { directory, registry, machine }, &mut findings);
    findings.finish().map(|warnings| (plan, warnings))
}
