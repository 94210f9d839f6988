//! The filter's table in the configuration, and its rules.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use strum::{EnumString, VariantNames};
use xdpfwd_filter::{Classifier, FlowCache, NotForKernel, Rule, Verdict};

use super::kernel::{self, Offload};
use super::key::Unusual;
use super::modifiers::Limits;
use super::plan::FilterPlan;
use super::program::{ExceptionPolicy, Program};
use super::source::{Lines, Source, Word};
use crate::words::deserialize_one_of;
use xdpfwd_pipeline::{Location, PlanCx, PlanDiagnostic, PlanError, StageConfig, StagePlan};

/// `kind = "filter"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterConfig {
    rules: Source,
    default: Word,
    #[serde(default)]
    format: Format,
    action: Option<Word>,
    #[serde(default)]
    place: Place,
    #[serde(default)]
    flow_cache: Flows,
    #[serde(default)]
    gtpu: Layer,
    not_ip: Option<Word>,
    malformed: Option<Word>,
    vlan_stack: Option<Word>,
    extension_chain: Option<Word>,
    ip_options: Option<Manner>,
    later_fragments: Option<Manner>,
}

/// The treatment of a kind of packet exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
enum Manner {
    Drop,
    Judge,
    Accept,
}

/// Where rules are evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
enum Place {
    #[default]
    User,
    Kernel,
    Auto,
}

/// A number of flows, up to the capacity of a cache.
#[derive(Clone, Copy, Debug, Default)]
struct Flows(usize);

impl<'de> Deserialize<'de> for Flows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Flows;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number of flows, 0 to {}", FlowCache::MOST)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Flows, E> {
                let flows = usize::try_from(number).ok().filter(|flows| *flows <= FlowCache::MOST);
                flows.map(Flows).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
            }
        }

        deserializer.deserialize_i64(Number)
    }
}

/// Which headers of GTP-U traffic the rules see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
enum Layer {
    #[default]
    Outer,
    Inner,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
enum Format {
    #[default]
    Xdpfwd,
    Classbench,
}

deserialize_one_of!(Manner, Place, Layer, Format);

/// Compiles rules with a random seed.
///
/// With some seeds, too many rules share a place in the XDP program's hash table. The rules are not
/// the cause, so another seed is drawn.
fn compile(rules: &[Rule], for_kernel: bool) -> Classifier {
    const SEEDS: usize = 16;
    let compile = || Classifier::new(rules, RandomState::new().hash_one(0_u64));
    let mut classifier = compile();
    if for_kernel {
        for _ in 1..SEEDS {
            if !matches!(classifier.image(rules), Err(NotForKernel::Crowded { .. })) {
                break;
            }
            classifier = compile();
        }
    }
    classifier
}

/// Bucket length at which lookups and the search for shadowed rules become slow.
const LONG: usize = 512;

/// Maximum number of shadowed or unsupported rules named in diagnostics.
const NAMED: usize = 20;

impl StageConfig for FilterConfig {
    const KIND: &'static str = "filter";

