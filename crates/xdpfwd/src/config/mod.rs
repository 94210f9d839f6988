//! Resolves a configuration file to the plan that the engine runs.
//!
//! [`Source`] maps byte offsets to lines and columns. [`syntax`] parses the text as TOML.
//! [`parsed`] checks the type and range of each value. [`resolve`] creates the [`Plan`]: it
//! resolves names to indices, plans stages, and checks everything against the [`Machine`]. If the
//! file is not TOML, only TOML errors are reported; otherwise, all errors at once.

mod diagnostic;
#[cfg(test)]
mod fake_machine;
mod file_policy;
mod findings;
mod machine;
mod parsed;
mod resolve;
mod source;
mod syntax;
mod table;
#[cfg(test)]
mod tests;
mod words;

use std::path::Path;

use crate::registry::Registry;
use xdpfwd_engine::Plan;

pub(crate) use diagnostic::{Diagnostic, Diagnostics};
#[cfg(test)]
pub(crate) use fake_machine::FakeMachine;
pub(crate) use file_policy::FilePolicy;
pub(crate) use machine::{Interface, Machine, NoMachine, ThisMachine};
pub(crate) use resolve::{RequiredMemory, largest_mtu};
pub(crate) use source::Source;
pub(crate) use words::escaped;

use findings::Findings;
use parsed::File;
use resolve::ResolveContext;

/// Returns the plan and the warnings, or all errors.
pub(crate) fn load(
    path: &Path,
    registry: &Registry,
    machine: &dyn Machine,
    files: FilePolicy,
) -> Result<(Plan, Diagnostics), Diagnostics> {
    let directory = path.parent().unwrap_or(Path::new(""));
    let warning = files
        .check(path)
        .map_err(|error| Diagnostic::error(&path.display().to_string(), None, error))?;
    let source = Source::read(path)?;
    let mut findings = Findings::new(&source);
    if let Some(warning) = warning {
        findings.warning(&(0..0), warning);
    }
    plan_with(findings, &source, &ResolveContext { directory, registry, machine, files })
}

/// Like [`load`], but for a text that has already been read. File names in it are relative to
/// `directory`. Does not check who can change these files.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn plan(
    source: &Source,
    directory: &Path,
    registry: &Registry,
    machine: &dyn Machine,
) -> Result<(Plan, Diagnostics), Diagnostics> {
    let context = ResolveContext { directory, registry, machine, files: FilePolicy::Accept };
    plan_with(Findings::new(source), source, &context)
}

fn plan_with(
    mut findings: Findings<'_>,
    source: &Source,
    context: &ResolveContext<'_>,
) -> Result<(Plan, Diagnostics), Diagnostics> {
    let Some(root) = syntax::parse(source, &mut findings) else {
        return Err(findings.into_errors());
    };
    let file = File::read(root, &mut findings);
    let plan = resolve::resolve(file, context, &mut findings);
    findings.finish().map(|warnings| (plan, warnings))
}
