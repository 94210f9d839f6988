//! The configuration table and the planning of a filter.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde_spanned::Spanned;
use strum::{EnumString, VariantNames};
use xdpfwd_filter::{Classifier, FlowCache, KernelLimitError, Rule};

use super::exception::{ExceptionAction, ExceptionPolicy, PacketException};
use super::kernel::{self, Offload};
use super::modifiers::Limits;
use super::plan::FilterPlan;
use super::program::Program;
use super::source::{ConfiguredVerdict, Lines, Source};
use crate::enum_names::deserialize_one_of;
use xdpfwd_pipeline::{Location, PlanCx, PlanDiagnostic, PlanError, StageConfig, StagePlan};

/// The table of `kind = "filter"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterConfig {
    rules: Source,
    default: ConfiguredVerdict,
    #[serde(default)]
    format: Format,
    action: Option<ConfiguredVerdict>,
    #[serde(default)]
    place: Placement,
    #[serde(default)]
    flow_cache: FlowCacheSize,
    #[serde(default)]
    gtpu: GtpuLayer,
    not_ip: Option<Spanned<NotIpVerdict>>,
    malformed: Option<Spanned<ConfiguredVerdict>>,
    vlan_stack: Option<Spanned<ConfiguredVerdict>>,
    extension_chain: Option<Spanned<ConfiguredVerdict>>,
    ip_options: Option<Spanned<VerdictOrRules>>,
    routing_header: Option<Spanned<VerdictOrRules>>,
    later_fragments: Option<Spanned<VerdictOrRules>>,
}

/// The verdict on packets that are not IP. `Arp` accepts only ARP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
enum NotIpVerdict {
    Accept,
    Arp,
    Drop,
}

/// The action for a [`PacketException`] to which rules can apply. `Judge` applies the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
enum VerdictOrRules {
    Drop,
    Judge,
    Accept,
}

impl From<NotIpVerdict> for ExceptionAction {
    fn from(verdict: NotIpVerdict) -> Self {
        match verdict {
            NotIpVerdict::Accept => Self::Accept,
            NotIpVerdict::Arp => Self::AcceptArp,
            NotIpVerdict::Drop => Self::Drop,
        }
    }
}

impl From<VerdictOrRules> for ExceptionAction {
    fn from(verdict: VerdictOrRules) -> Self {
        match verdict {
            VerdictOrRules::Drop => Self::Drop,
            VerdictOrRules::Judge => Self::MatchRules,
            VerdictOrRules::Accept => Self::Accept,
        }
    }
}

impl From<ConfiguredVerdict> for ExceptionAction {
    fn from(verdict: ConfiguredVerdict) -> Self {
        match verdict {
            ConfiguredVerdict::Accept => Self::Accept,
            ConfiguredVerdict::Drop => Self::Drop,
        }
    }
}

/// A configured action, and the byte range of its value.
type ConfiguredAction = (ExceptionAction, Range<usize>);

fn configured<T: Copy + Into<ExceptionAction>>(
    value: Option<&Spanned<T>>,
) -> Option<ConfiguredAction> {
    value.map(|value| ((*value.get_ref()).into(), value.span()))
}

/// Where rules are evaluated: in the stage, or in the XDP program. `Auto` means the XDP program if
/// it supports the filter, else the stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
enum Placement {
    #[default]
    User,
    Kernel,
    Auto,
}

/// Cached flows per worker; 0 for no cache.
#[derive(Clone, Copy, Debug, Default)]
struct FlowCacheSize(usize);

impl<'de> Deserialize<'de> for FlowCacheSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;

        impl Visitor<'_> for SizeVisitor {
            type Value = FlowCacheSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number of flows, 0 to {}", FlowCache::MAX_SLOTS)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<FlowCacheSize, E> {
                let flows =
                    usize::try_from(number).ok().filter(|flows| *flows <= FlowCache::MAX_SLOTS);
                flows
                    .map(FlowCacheSize)
                    .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
            }
        }

        deserializer.deserialize_i64(SizeVisitor)
    }
}

