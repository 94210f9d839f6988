//! Stage kinds, and their keys.

use std::sync::Arc;

use xdpfwd_pipeline::{Cx, PlanCx, PlanError, PlanFn, StageConfig, StagePlan, View};

use serde::Deserialize;
use xdpfwd_stages::{MacSwap, MacSwapConfig};

use super::{MINIMAL, diagnose_cases_with};
use crate::config::{FakeMachine, Source};
use crate::registry::Registry;

#[test]
fn invalid_stage_error_lists_accepted_kinds_and_keys() {
    assert_snapshot!(diagnose_cases_with(
        MINIMAL,
        &[
            "[stage.edge]",
            "[stage.edge]\nkind = \"mac-swp\"",
            "[stage.edge]\nkind = \"nat\"\nrules = []",
            "[stage.edge]\nkind = \"set-mac\"",
            "[stage.edge]\nkind = \"set-mac\"\nsource = \"02:00:00:00:00\"",
            "[stage.edge]\nkind = \"set-mac\"\nsource = \"02\\n\\u001b[31m\"",
            "[stage.edge]\nsource = \"ff:ff:ff:ff:ff:ff\"\nkind = \"set-mac\"",
            "[stage.edge]\nkind = \"set-mac\"\nsource = 1979-05-27\ndestination = \
             [\"02:00:00:00:00:01\"]\n\"a\\nb\" = 1",
            "[stage.edge]\nmin = 1\nkind = \"ttl\"\nmax = 2",
            "[stage.edge]\nkind = \"mac-swap\"\n[stage.edge.inner]\nx = 1",
            "[stage.edge]\nkind = \"TTL\"",
            "[stage.\"a b\"]",
            "[stage.edge.kind]",
        ]
    ));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CustomConfig {}

#[test]
fn error_for_kind_missing_from_build_names_cargo_feature() {
    let mut machine = FakeMachine::new();
    machine.omitted_kinds = vec![("esp-seal", "esp")];
    let registry = Registry::default().with::<MacSwapConfig>();
    let diagnose = |kind: &str, registry: &Registry| {
        let source =
            Source::new("x.toml".into(), format!("{MINIMAL}[stage.edge]\nkind = {kind:?}"));
        crate::config::plan(&source, std::path::Path::new(""), registry, &machine)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        diagnose("esp-seal", &registry),
        "x.toml:12:8: kind = \"esp-seal\": not built into this program; build it with the cargo \
         feature `esp` of xdpfwd\n"
    );
    // `custom` has no built-in stage at all.
    let custom = Registry::default().with_fn("custom", |_: CustomConfig, _| {
        Ok(PlanFn::new(|_| |_: &mut View<'_>, _: &mut Cx<'_>| ()))
    });
    assert_eq!(
        diagnose("esp-seal", &custom),
        "x.toml:12:8: kind = \"esp-seal\": not built into this program; build it with the cargo \
         feature `esp` of xdpfwd and `App::stages(xdpfwd_stages::builtin())`\n"
    );
    assert_eq!(
        diagnose("esp-open", &registry),
        "x.toml:12:8: kind = \"esp-open\": must be \"mac-swap\"\n"
    );
}

#[test]
fn filter_placement_depends_on_path_and_rules() {
    let config = |stages: &str, place: &str, rules: &str| {
        let text =
            MINIMAL.replacen("from = \"lan\"", &format!("from = \"lan\"\nstages = [{stages}]"), 1);
        format!(
            "{text}\n[stage.hop]\nkind = \"ttl\"\n[stage.fw]\nkind = \"filter\"\ndefault = \
             \"drop\"\nplace = {place:?}\nrules = [{rules}]\n"
        )
    };
    let placements = |text: &str| {
        let (plan, _) = super::plan(text).map_err(|errors| errors.to_string())?;
        Ok(plan.paths[0].stages.iter().map(|stage| stage.place()).collect::<Vec<_>>())
    };
    let filter_first = "\"fw\", \"hop\"";
    assert_eq!(placements(&config(filter_first, "kernel", "")), Ok(vec!["kernel", "user"]));
    assert_eq!(placements(&config(filter_first, "auto", "")), Ok(vec!["kernel", "user"]));
    assert_eq!(placements(&config(filter_first, "user", "")), Ok(vec!["user", "user"]));
    assert_eq!(
        placements(&config(filter_first, "auto", "\"drop log 1/10\"")),
        Ok(vec!["user", "user"])
    );
    let filter_second = "\"hop\", \"fw\"";
    assert_eq!(placements(&config(filter_second, "auto", "")), Ok(vec!["user", "user"]));
    let with_packet_sockets =
        |text: String| text.replace("name = \"lan\"", "name = \"lan\"\nio = \"packet-mmsg\"");
    assert_eq!(
        placements(&with_packet_sockets(config(filter_first, "auto", ""))),
        Ok(vec!["user", "user"])
    );
    let refused: Result<Vec<&str>, String> = placements(&config(filter_second, "kernel", ""));
    let error = refused.unwrap_err();
    assert!(
        error.contains(
            "stage \"fw\": place = \"kernel\" is not possible on the path from port \"lan\""
        ),
        "{error}"
    );
    assert!(error.contains("stage hop comes before it"), "{error}");
    let error = placements(&config("\"fw\", \"hop\", \"hop\", \"fw\"", "user", "")).unwrap_err();
    assert!(error.contains("stage \"fw\" is already on the path"), "{error}");
    let error = placements(&with_packet_sockets(config(filter_first, "kernel", ""))).unwrap_err();
    assert!(
        error.contains("port lan has io = \"packet-mmsg\", which uses no XDP program"),
        "{error}"
    );
    let error =
        placements(&config(filter_first, "kernel", "\"accept\", \"drop log 1/10\"")).unwrap_err();
    assert!(error.contains("`drop log 1/10`: the XDP program does not support logging"), "{error}");
}

/// A stage's configuration with an array of tables. Port 0, and port 1 with the label `two lines`,
/// are errors.
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
        match self.rules.iter().find(|rule| rule.port < 2) {
            Some(Rule { port: 1, label }) if label == "two lines" => {
                Err(PlanError::new("first line:\n  second line\n"))
            }
            Some(rule) if rule.port == 0 => Err(PlanError::new(format!(
                "rule {:?}: port 0 (the plan is for {} workers)",
                rule.label, cx.workers
            ))),
            _ => Ok(Arc::new(MacSwap)),
        }
    }
}

