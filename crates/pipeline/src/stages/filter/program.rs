//! What a filter does with packets, the same for every worker and for a dry run.

use std::collections::HashMap;

use filter::{Classifier, Rule, Verdict};

use super::modifiers::Limits;
use super::{Seen, Unusual, look_at, look_inside};
use crate::reason::Reason;
use crate::wire::Headers;

/// Rules, compiled, and what becomes of what they do not judge.
#[derive(Debug)]
pub struct Program {
    pub(super) rules: Vec<Rule>,
    pub(super) classifier: Classifier,
    pub(super) default: Verdict,
    pub(super) manners: Manners,
    pub(super) limits: Limits,
    /// Whether what GTP-U carries is judged instead of what carries it.
    pub(super) inner: bool,
    /// What each rule is known by to its successors.
    pub(super) fingerprints: Vec<u64>,
    /// Where each of them stands.
    places: HashMap<u64, usize>,
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

/// The same for the same rule, in this process and in another: FNV-1a over what it says.
fn fingerprint(rule: &Rule) -> u64 {
    let text = rule.to_string();
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Program {
    /// Where a rule stands that stood at a place before: there, as a rule.
    pub(super) fn place_of(&self, fingerprint: u64, was: usize) -> Option<usize> {
        if self.fingerprints.get(was) == Some(&fingerprint) {
            return Some(was);
        }
        self.places.get(&fingerprint).copied()
    }

    /// What its rules judge a frame by.
    #[inline]
    pub fn look(&self, frame: &[u8], headers: &Headers) -> Seen {
        if self.inner { look_inside(frame, headers) } else { look_at(frame, headers) }
    }

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
        inner: bool,
    ) -> Self {
        let limits = Limits::new(&rules, workers);
        let fingerprints: Vec<u64> = rules.iter().map(fingerprint).collect();
        let places = fingerprints.iter().enumerate().rev().map(|(place, rule)| (*rule, place)).collect();
        Self { rules, classifier, default, manners, limits, inner, fingerprints, places }
    }
}