/// Where rules apply in GTP-U traffic: to the packet that carries GTP-U (`Outer`), or to the user
/// packet in it (`Inner`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
enum GtpuLayer {
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

deserialize_one_of!(NotIpVerdict, VerdictOrRules, Placement, GtpuLayer, Format);

const MAX_SEEDS: usize = 16;

/// Compiles rules with a random hash seed.
///
/// With some seeds, a hash table has more consecutive full groups of slots than the XDP program
/// searches. Therefore, if `for_kernel`, tries up to [`MAX_SEEDS`] seeds.
fn compile(rules: &[Rule], for_kernel: bool) -> Classifier {
    let compile = || Classifier::new(rules, RandomState::new().hash_one(0_u64));
    let mut classifier = compile();
    if for_kernel {
        for _ in 1..MAX_SEEDS {
            if !matches!(classifier.image(rules), Err(KernelLimitError::LongRun { .. })) {
                break;
            }
            classifier = compile();
        }
    }
    classifier
}

/// Maximum rules per hash bucket for which planning searches for shadowed rules (rules that
/// never decide). With more, the search would take too long; the plan warns of this.
const LONG_BUCKET: usize = 512;

/// Maximum rules per bucket. A sender can choose packets that are compared with all of them.
const MAX_BUCKET: usize = 4096;

/// Maximum number of rules named in a diagnostic.
const MAX_NAMED: usize = 20;

impl StageConfig for FilterConfig {
    const KIND: &'static str = "filter";

    fn plan(self, cx: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError> {
        let mut warnings = Vec::new();
        let Lines { file, lines: rules, locations } = self.read(cx, &mut warnings)?;
        if u32::try_from(rules.len()).is_err() {
            return Err(PlanError::new(format!(
                "{} rules: a filter supports at most {}",
                rules.len(),
                u32::MAX
            )));
        }
        let classifier = compile(&rules, self.place != Placement::User);
        let shape = classifier.shape();
        let longest =
            shape.v4.iter().chain(&shape.v6).map(|tuple| tuple.longest_bucket).max().unwrap_or(0);
        if longest > MAX_BUCKET {
            return Err(PlanError::new(format!(
                "{longest} rules overlap so much that a lookup may compare all of them; at most \
                 {MAX_BUCKET} are possible; give them different prefixes, protocols or ports (no \
                 ranges)"
            )));
        }
        let shadowed = if longest > LONG_BUCKET {
            Vec::new()
        } else {
            xdpfwd_filter::shadowed(&rules, &classifier)
        };
        if longest > LONG_BUCKET {
            let message = format!(
                "{longest} rules overlap so much that a lookup may compare all of them; shadowed \
                 rules are not detected"
            );
            warnings.push(PlanDiagnostic { location: Location::Stage, message });
        }
        let unnamed = shadowed.len().saturating_sub(MAX_NAMED);
        for shadowed in shadowed.iter().take(MAX_NAMED) {
            let (rule, by) = (shadowed.rule as usize, shadowed.by as usize);
            let message = format!(
                "rule {rule} never decides: rule {by} (`{}`, {}) matches all of its packets first",
                rules[by], locations[by]
            );
            warnings.push(PlanDiagnostic { location: locations[rule].clone(), message });
        }
        if unnamed > 0 {
            warnings.push(PlanDiagnostic {
                location: Location::Stage,
                message: format!("{unnamed} more rules never decide"),
            });
        }
        let exceptions = self.exceptions();
        let rules_see_later_fragments =
            exceptions.verdict(PacketException::LaterFragment).is_none();
        let is_for_later_fragments =
            |rule: &Rule| rule.matches.fragment == Some(xdpfwd_filter::FragmentMatch::Later);
        if let Some(rule) =
            rules.iter().position(is_for_later_fragments).filter(|_| !rules_see_later_fragments)
        {
            let message = "this rule never matches, because rules do not see later fragments: set \
                           later_fragments = \"judge\""
                .to_owned();
            warnings.push(PlanDiagnostic { location: locations[rule].clone(), message });
        }
        if self.default == ConfiguredVerdict::Drop {
            warnings.extend(self.accepting_exceptions());
        }
        let (default, gtpu_inner) = (self.default.into(), self.gtpu == GtpuLayer::Inner);
        if self.flow_cache.0 > 0 && self.place == Placement::Kernel {
            return Err(PlanError::new(
                "flow_cache works only in user space: remove it, or set place = \"user\"",
            ));
        }
        let limits = Limits::new(&rules, cx.workers)?;
        let program = Program::new(
            rules,
            classifier,
            default,
            exceptions,
            limits,
            gtpu_inner,
            self.flow_cache.0,
        );
        let (mut offload, mut not_in_kernel) = (None, None);
        if self.place != Placement::User {
            let Program { rules, classifier, .. } = &program;
            match kernel::image(
                rules,
                &locations,
                classifier,
                default,
                exceptions,
                gtpu_inner,
                program.verdict_key(),
            ) {
                Ok(image) => {
                    offload = Some(Offload { image, required: self.place == Placement::Kernel })
                }
                Err(reasons) if self.place == Placement::Kernel => {
                    return Err(kernel_error(reasons));
                }
                // Keep only the first reason.
                Err(reasons) => not_in_kernel = reasons.first().map(ToString::to_string),
            }
        }
        Ok(Arc::new(FilterPlan {
            program: Arc::new(program),
            file,
            warnings,
            offload,
            not_in_kernel,
        }))
    }
}

/// The error for `place = "kernel"`, with up to [`MAX_NAMED`] reasons.
fn kernel_error(mut reasons: Vec<PlanDiagnostic>) -> PlanError {
    let unnamed = reasons.len().saturating_sub(MAX_NAMED);
    reasons.truncate(MAX_NAMED);
    for reason in &mut reasons {
        reason.message = format!("place = \"kernel\" is not possible: {}", reason.message);
    }
    if unnamed > 0 {
        let message = format!("{unnamed} more reasons why place = \"kernel\" is not possible");
        reasons.push(PlanDiagnostic { location: Location::Stage, message });
    }
    PlanError(reasons)
}

impl FilterConfig {
    /// Returns the actions in the order of [`PacketException::WITH_KEY`]; `None` for a key that is
    /// not set.
    fn configured_exceptions(&self) -> [Option<ConfiguredAction>; 7] {
        PacketException::WITH_KEY.map(|exception| match exception {
            PacketException::NotIp | PacketException::Arp => configured(self.not_ip.as_ref()),
            PacketException::Malformed => configured(self.malformed.as_ref()),
            PacketException::VlanStack => configured(self.vlan_stack.as_ref()),
            PacketException::ExtensionChain => configured(self.extension_chain.as_ref()),
            PacketException::IpOptions => configured(self.ip_options.as_ref()),
            PacketException::RoutingHeader => configured(self.routing_header.as_ref()),
            PacketException::LaterFragment => configured(self.later_fragments.as_ref()),
        })
    }

