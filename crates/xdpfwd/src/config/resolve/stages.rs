//! Resolves the stages: each kind creates the plans of its stages.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use xdpfwd_pipeline::{PlanCx, StagePlan, StagePlanError};

use super::missing_keys;
use crate::registry::{Registry, Toml};
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use crate::config::diagnostic::Severity;
use crate::config::findings::Findings;
use crate::config::machine::Machine;
use crate::config::parsed::{StageTable, Tables, stage_heading};
use crate::config::table::display_value;
use crate::config::words::{did_you_mean, quoted_or_list};

/// Maximum number of errors about one stage's keys. After each, the stage is planned again without
/// the invalid key, or with a placeholder for the missing key.
const MAX_ERRORS: usize = 10;

pub(super) struct Stages {
    by_name: BTreeMap<String, DefinedStage>,
    /// See [`Tables::is_complete`].
    pub(super) is_complete: bool,
}

pub(super) struct DefinedStage {
    pub(super) span: Range<usize>,
    /// `None` if the stage is invalid.
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

/// Plans every stage, even if no path uses it.
pub(super) fn resolve(
    stages: Tables<StageTable<'_>>,
    registry: &Registry,
    machine: &dyn Machine,
    cx: &PlanCx<'_>,
    findings: &mut Findings<'_>,
) -> Stages {
    let is_complete = stages.is_complete;
    let mut by_name = BTreeMap::new();
    for stage in stages.tables {
        let (name, span) = (stage.name.get_ref().clone(), stage.name.span());
        let plan = plan(stage, registry, machine, cx, findings);
        by_name.insert(name, DefinedStage { span, plan });
    }
    Stages { by_name, is_complete }
}

fn plan(
    stage: StageTable<'_>,
    registry: &Registry,
    machine: &dyn Machine,
    cx: &PlanCx<'_>,
    findings: &mut Findings<'_>,
) -> Option<Arc<dyn StagePlan>> {
    let StageTable { span, name: stage, kind, kind_keys } = stage;
    let Some(kind) = kind else {
        let kinds = quoted_or_list(registry.kinds());
        findings.error(
            &span,
            format!("missing key `kind` in {}: must be {kinds}", stage_heading(stage.get_ref())),
        );
        return None;
    };
    let kind_span = kind.span();
    let kind_name = kind.get_ref().as_str().unwrap_or_default();
    if !registry.kinds().any(|known| known == kind_name) {
        if let Some(feature) = machine.feature_for(kind_name) {
            // The cargo feature adds the kind only if this program registers built-in stages.
            let has_builtin = xdpfwd_stages::builtin::<Toml>()
                .kinds()
                .any(|kind| registry.kinds().any(|registered| registered == kind));
            let registration =
                if has_builtin { "" } else { " and `App::stages(xdpfwd_stages::builtin())`" };
            let message = format!(
                "kind = \"{kind_name}\": not built into this program; \
                 build it with the cargo feature `{feature}` of xdpfwd{registration}"
            );
            findings.error(&kind_span, message);
            return None;
        }
        let kinds = quoted_or_list(registry.kinds());
        let nearest = did_you_mean(kind_name, registry.kinds());
        let value_text = display_value(&kind, findings);
        findings.error(&kind_span, format!("kind = {value_text}: must be {kinds}{nearest}"));
        return None;
    }
    let mut kind_keys = kind_keys;
    let mut removed_keys: Vec<String> = Vec::new();
    for tries in 0..MAX_ERRORS {
        match registry.plan(kind_name, ValueDeserializer::from(kind_keys.clone()), cx) {
            Ok(plan) => {
                for diagnostic in plan.warnings() {
                    findings.stage_diagnostic(Severity::Warning, &span, diagnostic);
                }
                // After an error, this plan lacks the invalid keys.
                return (tries == 0).then_some(plan);
            }
            Err(StagePlanError::Parse(error)) => {
                let at = error.span().unwrap_or_else(|| span.clone());
                if let Some(key) = missing_keys::missing_key(error.message()) {
                    // This loop removed the key after an earlier error: the file has it.
                    if removed_keys.iter().any(|removed| removed == key) {
                        break;
                    }
                    let message = message(error.message(), kind_name, &findings.excerpt(&at));
                    findings.error(&at, message);
                    // Plans the stage with other keys; returns an error in them.
                    let read =
                        |keys| match registry.plan(kind_name, ValueDeserializer::from(keys), cx) {
                            Err(StagePlanError::Parse(error)) => Some(error),
                            _ => None,
                        };
                    match missing_keys::add(&kind_keys, &at, key, read) {
                        Some(filled) => kind_keys = filled,
                        None => break,
                    }
                    continue;
                }
                let removed = take_entry(&mut kind_keys, &at);
                if removed.is_none() && tries > 0 {
                    break;
                }
                removed_keys.extend(removed.iter().map(|(key, _)| key.clone()));
                // Errors that contain " field `" are about a key inside of the value.
                let message = match &removed {
                    Some((key, value))
                        if value.span() == at && !error.message().contains(" field `") =>
                    {
                        value_message(error.message(), key, value, findings)
                    }
                    _ => message(error.message(), kind_name, &findings.excerpt(&at)),
                };
                findings.error(&at, message);
                if removed.is_none() {
                    break;
                }
            }
            Err(StagePlanError::Plan(error)) => {
                if tries == 0 && error.0.is_empty() {
                    findings
                        .error(&span, "the stage is invalid; its kind gives no reason".to_owned());
                } else if tries == 0 {
                    error.0.iter().for_each(|diagnostic| {
                        findings.stage_diagnostic(Severity::Error, &span, diagnostic)
                    });
                }
                break;
            }
            Err(error) => {
                if tries == 0 {
                    findings.error(&span, error.to_string());
                }
                break;
            }
        }
    }
    None
}

/// Removes the entry whose key or value contains the span `at`.
fn take_entry<'i>(
    table: &mut Spanned<DeValue<'i>>,
    at: &Range<usize>,
) -> Option<(String, Spanned<DeValue<'i>>)> {
    let DeValue::Table(entries) = table.get_mut() else { return None };
    let is_in = |span: &Range<usize>| span.start <= at.start && at.end <= span.end;
    let (key, _) =
        entries.iter().find(|(key, value)| is_in(&key.span()) || is_in(&value.span()))?;
    let key = key.get_ref().clone().into_owned();
    let value = entries.remove(key.as_str())?;
    Some((key, value))
}

