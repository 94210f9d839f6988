//! A filter at work.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use xdpfwd_filter::{Addresses, Classifier, FlowCache, Fragment, Key, L4, Verdict};
use xdpfwd_pipeline::{Cx, Reason, Stage, View};
use xdpfwd_xsk::Batch;

use super::key::Seen;
use super::modifiers::Modifiers;
use super::program::Program;
use super::rules;

/// A filter at work.
#[derive(Debug)]
pub struct Filter {
    program: Arc<Program>,
    /// Of each rule, what it matched.
    hits: Vec<u64>,
    /// What the default was the answer to.
    defaulted: u64,
    accepted: u64,
    modifiers: Modifiers,
    /// If it is wanted, and there are so many rules that it helps.
    cache: Option<FlowCache>,
    // What is written anew for every batch.
    keys: Box<[Key; Batch::CAPACITY]>,
    places: Box<[u8; Batch::CAPACITY]>,
    found: Box<[u32; Batch::CAPACITY]>,
}

/// What a packet came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why it is dropped; `None`: it goes on.
    pub drop: Option<Reason>,
    /// The rule that decided, from 0; `None`: none did.
    pub rule: Option<u32>,
}

const NONE: u32 = u32::MAX;

const _: () = assert!(Batch::CAPACITY == Classifier::BATCH);

impl Filter {
    /// A worker's.
    pub fn new(program: Arc<Program>) -> Self {
        let nothing = Key {
            addresses: Addresses::V4 { source: 0, destination: 0 },
            protocol: 0,
            l4: L4::None,
            fragment: Fragment::No,
            dscp: 0,
            vlan: None,
        };
        Self {
            hits: vec![0; program.rules.len()],
            defaulted: 0,
            accepted: 0,
            modifiers: Modifiers::new(&program.rules, &program.limits),
            cache: (program.flow_cache > 0 && program.classifier.has_tuples())
                .then(|| FlowCache::new(program.flow_cache, RandomState::new().hash_one(0_u64))),
            keys: Box::new([nothing; Batch::CAPACITY]),
            places: Box::new([0; Batch::CAPACITY]),
            found: Box::new([NONE; Batch::CAPACITY]),
            program,
        }
    }

    /// What each rule has matched, in their order.
    pub fn hits(&self) -> &[u64] {
        &self.hits
    }

    /// Judges one packet by itself: a dry run.
    pub fn judge(&mut self, seen: Seen, bytes: usize, now: u64) -> Outcome {
        match seen {
            Seen::Key(key) => {
                self.by_rules(&key, self.program.classifier.first_match(&key, 0), bytes, now)
            }
            Seen::Unusual(unusual, key) => match (self.program.exceptions.of(unusual), key) {
                (None, Some(key)) => {
                    self.by_rules(&key, self.program.classifier.first_match(&key, 0), bytes, now)
                }
                (Some(Verdict::Accept), _) => Outcome { drop: None, rule: None },
                _ => Outcome { drop: Some(unusual.reason()), rule: None },
            },
        }
    }

    /// Goes on from the first rule that matches to the one that decides.
    #[inline]
    fn by_rules(&mut self, key: &Key, first: Option<u32>, bytes: usize, now: u64) -> Outcome {
        let mut next = first;
        while let Some(number) = next {
            let rule = &self.program.rules[number as usize];
            self.hits[number as usize] += 1;
            self.modifiers.note(number, rule, self.hits[number as usize], key, bytes);
            if !self.modifiers.passes(number, key, bytes, now) {
                return Outcome { drop: Some(Reason::RATE_LIMIT), rule: Some(number) };
            }
            match rule.verdict {
                Some(Verdict::Accept) => {
                    self.accepted += 1;
                    return Outcome { drop: None, rule: Some(number) };
                }
                Some(Verdict::Drop) => {
                    return Outcome { drop: Some(Reason::POLICY), rule: Some(number) };
                }
                None => next = self.program.classifier.first_match(key, number + 1),
            }
        }
        self.defaulted += 1;
        let drop = (self.program.default == Verdict::Drop).then_some(Reason::POLICY);
        self.accepted += u64::from(drop.is_none());
        Outcome { drop, rule: None }
    }
}

impl Stage for Filter {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        let mut count = 0;
        for place in 0..view.len() {
            let Some(mut packet) = view.packet(place) else { continue };
            let key = match self.program.look(packet.frame, &packet.meta.headers) {
                Seen::Key(key) => key,
                Seen::Unusual(unusual, key) => match (self.program.exceptions.of(unusual), key) {
                    (None, Some(key)) => key,
                    (Some(Verdict::Accept), _) => {
                        self.accepted += 1;
                        continue;
                    }
                    _ => {
                        packet.drop(unusual.reason());
                        continue;
                    }
                },
            };
            self.keys[count] = key;
            self.places[count] = place as u8;
            count += 1;
        }
        let keys = &self.keys[..count];
        match &mut self.cache {
            None => self.program.classifier.classify(keys, &mut self.found),
            Some(cache) => self.program.classifier.classify_cached(keys, &mut self.found, cache),
        }
        for index in 0..count {
            let Some(mut packet) = view.packet(self.places[index].into()) else { continue };
            let (key, found) = (self.keys[index], self.found[index]);
            let first = Some(found).filter(|found| *found != Classifier::NONE);
            if let Some(reason) = self.by_rules(&key, first, packet.frame.len(), cx.now()).drop {
                packet.drop(reason);
            }
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut all = vec![
            ("accepted", self.accepted),
            ("default", self.defaulted),
            ("log_lost", self.modifiers.log_lost()),
        ];
        if let Some(cache) = &self.cache {
            let (hits, misses) = cache.hits_and_misses();
            all.extend([("flow_cache_hits", hits), ("flow_cache_misses", misses)]);
        }
        all
    }

    fn row_counters(&self) -> Vec<u64> {
        rules::row_counters(&self.hits, self.defaulted)
    }
}