    fn exceptions(&self) -> ExceptionPolicy {
        let mut actions =
            self.configured_exceptions().map(|action| action.map(|(action, _)| action));
        let [not_ip, ..] = &mut actions;
        not_ip.get_or_insert(match self.default {
            ConfiguredVerdict::Accept => ExceptionAction::Accept,
            // With `default = "drop"`, no packet should pass without a rule. But without ARP, hosts
            // cannot use IPv4.
            ConfiguredVerdict::Drop => ExceptionAction::AcceptArp,
        });
        ExceptionPolicy(actions.map(|action| action.unwrap_or(ExceptionAction::Drop)))
    }

    /// Returns a warning for each key that accepts all packets of an exception.
    fn accepting_exceptions(&self) -> Vec<PlanDiagnostic> {
        let exceptions = PacketException::WITH_KEY.into_iter().zip(self.configured_exceptions());
        let accepting = exceptions.filter_map(|(exception, configured)| match configured {
            Some((ExceptionAction::Accept, span)) => Some((exception, span)),
            _ => None,
        });
        accepting
            .map(|(exception, span)| PlanDiagnostic {
                location: Location::Configuration(span),
                message: exception.warning_if_accepted(),
            })
            .collect()
    }

    fn read(
        &self,
        cx: &PlanCx<'_>,
        warnings: &mut Vec<PlanDiagnostic>,
    ) -> Result<Lines<Rule>, PlanError> {
        match (self.format, self.action) {
            (Format::Xdpfwd, Some(_)) => Err(PlanError::new(
                "action applies only to format = \"classbench\": remove it, because each rule \
                 begins with its own verdict",
            )),
            (Format::Xdpfwd, None) => {
                self.rules.read("rules", cx, xdpfwd_filter::parse_rule, xdpfwd_filter::parse)
            }
            (Format::Classbench, _) if matches!(self.rules, Source::Inline(_)) => {
                Err(PlanError::new("format = \"classbench\" requires a file: set rules = \"FILE\""))
            }
            (Format::Classbench, None) => Err(PlanError::new(
                "ClassBench rules have no verdicts: add action = \"accept\" or \"drop\", which \
                 applies to all rules",
            )),
            (Format::Classbench, Some(action)) => {
                self.rules.read("rules", cx, xdpfwd_filter::parse_rule, |text| {
                    let xdpfwd_filter::ClassBench { rules, rules_with_extra_columns } =
                        xdpfwd_filter::parse_classbench(text, action.into())?;
                    if rules_with_extra_columns > 0 {
                        let message = format!(
                            "the flags column of {rules_with_extra_columns} rules is ignored"
                        );
                        warnings.push(PlanDiagnostic { location: Location::Stage, message });
                    }
                    Ok(rules)
                })
            }
        }
    }
}