    fn plan(self, cx: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError> {
        let mut remarks = Vec::new();
        let Lines { lines: rules, places } = self.read(cx, &mut remarks)?;
        if u32::try_from(rules.len()).is_err() {
            return Err(PlanError::new(format!(
                "{} rules: a filter has at most {}",
                rules.len(),
                u32::MAX
            )));
        }
        let classifier = compile(&rules, self.place != Place::User);
        let shape = classifier.shape();
        let longest =
            shape.v4.iter().chain(&shape.v6).map(|tuple| tuple.longest).max().unwrap_or(0);
        let shadowed =
            if longest > LONG { Vec::new() } else { xdpfwd_filter::shadowed(&rules, &classifier) };
        if longest > LONG {
            let message = format!(
                "{longest} rules overlap so much that each lookup may compare all of them; rules that never decide are not \
                 looked for"
            );
            remarks.push(PlanDiagnostic { location: Location::Stage, message });
        }
        let more = shadowed.len().saturating_sub(NAMED);
        for shadowed in shadowed.iter().take(NAMED) {
            let (own, by) = (shadowed.rule as usize, shadowed.by as usize);
            let message = format!(
                "rule {} never decides: {} at {} does, with `{}`",
                own, by, places[by], rules[by]
            );
            remarks.push(PlanDiagnostic { location: places[own].clone(), message });
        }
        if more > 0 {
            remarks.push(PlanDiagnostic {
                location: Location::Stage,
                message: format!("and {more} more rules that never decide"),
            });
        }
        let judge_later = self.later_fragments == Some(Manner::Judge);
        let about_later =
            |rule: &Rule| rule.matches.fragment == Some(xdpfwd_filter::Fragments::Later);
        if let Some(rule) = rules.iter().position(about_later).filter(|_| !judge_later) {
            let message =
                "later fragments do not come to the rules: set later_fragments = \"judge\""
                    .to_owned();
            remarks.push(PlanDiagnostic { location: places[rule].clone(), message });
        }
        let exceptions = self.exceptions();
        let (default, inner) = (self.default.into(), self.gtpu == Layer::Inner);
        if self.flow_cache.0 > 0 && self.place == Place::Kernel {
            return Err(PlanError::new(
                "flow_cache is for user space: leave it out, or set place = \"user\"",
            ));
        }
        let limits = Limits::new(&rules, cx.workers)?;
        let program =
            Program::new(rules, classifier, default, exceptions, limits, inner, self.flow_cache.0);
        let (mut offload, mut not_in_kernel) = (None, None);
        if self.place != Place::User {
            let Program { rules, classifier, .. } = &program;
            match kernel::image(
                rules,
                &places,
                classifier,
                default,
                exceptions,
                inner,
                program.verdict_key(),
            ) {
                Ok(image) => {
                    offload = Some(Offload { image, required: self.place == Place::Kernel })
                }
                Err(why) if self.place == Place::Kernel => return Err(refuse_kernel(why)),
                // Report the first; `place = "kernel"` reports all.
                Err(why) => not_in_kernel = why.first().map(ToString::to_string),
            }
        }
        Ok(Arc::new(FilterPlan {
            program: Arc::new(program),
            warnings: remarks,
            offload,
            not_in_kernel,
        }))
    }
}

/// Returns an error with the reasons against the XDP program, up to [`NAMED`].
fn refuse_kernel(mut why: Vec<PlanDiagnostic>) -> PlanError {
    let more = why.len().saturating_sub(NAMED);
    why.truncate(NAMED);
    for remark in &mut why {
        remark.message = format!("place = \"kernel\" is not possible: {}", remark.message);
    }
    if more > 0 {
        let message = format!("and {more} more rules that the XDP program cannot judge");
        why.push(PlanDiagnostic { location: Location::Stage, message });
    }
    PlanError(why)
}

impl FilterConfig {
    /// Returns the verdict on each kind of unusual packet; `None` if the rules judge it.
    fn exceptions(&self) -> ExceptionPolicy {
        let word = |word: Option<Word>, default| Some(word.map_or(default, Verdict::from));
        let manner = |manner: Option<Manner>| match manner {
            Some(Manner::Accept) => Some(Verdict::Accept),
            Some(Manner::Drop) | None => Some(Verdict::Drop),
            Some(Manner::Judge) => None,
        };
        ExceptionPolicy::new(|unusual| match unusual {
            Unusual::NotIp => word(self.not_ip, Verdict::Accept),
            Unusual::Malformed => word(self.malformed, Verdict::Drop),
            Unusual::VlanStack => word(self.vlan_stack, Verdict::Drop),
            Unusual::ExtensionChain => word(self.extension_chain, Verdict::Drop),
            Unusual::IpOptions => manner(self.ip_options),
            Unusual::LaterFragment => manner(self.later_fragments),
        })
    }

    fn read(
        &self,
        cx: &PlanCx<'_>,
        remarks: &mut Vec<PlanDiagnostic>,
    ) -> Result<Lines<Rule>, PlanError> {
        match (self.format, self.action) {
            (Format::Xdpfwd, Some(_)) => Err(PlanError::new(
                "action is for format = \"classbench\", whose rules say none: here each rule begins with its own",
            )),
            (Format::Xdpfwd, None) => {
                self.rules.read("rules", cx, xdpfwd_filter::parse_rule, xdpfwd_filter::parse)
            }
            (Format::Classbench, _) if matches!(self.rules, Source::Here(_)) => {
                Err(PlanError::new("format = \"classbench\" is for files: rules = \"FILE\""))
            }
            (Format::Classbench, None) => Err(PlanError::new(
                "format = \"classbench\" says no verdicts: add action = \"accept\" or \"drop\", for all its rules",
            )),
            (Format::Classbench, Some(action)) => {
                self.rules.read("rules", cx, xdpfwd_filter::parse_rule, |text| {
                    let xdpfwd_filter::ClassBench { rules, with_more } =
                        xdpfwd_filter::parse_classbench(text, action.into())?;
                    if with_more > 0 {
                        let message = format!("the flags column of {with_more} rules is ignored");
                        remarks.push(PlanDiagnostic { location: Location::Stage, message });
                    }
                    Ok(rules)
                })
            }
        }
    }
}
