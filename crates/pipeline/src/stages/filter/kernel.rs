//! A filter whose rules the XDP program judges: `place = "kernel"`.

use std::sync::Arc;

use filter::{Classifier, Image, Rule, Verdict};

use super::Unusual;
use super::program::Manners;
use crate::kind::{Remark, Whereabouts};
use crate::stage::{Cx, Stage};
use crate::view::View;

/// What the XDP program has to know of a filter, to come to the verdicts of the stage.
#[derive(Clone, Debug)]
pub struct KernelFilter {
    /// The classifier.
    pub image: Image,
    rules: Vec<Rule>,
    /// Whether any of them has no verdict, so that the search goes on.
    pub goes_on: bool,
    /// What becomes of a packet that no rule decides about.
    pub default: Verdict,
    manners: Manners,
}

impl KernelFilter {
    /// How many rules it has.
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// Whether it comes to the same verdicts as another one, by the same rules.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.rules == other.rules && self.default == other.default && self.manners == other.manners
    }

    /// What becomes of each kind of unusual packet; `None`: the rules judge it.
    pub fn manner(&self, unusual: Unusual) -> Option<Verdict> {
        self.manners.of(unusual)
    }

    /// Of a filter's parts, or all that the XDP program cannot do of it. Rules have their places.
    pub(super) fn new(
        rules: &[Rule],
        places: &[Whereabouts],
        classifier: &Classifier,
        default: Verdict,
        manners: Manners,
        inner: bool,
    ) -> Result<Arc<Self>, Vec<Remark>> {
        let mut why = Vec::new();
        let mut stage = |message: String| why.push(Remark { place: Whereabouts::Stage, message });
        if inner {
            stage("gtpu = \"inner\": the XDP program does not look into GTP-U".to_owned());
        }
        let image = match classifier.image(rules) {
            Ok(image) => Some(image),
            Err(error) => {
                stage(error.to_string());
                None
            }
        };
        for (rule, place) in rules.iter().zip(places) {
            let modifiers = [("limits", rule.limit.is_some()), ("logs", rule.log.is_some())];
            if let Some((does, _)) = modifiers.into_iter().find(|(_, has)| *has) {
                let message = format!("`{rule}` {does}, which the XDP program does not");
                why.push(Remark { place: place.clone(), message });
            }
        }
        match image {
            Some(image) if why.is_empty() => {
                let goes_on = rules.iter().any(|rule| rule.verdict.is_none());
                Ok(Arc::new(Self { image, rules: rules.to_vec(), goes_on, default, manners }))
            }
            _ => Err(why),
        }
    }
}

/// The stage in user space of a filter that the XDP program is: what comes here has been judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged;

impl Stage for Judged {
    fn process(&mut self, _: &mut View<'_>, _: &mut Cx<'_>) {}

    fn needs_headers(&self) -> bool {
        false
    }
}
