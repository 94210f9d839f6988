//! Stages: their kinds, and the keys of those.

use std::sync::Arc;

use pipeline::{PlanCx, PlanError, Registry, StageConfig, StagePlan, stages::MacSwap};
use serde::Deserialize;

use super::{REST, answers_with};
use crate::config::{Imagined, Source};

#[test]
fn kinds_and_their_keys() {
    assert_reads!(answers_with(
        REST,
        &[
            "[stage.edge]",
            "[stage.edge]\nkind = \"mac-swp\"",
            "[stage.edge]\nkind = \"nat\"\nrules = []",
            "[stage.edge]\nkind = \"set-mac\"",
            "[stage.edge]\nkind = \"set-mac\"\nsource = \"02:00:00:00:00\"",
            "[stage.edge]\nkind = \"set-mac\"\nsource = \"02\\n\\u001b[31m\"",
            "[stage.edge]\nsource = \"ff:ff:ff:ff:ff:ff\"\nkind = \"set-mac\"",
            "[stage.edge]\nkind = \"set-mac\"\nsource = 1979-05-27\ndestination = [\"02:00:00:00:00:01\"]\n\"a\\nb\" = 1",
            "[stage.edge]\nmin = 1\nkind = \"ttl\"\nmax = 2",
            "[stage.edge]\nkind = \"mac-swap\"\n[stage.edge.inner]\nx = 1",
            "[stage.edge]\nkind = \"TTL\"",
            "[stage.\"a b\"]",
            "[stage.edge.kind]",
        ]
    ));
}

/// A kind whose table has tables in it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NestedConfig {
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    port: u16,
    #[serde(default)]
    label: String,
}

impl StageConfig for NestedConfig {
    const KIND: &'static str = "nested";

    fn plan(self, cx: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError> {
        match self.rules.iter().find(|rule| rule.port == 0) {
            Some(rule) => Err(PlanError::new(format!("rule {:?} of {} workers: port 0", rule.label, cx.workers))),
            None => Ok(Arc::new(MacSwap)),
        }
    }
}

#[test]
fn errors_inside_of_a_stage_have_their_own_place() {
    let said = |stage: &str| {
        let text = format!("{REST}\n[stage.ä-1]\n{stage}").replace("ä", "a");
        let registry = Registry::builtin().with::<NestedConfig>();
        let source = Source::new("x.toml".into(), text);
        match crate::config::plan(&source, std::path::Path::new("."), &registry, &Imagined::usual()) {
            Ok((_, warnings)) => warnings.to_string(),
            Err(errors) => errors.to_string(),
        }
    };
    // The text begins on line 13 with the stage's first key.
    let kind = "kind = \"nested\"";
    assert_eq!(
        said(&format!("rules = [{{ port = 1 }}, {{ label = \"ä\", port = 65536 }}]\n{kind}")),
        "x.toml:13:46: invalid value: integer `65536`, expected an integer from 0 to 65535\n"
    );
    assert_eq!(
        said(&format!("{kind}\n[[stage.a-1.rules]]\nport = 1\n[[stage.a-1.rules]]\nprt = 1")),
        "x.toml:17:1: unknown key `prt` for kind \"nested\", expected `port` or `label`; did you mean \"port\"?\n"
    );
    assert_eq!(
        said(&format!("{kind}\n[[stage.a-1.rules]]\nlabel = \"x\"")),
        "x.toml:14:1: missing key `port`, which kind \"nested\" needs\n"
    );
    assert_eq!(said(kind), "x.toml:12:1: missing key `rules`, which kind \"nested\" needs\n");
    assert_eq!(said(&format!("{kind}\nrules = [{{ port = 0 }}]")), "x.toml:12:1: rule \"\" of 1 workers: port 0\n");
}
