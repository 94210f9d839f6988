//! What a filter does with packets, the same for every worker and for a dry run.

use filter::{Classifier, Rule, Verdict};

use super::Unusual;
use super::modifiers::Limits;
use crate::reason::Reason;

/// Rules, compiled, and what becomes of what they do not judge.
#[derive(Debug)]
pub struct Program {
    pub(super) rules: Vec<Rule>,
    pub(super) classifier: Classifier,
    pub(super) default: Verdict,
    pub(super) manners: Manners,
    pub(super) limits: Limits,
}

/// What becomes of each kind of unusual packet; `None`: the rules judge it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners([Option<Verdict>; Unusual::ALL.len()]);

impl Manners {
    pub(super) fn new(of: impl Fn(Unusual) -> Option<Verdict>) -> Self {
        Self(Unusual::ALL.map(of))
    }

    pub(super) fn of(&self, unusual: Unusual) -> Option<Verdict> {
        self.0[unusual as usize]
    }
}

impl Unusual {
    /// What a drop of it is counted as.
    pub fn reason(self) -> Reason {
        match self {
            Self::NotIp => Reason::NotIp,
            Self::Malformed => Reason::Malformed,
            Self::VlanStack => Reason::VlanStack,
            Self::ExtensionChain => Reason::ExtensionChain,
            Self::IpOptions => Reason::IpOptions,
            Self::LaterFragment => Reason::LaterFragment,
        }
    }
}

impl Program {
    /// A rule, by its number.
    pub fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.get(number as usize)
    }

    pub(super) fn new(
        rules: Vec<Rule>,
        classifier: Classifier,
        default: Verdict,
        manners: Manners,
        workers: usize,
    ) -> Self {
        let limits = Limits::new(&rules, workers);
        Self { rules, classifier, default, manners, limits }
    }
}
