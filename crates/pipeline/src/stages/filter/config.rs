//! The filter's table in the configuration, and its rules.

use std::fmt;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use filter::{Classifier, Problem, Rule, Verdict};
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Unexpected, Visitor};
use toml::Spanned;

use super::program::{Manners, Program};
use super::{FilterPlan, Unusual};
use crate::kind::{PlanCx, PlanError, Remark, StageConfig, StagePlan, Whereabouts};

/// `kind = "filter"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterConfig {
    rules: Source,
    default: Word,
    #[serde(default)]
    format: Format,
    action: Option<Word>,
    not_ip: Option<Word>,
    malformed: Option<Word>,
    vlan_stack: Option<Word>,
    extension_chain: Option<Word>,
    ip_options: Option<Manner>,
    later_fragments: Option<Manner>,
}

/// Where rules are: `"FILE"` or `["RULE", …]`.
#[derive(Clone, Debug)]
enum Source {
    File(String),
    Here(Vec<Spanned<String>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Accept,
    Drop,
}

/// What is done about what rules could judge, but not by all that they may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Accept,
    Drop,
    Judge,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Format {
    #[default]
    Xdpfwd,
    Classbench,
}

/// Reads one of some words. What else is written is answered with all of them.
struct OneOf<T: 'static>(&'static str, &'static [(&'static str, T)]);

impl<T: Copy> Visitor<'_> for OneOf<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let known = self.1.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        known.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(OneOf("\"accept\" or \"drop\"", &[("accept", Self::Accept), ("drop", Self::Drop)]))
    }
}

