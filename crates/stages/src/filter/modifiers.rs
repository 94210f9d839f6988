//! The modifiers of rules: `limit` (rate limits) and `log` (samples of packets).

use std::sync::Arc;

use xdpfwd_filter::{Key, Limit, Per, Rule};

use super::limit::{Bucket, Meter, Rate, SourceBuckets, Ticks};
use super::log::{LogWriter, SampleRecorder};
use xdpfwd_pipeline::PlanError;

/// The rate limits and the log writer, shared by all workers.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Index of the rule, configured limit, buckets.
    all: Vec<(u32, Limit, SharedLimit)>,
    /// Number of workers: the more there are, the fewer tokens each takes in advance. `None` in a
    /// dry run, which takes no tokens in advance.
    workers: Option<usize>,
    log: LogWriter,
}

/// Maximum rules with a limit per source prefix, each of which uses 2 MiB.
const MAX_SOURCE_LIMITS: usize = 64;

/// One bucket for the rule, or one per source prefix.
#[derive(Clone, Debug)]
enum SharedLimit {
    Rule(Arc<Bucket>),
    Source(Arc<SourceBuckets>),
}

impl Limits {
    pub(crate) fn new<'r>(
        rules: impl IntoIterator<Item = &'r Rule> + Clone,
        workers: usize,
    ) -> Result<Self, PlanError> {
        let is_per_source = |rule: &&Rule| rule.limit.is_some_and(|limit| limit.per != Per::Rule);
        let count = rules.clone().into_iter().filter(is_per_source).count();
        if count > MAX_SOURCE_LIMITS {
            let message = format!(
                "{count} limits per source prefix: a stage supports at most {MAX_SOURCE_LIMITS} \
                 (2 MiB each); to share a limit among several rules, put it into a `continue` rule \
                 before them"
            );
            return Err(PlanError::new(message));
        }
        let log = LogWriter::new(rules.clone());
        let shared = |limit: &Limit| match limit.per {
            Per::Rule => SharedLimit::Rule(Arc::default()),
            Per::Source(length) => {
                SharedLimit::Source(Arc::new(SourceBuckets::new(limit, length, Ticks::cycles())))
            }
        };
        let all = (0..)
            .zip(rules)
            .filter_map(|(index, rule)| rule.limit.map(|limit| (index, limit, shared(&limit))));
        Ok(Self { all: all.collect(), workers: Some(workers), log })
    }

    /// Returns the same limits with new, full buckets, which count time in nanoseconds and decide
    /// equally in each dry run.
    pub(crate) fn for_dry_run(&self) -> Self {
        let all = self.all.iter().map(|(rule, limit, _)| {
            let shared = match limit.per {
                Per::Rule => SharedLimit::Rule(Arc::default()),
                Per::Source(length) => {
                    SharedLimit::Source(Arc::new(SourceBuckets::for_dry_run(limit, length)))
                }
            };
            (*rule, *limit, shared)
        });
        Self { all: all.collect(), workers: None, log: self.log.clone() }
    }
}

/// One worker's access to the rate limits and the log.
#[derive(Debug)]
pub(crate) struct Modifiers {
    /// For each rule, its index in `limits` or `u32::MAX`. Empty if no rule has a limit.
    limit_indices: Vec<u32>,
    limits: Vec<WorkerLimit>,
    log: SampleRecorder,
}

#[derive(Debug)]
enum WorkerLimit {
    Rule(Meter),
    Source(Arc<SourceBuckets>),
}

impl Modifiers {
    pub(crate) fn new<'r>(
        rules: impl IntoIterator<Item = &'r Rule> + Clone,
        limits: &Limits,
    ) -> Self {
        let mut limit_indices = Vec::new();
        if !limits.all.is_empty() {
            limit_indices = vec![u32::MAX; rules.clone().into_iter().count()];
        }
        let mut worker_limits = Vec::new();
        for (rule, limit, shared) in &limits.all {
            limit_indices[*rule as usize] = worker_limits.len() as u32;
            worker_limits.push(match shared {
                SharedLimit::Rule(bucket) => {
                    let rate = match limits.workers {
                        Some(workers) => {
                            Rate::new(limit, Ticks::cycles()).with_advance_tokens(limit, workers)
                        }
                        None => Rate::new(limit, Ticks::NANOSECONDS),
                    };
                    WorkerLimit::Rule(Meter::new(rate, limit.unit, Arc::clone(bucket)))
                }
                SharedLimit::Source(sources) => WorkerLimit::Source(Arc::clone(sources)),
            });
        }
        Self { limit_indices, limits: worker_limits, log: SampleRecorder::new(&limits.log) }
    }

    /// Spends the tokens for a packet of `bytes` bytes. Returns false if the rule has a limit and
    /// too few tokens are left.
    #[inline]
    pub(crate) fn passes(&mut self, rule: u32, key: &Key, bytes: usize, now: u64) -> bool {
        let Some(limit) = self
            .limit_indices
            .get(rule as usize)
            .and_then(|index| self.limits.get_mut(*index as usize))
        else {
            return true;
        };
        match limit {
            WorkerLimit::Rule(meter) => meter.passes(bytes, now),
            WorkerLimit::Source(sources) => sources.passes(&key.addresses, bytes, now),
        }
    }

    /// Logs every n-th packet of a rule with `log 1/n`. `matched` counts the rule's packets,
    /// including this one.
    #[inline]
    pub(crate) fn sample(
        &mut self,
        rule_index: u32,
        rule: &Rule,
        matched: u64,
        key: &Key,
        bytes: usize,
    ) {
        if let Some(interval) = rule.log
            && matched.is_multiple_of(u64::from(interval))
        {
            self.log.record(rule_index, key, bytes);
        }
    }

    pub(crate) fn log_lost(&self) -> u64 {
        self.log.lost()
    }
}
