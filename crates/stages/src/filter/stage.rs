//! The filter stage.

use std::hash::{BuildHasher as _, RandomState};
use std::iter;
use std::ops::Range;
use std::sync::Arc;

use xdpfwd_filter::{Addresses, Classifier, FlowCache, Fragment, Key, L4, Verdict};
use xdpfwd_pipeline::{Cx, Reason, Stage, View};
use xdpfwd_xsk::Batch;

use super::exception::{ExceptionCounters, PacketException};
use super::key::Inspection;
use super::modifiers::Modifiers;
use super::program::Program;
use super::rules;

/// The filter stage of one worker.
#[derive(Debug)]
pub struct Filter {
    program: Arc<Program>,
    /// Packets that each rule matched.
    hits: Vec<u64>,
    defaulted: u64,
    exceptions: ExceptionCounters,
    accepted: u64,
    modifiers: Modifiers,
    /// `None` if not configured, or if there are so few rules that they are compared one by one.
    cache: Option<FlowCache>,
    // Buffers for one batch: for each packet to which rules apply, its key, its batch index, and
    // the index of its first matching rule or [`Classifier::NONE`].
    keys: Box<[Key; Batch::CAPACITY]>,
    batch_indices: Box<[u8; Batch::CAPACITY]>,
    first_matches: Box<[u32; Batch::CAPACITY]>,
}

/// The decision about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The drop reason, or `None` if the packet passes.
    pub drop: Option<Reason>,
    /// The rule that gave the verdict, or whose limit dropped the packet, if any.
    pub rule: Option<u32>,
    /// The packet exception whose configuration key gave the verdict, if any.
    pub exception: Option<PacketException>,
}

const _: () = assert!(Batch::CAPACITY == Classifier::BATCH);

impl Filter {
    /// Creates the stage of one worker.
    pub fn new(program: Arc<Program>) -> Self {
        let modifiers = Modifiers::new(&program.rules, &program.limits);
        Self::with_modifiers(program, modifiers)
    }

    /// Creates a filter for [`decide`](Self::decide) whose limits count time in nanoseconds. It
    /// shares no tokens with the data plane, and the same packets get the same verdicts each time.
    pub fn for_dry_run(program: Arc<Program>) -> Self {
        let modifiers = Modifiers::new(&program.rules, &program.limits.for_dry_run());
        Self::with_modifiers(program, modifiers)
    }

    fn with_modifiers(program: Arc<Program>, modifiers: Modifiers) -> Self {
        let random_seed = RandomState::new().hash_one(0_u64);
        let empty_key = Key::new(Addresses::V4 { source: 0, destination: 0 }, 0, L4::None);
        Self {
            hits: vec![0; program.rules.len()],
            defaulted: 0,
            exceptions: ExceptionCounters::default(),
            accepted: 0,
            modifiers,
            cache: (program.flow_cache > 0 && program.classifier.has_tuples())
                .then(|| FlowCache::new(program.flow_cache, random_seed)),
            keys: Box::new([empty_key; Batch::CAPACITY]),
            batch_indices: Box::new([0; Batch::CAPACITY]),
            first_matches: Box::new([Classifier::NONE; Batch::CAPACITY]),
            program,
        }
    }

    /// Returns the packets that each rule matched, in rule order.
    pub fn hits(&self) -> &[u64] {
        &self.hits
    }

    /// Decides about a single packet of `bytes` bytes at the time `now`: in nanoseconds for a
    /// filter created by [`for_dry_run`](Self::for_dry_run), otherwise in clock cycles.
    pub fn decide(&mut self, inspection: Inspection, bytes: usize, now: u64) -> Outcome {
        match self.key_or_verdict(inspection) {
            Ok(key) => {
                self.apply_rules(&key, self.program.classifier.first_match(&key, 0), bytes, now)
            }
            Err((exception, verdict)) => Outcome {
                drop: (verdict == Verdict::Drop).then(|| exception.reason()),
                rule: None,
                exception: Some(exception),
            },
        }
    }

    /// Returns the key for the rules, or counts the exception and returns its verdict.
    #[inline]
    fn key_or_verdict(
        &mut self,
        inspection: Inspection,
    ) -> Result<Key, (PacketException, Verdict)> {
        match inspection {
            Inspection::Key(key) => Ok(key),
            Inspection::Exception(exception, key) => {
                let policy = &self.program.exceptions;
                let (exception, verdict) = match (policy.verdict(exception), key) {
                    (Some(verdict), _) => (exception, verdict),
                    // The first fragment of a GTP-U packet has no key for the rules. Treat it as a
                    // later fragment; drop it if the rules would judge later fragments.
                    (None, None) => {
                        let later = PacketException::LaterFragment;
                        (later, policy.verdict(later).unwrap_or(Verdict::Drop))
                    }
                    // Options or a routing header must not hide that the packet is a fragment.
                    (None, Some(key)) => match policy.verdict(PacketException::LaterFragment) {
                        Some(verdict) if key.fragment == Fragment::Later => {
                            (PacketException::LaterFragment, verdict)
                        }
                        _ => return Ok(key),
                    },
                };
                self.exceptions.count(exception, verdict);
                self.accepted += u64::from(verdict == Verdict::Accept);
                Err((exception, verdict))
            }
        }
    }