#[test]
fn errors_inside_stage_table_have_position_of_key_or_table() {
    let diagnose = |stage: &str| {
        let text = format!("{MINIMAL}\n[stage.a-1]\n{stage}");
        let registry = xdpfwd_stages::builtin().with::<NestedConfig>();
        let source = Source::new("x.toml".into(), text);
        match crate::config::plan(
            &source,
            std::path::Path::new("."),
            &registry,
            &FakeMachine::new(),
        ) {
            Ok((_, warnings)) => warnings.to_string(),
            Err(errors) => errors.to_string(),
        }
    };
    // The text `stage` begins on line 13 of the file.
    let kind = "kind = \"nested\"";
    assert_eq!(
        diagnose(&format!("rules = [{{ port = 1 }}, {{ label = \"a\", port = 65536 }}]\n{kind}")),
        "x.toml:13:46: invalid value: integer `65536`, expected an integer from 0 to 65535\n"
    );
    assert_eq!(
        diagnose(&format!("{kind}\n[[stage.a-1.rules]]\nport = 1\n[[stage.a-1.rules]]\nprt = 1")),
        "x.toml:17:1: unknown key `prt` for kind \"nested\", expected `port` or `label`; did you \
         mean \"port\"?\n"
    );
    assert_eq!(
        diagnose(&format!("{kind}\n[[stage.a-1.rules]]\nlabel = \"x\"")),
        "x.toml:14:1: missing key `port`, which kind \"nested\" needs\n"
    );
    assert_eq!(diagnose(kind), "x.toml:12:1: missing key `rules`, which kind \"nested\" needs\n");
    assert_eq!(
        diagnose(&format!("{kind}\nrules = [{{ port = 0 }}]")),
        "x.toml:12:1: rule \"\": port 0 (the plan is for 1 workers)\n"
    );
    assert_eq!(
        diagnose(&format!("{kind}\nrules = [{{ port = 1, label = \"two lines\" }}]")),
        "x.toml:12:1: first line:\nx.toml:12:1:   second line\n"
    );
}
