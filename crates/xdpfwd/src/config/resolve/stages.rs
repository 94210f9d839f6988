//! The stages: each planned by its kind.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use pipeline::{KindError, PlanCx, Registry, StagePlan};
use toml::de::ValueDeserializer;

use crate::config::diagnostic::Findings;
use crate::config::words::{any_quoted, did_you_mean};
use crate::config::written::{Several, StageTable};

/// The stages that are defined.
pub(super) struct Stages {
    by_name: BTreeMap<String, DefinedStage>,
    /// Whether these are all; see [`Several::complete`].
    pub(super) complete: bool,
}

/// A stage that is defined.
pub(super) struct DefinedStage {
    /// Where its name stands.
    pub(super) span: Range<usize>,
    /// What it does; `None` if that is no good, and an error says so.
    pub(super) plan: Option<Arc<dyn StagePlan>>,
}

impl Stages {
    pub(super) fn get(&self, name: &str) -> Option<&DefinedStage> {
        self.by_name.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &DefinedStage)> {
        self.by_name.iter().map(|(name, stage)| (name.as_str(), stage))
    }
}

/// Plans every stage that is defined, whether a path uses it or not.
pub(super) fn resolve(
    stages: Several<StageTable<'_>>,
    registry: &Registry,
    cx: &PlanCx<'_>,
    findings: &mut Findings<'_>,
) -> Stages {
    let complete = stages.complete;
    let mut by_name = BTreeMap::new();
    for stage in stages.tables {
        let (name, span) = (stage.name.get_ref().clone(), stage.name.span());
        let plan = plan(stage, registry, cx, findings);
        by_name.insert(name, DefinedStage { span, plan });
    }
    Stages { by_name, complete }
}

fn plan(
    stage: StageTable<'_>,
    registry: &Registry,
    cx: &PlanCx<'_>,
    findings: &mut Findings<'_>,
) -> Option<Arc<dyn StagePlan>> {
    let StageTable { span, name: stage, kind, rest } = stage;
    let Some(kind) = kind else {
        let known = any_quoted(registry.kinds());
        findings.error(&span, format!("missing key `kind` in [stage.{}]: must be {known}", stage.get_ref()));
        return None;
    };
    let kind_span = kind.span();
    let name = kind.get_ref().as_str().unwrap_or_default();
    if !registry.kinds().any(|known| known == name) {
        let known = any_quoted(registry.kinds());
        let nearest = did_you_mean(name, registry.kinds());
        let written = findings.excerpt(&kind_span);
        findings.error(&kind_span, format!("kind = {written}: must be {known}{nearest}"));
        return None;
    }
    match registry.plan(name, ValueDeserializer::from(rest), cx) {
        Ok(plan) => Some(plan),
        Err(KindError::Parse(error)) => {
            let at = error.span().unwrap_or(span);
            findings.error(&at, message(error.message(), name));
            None
        }
        Err(error) => {
            findings.error(&span, error.to_string());
            None
        }
    }
}

/// What serde says, in the words of the rest of the file.
fn message(message: &str, kind: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return match rest.split_once(", expected ") {
            Some((key, accepted)) => {
                let nearest = did_you_mean(key.trim_matches('`'), backticked(accepted));
                format!("unknown key {key} for kind \"{kind}\", expected {accepted}{nearest}")
            }
            None => {
                let key = rest.strip_suffix(", there are no fields").unwrap_or(rest);
                format!("unknown key {key} for kind \"{kind}\", expected no key but `kind`")
            }
        };
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("missing key {key}, which kind \"{kind}\" needs");
    }
    // Rust's names of its types mean nothing to most people.
    match message.rsplit_once(", expected ") {
        Some((what, "u8")) => format!("{what}, expected an integer from 0 to {}", u8::MAX),
        Some((what, "u16")) => format!("{what}, expected an integer from 0 to {}", u16::MAX),
        Some((what, "u32")) => format!("{what}, expected an integer from 0 to {}", u32::MAX),
        Some((what, "u64" | "usize")) => format!("{what}, expected an integer from 0"),
        _ => message.to_owned(),
    }
}

/// The words of a text that stand in backticks.
fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}