impl<'de> Deserialize<'de> for Manner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const WORDS: &[(&str, Manner)] =
            &[("drop", Manner::Drop), ("judge", Manner::Judge), ("accept", Manner::Accept)];
        deserializer.deserialize_str(OneOf("\"drop\", \"judge\" or \"accept\"", WORDS))
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const WORDS: &[(&str, Format)] = &[("xdpfwd", Format::Xdpfwd), ("classbench", Format::Classbench)];
        deserializer.deserialize_str(OneOf("\"xdpfwd\" or \"classbench\"", WORDS))
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Source;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a file in quotes, or a list of rules in brackets, each in quotes")
            }

            fn visit_str<E>(self, name: &str) -> Result<Source, E> {
                Ok(Source::File(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut rules: A) -> Result<Source, A::Error> {
                let mut all = Vec::new();
                while let Some(rule) = rules.next_element()? {
                    all.push(rule);
                }
                Ok(Source::Here(all))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl From<Word> for Verdict {
    fn from(word: Word) -> Self {
        match word {
            Word::Accept => Self::Accept,
            Word::Drop => Self::Drop,
        }
    }
}

/// Rules, where each stands, and what there is to say about them.
struct Read {
    rules: Vec<Rule>,
    places: Vec<Whereabouts>,
    remarks: Vec<Remark>,
}

/// Shadowed rules that are named.
const NAMED: usize = 20;

impl StageConfig for FilterConfig {
    const KIND: &'static str = "filter";

    fn plan(self, cx: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError> {
        let Read { rules, places, mut remarks } = self.read(cx)?;
        if u32::try_from(rules.len()).is_err() {
            return Err(PlanError::new(format!("{} rules: a filter has at most {}", rules.len(), u32::MAX)));
        }
        let seed = RandomState::new().hash_one(0_u64);
        let classifier = Classifier::new(&rules, seed);
        let shadowed = filter::shadowed(&rules, &classifier);
        let more = shadowed.len().saturating_sub(NAMED);
        for shadowed in shadowed.iter().take(NAMED) {
            let (own, by) = (shadowed.rule as usize, shadowed.by as usize);
            let message = format!("rule {} never decides: {} at {} does, with `{}`", own, by, places[by], rules[by]);
            remarks.push(Remark { place: places[own].clone(), message });
        }
        if more > 0 {
            remarks.push(Remark {
                place: Whereabouts::Stage,
                message: format!("and {more} more rules that never decide"),
            });
        }
        let judge_later = self.later_fragments == Some(Manner::Judge);
        let about_later = |rule: &Rule| rule.matches.fragment == Some(filter::Fragments::Later);
        if let Some(rule) = rules.iter().position(about_later).filter(|_| !judge_later) {
            let message = "later fragments do not come to the rules: set later_fragments = \"judge\"".to_owned();
            remarks.push(Remark { place: places[rule].clone(), message });
        }
        let manners = self.manners();
        let program = Program::new(rules, classifier, self.default.into(), manners, cx.workers);
        Ok(Arc::new(FilterPlan { program: Arc::new(program), remarks }))
    }
}

impl FilterConfig {
    /// What becomes of each kind of unusual packet; `None`: the rules judge it.
    fn manners(&self) -> Manners {
        let word = |word: Option<Word>, default| Some(word.map_or(default, Verdict::from));
        let manner = |manner: Option<Manner>| match manner {
            Some(Manner::Accept) => Some(Verdict::Accept),
            Some(Manner::Drop) | None => Some(Verdict::Drop),
            Some(Manner::Judge) => None,
        };
        Manners::new(|unusual| match unusual {
            Unusual::NotIp => word(self.not_ip, Verdict::Accept),
            Unusual::Malformed => word(self.malformed, Verdict::Drop),
            Unusual::VlanStack => word(self.vlan_stack, Verdict::Drop),
            Unusual::ExtensionChain => word(self.extension_chain, Verdict::Drop),
            Unusual::IpOptions => manner(self.ip_options),
            Unusual::LaterFragment => manner(self.later_fragments),
        })
    }

    fn read(&self, cx: &PlanCx<'_>) -> Result<Read, PlanError> {
        match &self.rules {
            Source::Here(rules) if self.format == Format::Xdpfwd => self.read_here(rules),
            Source::Here(_) => Err(PlanError::new("format = \"classbench\" is for files: rules = \"FILE\"")),
            Source::File(name) => {
                let path = cx.directory.join(name);
                let text = fs::read_to_string(&path).map_err(|error| {
                    PlanError::new(format!("rules = {name:?}: cannot read {}: {error}", path.display()))
                })?;
                self.read_file(&text, &path.display().to_string())
            }
        }
    }

    /// Refuses a verdict for all rules where each has its own.
    fn check_action(&self) -> Result<(), PlanError> {
        let wrong = "action is for format = \"classbench\", whose rules say none: here each rule begins with its own";
        self.action.map_or(Ok(()), |_| Err(PlanError::new(wrong)))
    }

    fn read_here(&self, written: &[Spanned<String>]) -> Result<Read, PlanError> {
        self.check_action()?;
        let (mut rules, mut places, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        for text in written {
            let place = Whereabouts::Configuration(text.span());
            match filter::parse_rule(text.get_ref()) {
                Ok(Some(rule)) => {
                    rules.push(rule);
                    places.push(place);
                }
                Ok(None) => problems.push(Remark { place, message: "an empty rule".to_owned() }),
                Err(Problem { column, message, .. }) => {
                    // Behind the quote. With escapes in front of it, it is not exact.
                    let at =
                        text.span().start + text.get_ref().chars().take(column - 1).map(char::len_utf8).sum::<usize>();
                    problems.push(Remark { place: Whereabouts::Configuration(at + 1..at + 1), message });
                }
            }
        }
        if problems.is_empty() { Ok(Read { rules, places, remarks: Vec::new() }) } else { Err(PlanError(problems)) }
    }

    fn read_file(&self, text: &str, file: &str) -> Result<Read, PlanError> {
        let at = |line, column| Whereabouts::File { file: file.to_owned(), line, column };
        let problem = |Problem { line, column, message }| Remark { place: at(line, column), message };
        let mut remarks = Vec::new();
        let read = match self.format {
            Format::Xdpfwd => {
                self.check_action()?;
                filter::parse(text)
            }
            Format::Classbench => {
                let Some(action) = self.action else {
                    let wanted = "format = \"classbench\" says no verdicts: add action = \"accept\" or \"drop\", for all its rules";
                    return Err(PlanError::new(wanted));
                };
                filter::parse_classbench(text, action.into()).map(|(rules, ignored)| {
                    if ignored > 0 {
                        let message = format!("the flags column of {ignored} rules in {file} is ignored");
                        remarks.push(Remark { place: Whereabouts::Stage, message });
                    }
                    rules
                })
            }
        };
        let read = read.map_err(|problems| PlanError(problems.into_iter().map(problem).collect()))?;
        let (lines, rules): (Vec<_>, Vec<_>) = read.into_iter().unzip();
        Ok(Read { rules, places: lines.into_iter().map(|line| at(line, 1)).collect(), remarks })
    }
}
