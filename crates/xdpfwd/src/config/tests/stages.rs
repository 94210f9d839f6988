//! Stages: their kinds, and the keys of those.

use std::sync::Arc;

use xdpfwd_pipeline::{Cx, PlanCx, PlanError, PlanFn, StageConfig, StagePlan, View};

use serde::Deserialize;
use xdpfwd_stages::{MacSwap, MacSwapConfig};

use super::{REST, answers_with};
use crate::config::{Imagined, Source};
use crate::registry::Registry;

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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnConfig {}

#[test]
fn kind_that_is_not_built_names_the_feature_that_adds_it() {
    let mut machine = Imagined::usual();
    machine.not_built = vec![("esp-seal", "esp")];
    let registry = Registry::default().with::<MacSwapConfig>();
    let said = |kind: &str, registry: &Registry| {
        let source = Source::new("x.toml".into(), format!("{REST}[stage.edge]\nkind = {kind:?}"));
        crate::config::plan(&source, std::path::Path::new(""), registry, &machine)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        said("esp-seal", &registry),
        "x.toml:12:8: kind = \"esp-seal\": not built into this program; build it with the cargo feature `esp` of xdpfwd\n"
    );
    let own = Registry::default().with_fn("own", |_: OwnConfig, _| {
        Ok(PlanFn::new(|_| |_: &mut View<'_>, _: &mut Cx<'_>| ()))
    });
    assert_eq!(
        said("esp-seal", &own),
        "x.toml:12:8: kind = \"esp-seal\": not built into this program; build it with the cargo feature `esp` of xdpfwd \
         and `App::stages(xdpfwd_stages::builtin())`\n"
    );
    assert_eq!(
        said("esp-open", &registry),
        "x.toml:12:8: kind = \"esp-open\": must be \"mac-swap\"\n"
    );
}

#[test]
fn a_filter_is_in_the_kernel_if_its_path_lets_it() {
    let with = |stages: &str, place: &str, rules: &str| {
        let text =
            REST.replacen("from = \"lan\"", &format!("from = \"lan\"\nstages = [{stages}]"), 1);
        format!(
            "{text}\n[stage.hop]\nkind = \"ttl\"\n[stage.fw]\nkind = \"filter\"\ndefault = \"drop\"\nplace = {place:?}\nrules = [{rules}]\n"
        )
    };
    let places = |text: &str| {
        let (plan, _) = super::plan(text).map_err(|errors| errors.to_string())?;
        Ok(plan.paths[0].stages.iter().map(|stage| stage.place()).collect::<Vec<_>>())
    };
    let first = "\"fw\", \"hop\"";
    assert_eq!(places(&with(first, "kernel", "")), Ok(vec!["kernel", "user"]));
    assert_eq!(places(&with(first, "auto", "")), Ok(vec!["kernel", "user"]));
    assert_eq!(places(&with(first, "user", "")), Ok(vec!["user", "user"]));
    assert_eq!(places(&with(first, "auto", "\"drop log 1/10\"")), Ok(vec!["user", "user"]));
    let behind = "\"hop\", \"fw\"";
    assert_eq!(places(&with(behind, "auto", "")), Ok(vec!["user", "user"]));
    let packet =
        |text: String| text.replace("name = \"lan\"", "name = \"lan\"\nio = \"packet-mmsg\"");
    assert_eq!(places(&packet(with(first, "auto", ""))), Ok(vec!["user", "user"]));
    let refused: Result<Vec<&str>, String> = places(&with(behind, "kernel", ""));
    let error = refused.unwrap_err();
    assert!(
        error.contains(
            "stage \"fw\": place = \"kernel\" is not possible on the path from port \"lan\""
        ),
        "{error}"
    );
    assert!(error.contains("stage hop comes before it"), "{error}");
    let error = places(&with("\"fw\", \"hop\", \"hop\", \"fw\"", "user", "")).unwrap_err();
    assert!(error.contains("stage \"fw\" is on the path already"), "{error}");
    let error = places(&packet(with(first, "kernel", ""))).unwrap_err();
    assert!(error.contains("port lan has no XDP program with io = \"packet-mmsg\""), "{error}");
    let error = places(&with(first, "kernel", "\"accept\", \"drop log 1/10\"")).unwrap_err();
    assert!(error.contains("`drop log 1/10`: the XDP program does not support logging"), "{error}");
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
        match self.rules.iter().find(|rule| rule.port < 2) {
            Some(Rule { port: 1, label }) if label == "two lines" => {
                Err(PlanError::new("first line:\n  second line\n"))
            }
            Some(rule) if rule.port == 0 => Err(PlanError::new(format!(
                "rule {:?} of {} workers: port 0",
                rule.label, cx.workers
            ))),
            _ => Ok(Arc::new(MacSwap)),
        }
    }
}

#[test]
fn errors_inside_of_a_stage_have_their_own_place() {
    let said = |stage: &str| {
        let text = format!("{REST}\n[stage.ä-1]\n{stage}").replace("ä", "a");
        let registry = xdpfwd_stages::builtin().with::<NestedConfig>();
        let source = Source::new("x.toml".into(), text);
        match crate::config::plan(&source, std::path::Path::new("."), &registry, &Imagined::usual())
        {
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
    assert_eq!(
        said(&format!("{kind}\nrules = [{{ port = 0 }}]")),
        "x.toml:12:1: rule \"\" of 1 workers: port 0\n"
    );
    // A diagnostic is one line: an error of several lines becomes several.
    assert_eq!(
        said(&format!("{kind}\nrules = [{{ port = 1, label = \"two lines\" }}]")),
        "x.toml:12:1: first line:\nx.toml:12:1:   second line\n"
    );
}
