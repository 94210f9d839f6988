//! Searches for the highest rates at which a device loses at most a given share of the packets.
//!
//! The search works like MLRsearch (draft-ietf-bmwg-mlrsearch): one search finds the rates of
//! several goals, short trials narrow the range before long trials confirm it, and goals share
//! trials. It needs only a function that runs one trial, so the device can be anything.
//!
//! For each goal, the search ends when the highest rate that passed is at most
//! [`Limits::precision`] below the lowest rate that failed, both in trials of the full duration. A
//! trial that fails is repeated, and the rate fails only if every attempt fails: on a virtual
//! machine, the hypervisor sometimes takes a core away for milliseconds, and the packets lost then
//! are not the device's fault. A trial in which the generator was disturbed does not count at all:
//! it shows nothing about the rate that was asked for.

use anyhow::Result;

/// A generator that sends less than this share of what was asked for is at its limit.
const GENERATOR_LIMIT: f64 = 0.9;
/// A generator below its limit that sends less than this share of what was asked for is disturbed:
/// its pacing takes up to 2 %.
const PACED_SHARE: f64 = 0.97;
/// Allowed distance from the share that a generator that is always slow has shown to reach.
const SHARE_MARGIN: f64 = 0.98;
/// After this many times the usual number of attempts at a rate, disturbed attempts count.
const MAX_DISTURBED: usize = 3;

/// Where and how a search looks for rates.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limits {
    /// The lowest rate that is tried, in packets per second.
    pub(crate) min_pps: f64,
    /// The highest rate that is tried, and the first. It may be above the generator's capacity.
    pub(crate) max_pps: f64,
    /// Allowed distance between the rate found and the lowest rate that failed, as a share of the
    /// latter.
    pub(crate) precision: f64,
    /// Durations of the trials in seconds, from the first phase to the last. Only trials of the
    /// last phase decide.
    pub(crate) seconds: Vec<f64>,
    /// Attempts at a rate before it counts as failed.
    pub(crate) attempts: usize,
    /// The search ends after this many trials even if it has not reached its precision.
    pub(crate) max_trials: u32,
}

impl Limits {
    /// Returns limits with a precision of 2 %, two phases with trials of 0.25 s and of 1 s, two
    /// attempts at each rate, and at most 60 trials.
    pub(crate) fn new(min_pps: f64, max_pps: f64) -> Self {
        Self {
            min_pps,
            max_pps,
            precision: 0.02,
            seconds: vec![0.25, 1.0],
            attempts: 2,
            max_trials: 60,
        }
    }
}

/// The counts of a trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TrialCounts {
    /// Packets that the generator sent, and their rate in packets per second.
    pub(crate) sent: u64,
    pub(crate) offered_pps: f64,
    /// Packets that arrived.
    pub(crate) received: u64,
}

impl TrialCounts {
    /// Returns the share of packets that were lost. A trial that sent nothing lost everything.
    pub(crate) fn loss(&self) -> f64 {
        match self.sent {
            0 => 1.0,
            sent => (1.0 - self.received as f64 / sent as f64).max(0.0),
        }
    }
}

/// The rate found for a goal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FoundRate {
    /// The goal: the share of packets that may be lost.
    pub(crate) allowed_loss: f64,
    /// The highest rate that passed, as the generator sent it. `None` if none passed.
    pub(crate) pps: Option<f64>,
    /// The lowest rate above it that failed, as the generator sent it. `None` if the device never
    /// lost too many packets: `pps` is then the limit of the generator or of the search.
    pub(crate) upper_pps: Option<f64>,
    /// Trials of the search until it had this rate, for all goals together.
    pub(crate) trials: u32,
    /// Whether the rate has the precision of [`Limits`]. If not, the trials ran out before, and the
    /// rate may be that of shorter trials.
    pub(crate) is_complete: bool,
}