    /// Applies the matching rules from `first` on, until one gives a verdict or its limit drops the
    /// packet; if none does, the default.
    #[inline]
    fn apply_rules(&mut self, key: &Key, first: Option<u32>, bytes: usize, now: u64) -> Outcome {
        let Self { program, hits, modifiers, .. } = self;
        let (mut next, mut further) = (first, None);
        while let Some(rule_index) = next {
            let rule = &program.rules[rule_index as usize];
            let matched = &mut hits[rule_index as usize];
            *matched += 1;
            // Logs every n-th packet of a rule with `log 1/n`.
            modifiers.sample(rule_index, rule, *matched, key, bytes);
            if !modifiers.passes(rule_index, key, bytes, now) {
                return Outcome::of_rule(Some(Reason::RATE_LIMIT), rule_index);
            }
            match rule.verdict {
                Some(Verdict::Accept) => {
                    self.accepted += 1;
                    return Outcome::of_rule(None, rule_index);
                }
                Some(Verdict::Drop) => {
                    return Outcome::of_rule(Some(Reason::POLICY), rule_index);
                }
                None => {
                    let further = further
                        .get_or_insert_with(|| program.classifier.matches(key, rule_index + 1));
                    next = further.next();
                }
            }
        }
        self.defaulted += 1;
        let drop = (self.program.default == Verdict::Drop).then_some(Reason::POLICY);
        self.accepted += u64::from(drop.is_none());
        Outcome { drop, rule: None, exception: None }
    }
}

impl Outcome {
    fn of_rule(drop: Option<Reason>, rule: u32) -> Self {
        Self { drop, rule: Some(rule), exception: None }
    }
}

impl Stage for Filter {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        let mut count = 0;
        for batch_index in 0..view.len() {
            let Some(mut packet) = view.packet(batch_index) else { continue };
            let inspection = self.program.inspect(packet.frame, &packet.meta.headers);
            let key = match self.key_or_verdict(inspection) {
                Ok(key) => key,
                Err((_, Verdict::Accept)) => continue,
                Err((exception, Verdict::Drop)) => {
                    packet.drop(exception.reason());
                    continue;
                }
            };
            self.keys[count] = key;
            self.batch_indices[count] = batch_index as u8;
            count += 1;
        }
        let keys = &self.keys[..count];
        match &mut self.cache {
            None => self.program.classifier.classify(keys, &mut self.first_matches),
            Some(cache) => {
                self.program.classifier.classify_cached(keys, &mut self.first_matches, cache)
            }
        }
        for index in 0..count {
            let Some(mut packet) = view.packet(self.batch_indices[index].into()) else { continue };
            let (key, first_match) = (self.keys[index], self.first_matches[index]);
            let first = Some(first_match).filter(|rule| *rule != Classifier::NONE);
            if let Some(reason) = self.apply_rules(&key, first, packet.frame.len(), cx.now()).drop {
                packet.drop(reason);
            }
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut counters = vec![
            ("accepted", self.accepted),
            ("default", self.defaulted),
            ("log_lost", self.modifiers.log_lost()),
        ];
        if let Some(cache) = &self.cache {
            let (hits, misses) = cache.hits_and_misses();
            counters.extend([("flow_cache_hits", hits), ("flow_cache_misses", misses)]);
        }
        counters
    }

    fn row_counters(&self) -> Vec<u64> {
        let mut counters = rules::row_counters(&self.hits, self.defaulted);
        counters.extend(self.exceptions.rows());
        counters
    }

    fn row_counters_in(&self, rows: Range<usize>) -> Vec<u64> {
        let rules = self.hits.len();
        let counted = self.hits.get(rows.start.min(rules)..rows.end.min(rules)).unwrap_or_default();
        let after_rules = iter::once(self.defaulted).chain(self.exceptions.rows());
        let [skipped, end] = [rows.start, rows.end].map(|row| row.saturating_sub(rules));
        let after_rules = after_rules.skip(skipped).take(end.saturating_sub(skipped));
        counted.iter().copied().chain(after_rules).collect()
    }
}