fn value_message(
    message: &str,
    key: &str,
    value: &Spanned<DeValue<'_>>,
    findings: &Findings<'_>,
) -> String {
    let value_text = display_value(value, findings);
    let expected =
        message.strip_prefix("invalid ").and_then(|message| message.rsplit_once(", expected "));
    match expected {
        Some((_, expected)) => format!("{key} = {value_text}: must be {}", describe_type(expected)),
        None => format!("{key} = {value_text}: {message}"),
    }
}

/// Rewords a serde error.
fn message(message: &str, kind: &str, excerpt: &str) -> String {
    if let Some(key_and_accepted) = message.strip_prefix("unknown field ") {
        return match key_and_accepted.rsplit_once(", expected ") {
            Some((key, accepted)) => {
                let nearest = did_you_mean(key.trim_matches('`'), backticked(accepted));
                format!("unknown key `{excerpt}` for kind \"{kind}\", expected {accepted}{nearest}")
            }
            None => {
                format!("unknown key `{excerpt}` for kind \"{kind}\", expected only `kind`")
            }
        };
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("missing key {key}, which kind \"{kind}\" needs");
    }
    match message.rsplit_once(", expected ") {
        Some((what, expected)) => format!("{what}, expected {}", describe_type(expected)),
        _ => message.to_owned(),
    }
}

/// Replaces Rust's type names by descriptions.
fn describe_type(expected: &str) -> String {
    match expected {
        "u8" => format!("an integer from 0 to {}", u8::MAX),
        "u16" => format!("an integer from 0 to {}", u16::MAX),
        "u32" => format!("an integer from 0 to {}", u32::MAX),
        "u64" | "usize" => "an integer from 0".to_owned(),
        "a string" | "a borrowed string" => "a string in quotes".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list in brackets".to_owned(),
        other => other.to_owned(),
    }
}

fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}