/// Finds the rate of each goal. `goals` are shares of packets that may be lost, such as 0 and
/// 0.005; the results are sorted by goal, and rates never decrease from one goal to the next unless
/// the trials contradict each other.
///
/// `trial` sends at a rate (packets per second) for a time (seconds).
///
/// # Errors
///
/// Only those of `trial`, unchanged.
pub(crate) fn search(
    limits: &Limits,
    goals: &[f64],
    trial: impl FnMut(f64, f64) -> Result<TrialCounts>,
) -> Result<Vec<FoundRate>> {
    let mut goals = goals.to_vec();
    goals.sort_by(f64::total_cmp);
    let mut search = Search {
        limits,
        trial,
        rates: Vec::new(),
        trials: 0,
        generator_pps: 0.0,
        generator_share: PACED_SHARE,
    };
    let mut ranges = vec![Range::default(); goals.len()];
    let mut trials = vec![0; goals.len()];
    let phases = limits.seconds.len();
    for phase in 0..phases {
        // Each earlier phase has four times the width, so that it leaves two bisections.
        let width = limits.precision * 4f64.powi((phases - 1 - phase) as i32);
        for (index, &goal) in goals.iter().enumerate() {
            ranges[index] = search.narrow(phase, goal, width, ranges[index])?;
            trials[index] = search.trials;
        }
    }
    Ok(goals
        .into_iter()
        .zip(ranges)
        .zip(trials)
        .map(|((allowed_loss, range), trials)| {
            let pps = range.passed.map(|bound| bound.offered_pps);
            FoundRate {
                allowed_loss,
                pps,
                // The generator sends some percent less than asked, but not always the same.
                upper_pps: range.failed.map(|bound| bound.offered_pps.max(pps.unwrap_or(0.0))),
                trials,
                is_complete: !range.is_cut_off,
            }
        })
        .collect())
}

/// All trials at one rate in one phase.
struct TestedRate {
    phase: usize,
    pps: f64,
    attempts: Vec<TrialCounts>,
}

/// A rate that passed or failed.
#[derive(Clone, Copy, Debug)]
struct Bound {
    /// As asked for.
    pps: f64,
    offered_pps: f64,
    /// Packets per second that arrived.
    forwarded_pps: f64,
}

impl Bound {
    fn is_limited_by_generator(&self) -> bool {
        self.offered_pps < GENERATOR_LIMIT * self.pps
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Range {
    passed: Option<Bound>,
    failed: Option<Bound>,
    /// Whether the trials ran out before the range had its width.
    is_cut_off: bool,
}

impl Range {
    /// Returns the range when trials run out: a bound of the phase before is better than none,
    /// unless a longer trial contradicts it.
    fn cut_off(self, hint: Self) -> Self {
        let passed = self.passed.or_else(|| {
            hint.passed.filter(|hint| self.failed.is_none_or(|failed| hint.pps < failed.pps))
        });
        let failed = self.failed.or_else(|| {
            hint.failed.filter(|hint| self.passed.is_none_or(|passed| hint.pps > passed.pps))
        });
        Self { passed, failed, is_cut_off: true }
    }
}

enum Verdict {
    Passed(Bound),
    Failed(Bound),
}

struct Search<'a, F> {
    limits: &'a Limits,
    trial: F,
    rates: Vec<TestedRate>,
    trials: u32,
    /// The highest rate that the generator has sent.
    generator_pps: f64,
    /// The share of a rate that the generator must send so that the trial counts.
    generator_share: f64,
}

impl<F: FnMut(f64, f64) -> Result<TrialCounts>> Search<'_, F> {
    /// Narrows the range of a goal to `width`, with trials of one phase. `hint` is the range of
    /// the phase before.
    fn narrow(&mut self, phase: usize, goal: f64, width: f64, hint: Range) -> Result<Range> {
        let Limits { min_pps, max_pps, .. } = *self.limits;
        let mut range = self.known(phase, goal);
        // The distance of the next rate outside the range; it doubles with each.
        let mut step = width;
        loop {
            let pps = match (range.passed, range.failed) {
                (None, None) => hint.passed.or(hint.failed).map_or(max_pps, |bound| bound.pps),
                (Some(passed), None) => {
                    if passed.pps >= max_pps || passed.is_limited_by_generator() {
                        return Ok(range);
                    }
                    match hint.failed {
                        Some(failed) if failed.pps > passed.pps => failed.pps,
                        _ => {
                            let next = passed.pps * (1.0 + step);
                            step *= 2.0;
                            next.min(max_pps)
                        }
                    }
                }
                (None, Some(failed)) => {
                    if failed.pps <= min_pps {
                        return Ok(range);
                    }
                    let next = failed.pps * (1.0 - step.min(0.5));
                    step *= 2.0;
                    // An overloaded device usually forwards about as much as it can without loss.
                    next.min(failed.forwarded_pps).max(min_pps)
                }
                (Some(passed), Some(failed)) => {
                    if failed.pps - passed.pps <= width * failed.pps {
                        return Ok(range);
                    }
                    (passed.pps * failed.pps).sqrt()
                }
            };
            match self.verdict(phase, pps, goal)? {
                Some(Verdict::Passed(bound)) => range.passed = Some(bound),
                Some(Verdict::Failed(bound)) => range.failed = Some(bound),
                None => return Ok(range.cut_off(hint)),
            }
        }
    }

