//! Progress on stderr: a bar with the time left on a terminal, lines elsewhere.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use crate::common::note;

/// Weight of the planned duration of a step against measured ones, in steps.
const PLANNED_WEIGHT: f64 = 3.0;

/// Estimates how long the remaining steps take.
#[derive(Clone, Debug)]
pub(crate) struct Estimate {
    runs: Kind,
    rates: Kind,
}

/// Steps of one kind, with durations in seconds.
#[derive(Clone, Debug)]
struct Kind {
    planned: f64,
    elapsed: f64,
    done: u32,
    remaining: u32,
}

impl Kind {
    fn seconds_left(&self) -> f64 {
        let weight = PLANNED_WEIGHT + f64::from(self.done);
        let mean = (PLANNED_WEIGHT * self.planned + self.elapsed) / weight;
        mean * f64::from(self.remaining)
    }
}

impl Estimate {
    /// Starts with the planned durations of a run and of a search for rates, in seconds.
    pub(crate) fn new(run_seconds: f64, rates_seconds: f64) -> Self {
        let kind = |planned| Kind { planned, elapsed: 0.0, done: 0, remaining: 0 };
        Self { runs: kind(run_seconds), rates: kind(rates_seconds) }
    }

    fn kind(&mut self, is_rates: bool) -> &mut Kind {
        if is_rates { &mut self.rates } else { &mut self.runs }
    }

    /// Counts a step that remains.
    pub(crate) fn add(&mut self, is_rates: bool) {
        self.kind(is_rates).remaining += 1;
    }

    /// Counts a duration that was measured.
    pub(crate) fn measured(&mut self, is_rates: bool, seconds: f64) {
        let kind = self.kind(is_rates);
        kind.done += 1;
        kind.elapsed += seconds;
    }

    /// Counts a step that remains no more.
    pub(crate) fn remove(&mut self, is_rates: bool) {
        let kind = self.kind(is_rates);
        kind.remaining = kind.remaining.saturating_sub(1);
    }

    pub(crate) fn left(&self) -> Duration {
        Duration::from_secs_f64(self.runs.seconds_left() + self.rates.seconds_left())
    }
}

/// Formats a duration in minutes, or in seconds if it is short.
pub(crate) fn brief_duration(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..=99 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

/// Shows which step runs, and what has ended.
pub(crate) struct Progress {
    /// `None` if stderr is not a terminal.
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows the progress of `steps` steps, of which `done` are done.
    pub(crate) fn new(steps: usize, done: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps as u64).with_position(done as u64);
            let style = ProgressStyle::with_template("[{bar:30}] {pos}/{len}  {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> "));
            // Shows that the program is alive during long steps.
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        Self { bar }
    }

    /// Shows the step that runs now.
    pub(crate) fn start(&self, step: &str, left: Duration) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} left  {step}", brief_duration(left)));
        }
    }

    /// Counts a step that has ended. On a terminal, only the bar moves, unless the step failed.
    pub(crate) fn end(&self, step: &str, result: &str, has_failed: bool, left: Duration) {
        match &self.bar {
            Some(bar) => {
                bar.inc(1);
                if has_failed {
                    self.note(&format!("{step}: {result}"));
                }
            }
            None => note(&format!("{step}: {result}; {} left", brief_duration(left))),
        }
    }

    /// Counts a step that is not tried.
    pub(crate) fn skip(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Prints a line that remains visible.
    pub(crate) fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(line)),
            None => note(line),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimate_moves_from_planned_to_measured_durations() {
        let mut estimate = Estimate::new(2.0, 20.0);
        (0..100).for_each(|_| estimate.add(false));
        estimate.add(true);
        assert_eq!(estimate.left(), Duration::from_secs(220));
        for _ in 0..97 {
            estimate.measured(false, 4.0);
            estimate.remove(false);
        }
        let left = estimate.left().as_secs_f64();
        assert!((31.0..32.0).contains(&left), "three runs of nearly 4 s, and 20 s: {left}");
    }

    #[test]
    fn brief_duration_is_rounded_up_to_minutes() {
        let text = |seconds| brief_duration(Duration::from_secs(seconds));
        assert_eq!([text(0), text(99), text(100), text(3601)], ["0 s", "99 s", "2 min", "61 min"]);
    }
}
