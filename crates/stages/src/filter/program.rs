//! The compiled filter, shared by workers and dry runs.

use xdpfwd_filter::{Classifier, Rule, Verdict};

use super::exception::ExceptionPolicy;
use super::key::{Inspection, inspect, inspect_gtpu};
use super::modifiers::Limits;
use xdpfwd_wire::Headers;

/// The rules, default verdict and treatment of packet exceptions. Not an XDP program.
#[derive(Debug)]
pub struct Program {
    pub(super) rules: Vec<Rule>,
    pub(super) classifier: Classifier,
    pub(super) default: Verdict,
    pub(super) exceptions: ExceptionPolicy,
    pub(super) limits: Limits,
    /// Whether rules apply to the user packet inside GTP-U.
    pub(super) gtpu_inner: bool,
    /// Cached flows per worker; 0 for no cache.
    pub(super) flow_cache: usize,
}

impl Program {
    /// Inspects a frame; with `gtpu = "inner"`, its user packet if it carries one in GTP-U.
    #[inline]
    pub fn inspect(&self, frame: &[u8], headers: &Headers) -> Inspection {
        if self.gtpu_inner { inspect_gtpu(frame, headers) } else { inspect(frame, headers) }
    }

    /// Returns the rule with this number, from 0, if any.
    pub fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.get(number as usize)
    }

    pub(super) fn new(
        rules: Vec<Rule>,
        classifier: Classifier,
        default: Verdict,
        exceptions: ExceptionPolicy,
        limits: Limits,
        gtpu_inner: bool,
        flow_cache: usize,
    ) -> Self {
        Self { rules, classifier, default, exceptions, limits, gtpu_inner, flow_cache }
    }

    /// Returns a text for comparing filters: two filters with equal texts give the same verdicts.
    pub(super) fn verdict_key(&self) -> String {
        let Self { rules, default, exceptions, gtpu_inner, .. } = self;
        let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
        format!("{default:?} {exceptions:?} {gtpu_inner}\n{}", rules.join("\n"))
    }
}