    /// Returns the range that follows from the trials so far of this phase, also for other goals.
    fn known(&self, phase: usize, goal: f64) -> Range {
        let mut range = Range::default();
        let verdicts = || {
            let rates = self.rates.iter().filter(|rate| rate.phase == phase);
            rates.filter_map(|rate| self.decide(rate, goal))
        };
        for verdict in verdicts() {
            if let Verdict::Failed(bound) = verdict
                && range.failed.is_none_or(|failed| bound.pps < failed.pps)
            {
                range.failed = Some(bound);
            }
        }
        for verdict in verdicts() {
            if let Verdict::Passed(bound) = verdict
                && range.failed.is_none_or(|failed| bound.pps < failed.pps)
                && range.passed.is_none_or(|passed| bound.pps > passed.pps)
            {
                range.passed = Some(bound);
            }
        }
        range
    }

    /// Runs trials at a rate until it has passed or failed. Returns `None` if too many trials have
    /// been run.
    fn verdict(&mut self, phase: usize, pps: f64, goal: f64) -> Result<Option<Verdict>> {
        let is_same = |rate: &TestedRate| rate.phase == phase && rate.pps == pps;
        let index = self.rates.iter().position(is_same).unwrap_or_else(|| {
            self.rates.push(TestedRate { phase, pps, attempts: Vec::new() });
            self.rates.len() - 1
        });
        loop {
            if let Some(verdict) = self.decide(&self.rates[index], goal) {
                return Ok(Some(verdict));
            }
            if self.trials >= self.limits.max_trials {
                return Ok(None);
            }
            self.trials += 1;
            let counts = (self.trial)(pps, self.limits.seconds[phase])?;
            self.generator_pps = self.generator_pps.max(counts.offered_pps);
            self.rates[index].attempts.push(counts);
            self.learn_share(index);
        }
    }

    /// Lowers the share that the generator must send if it never reaches it at a rate: so other
    /// rates do not take as many attempts.
    fn learn_share(&mut self, index: usize) {
        let rate = &self.rates[index];
        let best = rate.attempts.iter().map(|attempt| attempt.offered_pps).fold(0.0, f64::max);
        if self.is_always_disturbed(rate) && best < self.generator_share * rate.pps {
            self.generator_share = SHARE_MARGIN * best / rate.pps;
        }
    }

    fn is_always_disturbed(&self, rate: &TestedRate) -> bool {
        rate.attempts.len() >= MAX_DISTURBED * self.limits.attempts.max(1)
    }

    /// Returns `None` if another attempt is needed.
    ///
    /// An attempt in which the generator sent less than it should and can does not count: it says
    /// nothing about the rate that was asked for. After [`MAX_DISTURBED`] times as many attempts,
    /// those with the highest rates count nevertheless: the generator is slower than it was.
    fn decide(&self, rate: &TestedRate, goal: f64) -> Option<Verdict> {
        let is_always_disturbed = self.is_always_disturbed(rate);
        let most = rate.attempts.iter().map(|attempt| attempt.offered_pps).fold(0.0, f64::max);
        let expected_pps = match rate.pps <= self.generator_pps {
            true => self.generator_share * rate.pps,
            false => GENERATOR_LIMIT * self.generator_pps,
        };
        let enough_pps = match is_always_disturbed {
            true => expected_pps.min(SHARE_MARGIN * most),
            false => expected_pps,
        };
        let valid = || rate.attempts.iter().filter(|attempt| attempt.offered_pps >= enough_pps);
        let best = valid().min_by(|a, b| a.loss().total_cmp(&b.loss()))?;
        let bound = Bound {
            pps: rate.pps,
            offered_pps: best.offered_pps,
            forwarded_pps: best.offered_pps * (1.0 - best.loss()),
        };
        if best.loss() <= goal {
            return Some(Verdict::Passed(bound));
        }
        // Asking for more than the generator can send is the same as asking for its maximum.
        let bound = match bound.is_limited_by_generator() {
            true => Bound { pps: bound.offered_pps.max(self.limits.min_pps), ..bound },
            false => bound,
        };
        let is_repeated = valid().count() >= self.limits.attempts.max(1) || is_always_disturbed;
        is_repeated.then_some(Verdict::Failed(bound))
    }
}

#[cfg(test)]
mod tests;
