//! Rates of the last minute.

use std::collections::VecDeque;

/// Seconds that a history covers.
pub(super) const SECONDS: f64 = 60.0;

/// Maximum number of samples, also if the process's clock does not advance.
const MAX_SAMPLES: usize = 1000;

/// A rate over an interval that ends at a time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    end: f64,
    seconds: f64,
    rate: f64,
}

/// The rates of the last minute, by the clock of the report.
#[derive(Clone, Debug, Default)]
pub(super) struct History(VecDeque<Sample>);

impl History {
    pub(super) fn push(&mut self, end: f64, seconds: f64, rate: f64) {
        self.0.push_back(Sample { end, seconds, rate });
        while self.0.front().is_some_and(|sample| sample.end <= end - SECONDS)
            || self.0.len() > MAX_SAMPLES
        {
            self.0.pop_front();
        }
    }

    /// Returns the mean rates of `columns` equal parts of the last minute, oldest first. `None` for
    /// parts without a sample.
    pub(super) fn columns(&self, columns: usize) -> Vec<Option<f64>> {
        let now = self.0.back().map_or(0.0, |sample| sample.end);
        let part = SECONDS / columns.max(1) as f64;
        let mean = |column: usize| {
            let end = now - part * (columns - 1 - column) as f64;
            let (mut weight, mut sum) = (0.0, 0.0);
            for sample in &self.0 {
                let start = (sample.end - sample.seconds).max(end - part);
                let overlap = sample.end.min(end) - start;
                // Ignore the overlap that only rounding causes.
                if overlap > part * 1e-6 {
                    weight += overlap;
                    sum += sample.rate * overlap;
                }
            }
            (weight > 0.0).then(|| sum / weight)
        };
        (0..columns).map(mean).collect()
    }

    /// Returns the highest rate of the last minute.
    pub(super) fn peak(&self) -> f64 {
        self.0.iter().map(|sample| sample.rate).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_means_of_their_part_of_the_minute() {
        let mut history = History::default();
        for second in 1..=60 {
            history.push(f64::from(second), 1.0, f64::from(second));
        }
        let columns: Vec<f64> = history.columns(6).into_iter().map(Option::unwrap).collect();
        for (column, expected) in columns.iter().zip([5.5, 15.5, 25.5, 35.5, 45.5, 55.5]) {
            assert!((column - expected).abs() < 1e-6, "{columns:?}");
        }
        // Parts shorter than a sample repeat it.
        let columns = history.columns(120);
        assert_eq!((columns[118], columns[119]), (Some(60.0), Some(60.0)));
        assert_eq!(history.peak(), 60.0);
    }

    #[test]
    fn columns_before_the_first_sample_are_empty() {
        let mut history = History::default();
        assert_eq!(history.columns(3), [None, None, None]);
        history.push(100.0, 1.0, 7.0);
        assert_eq!(history.columns(3), [None, None, Some(7.0)]);
        assert_eq!(history.columns(0), []);
    }

    #[test]
    fn samples_older_than_a_minute_are_forgotten() {
        let mut history = History::default();
        history.push(1.0, 1.0, 9.0);
        history.push(61.5, 1.0, 1.0);
        assert_eq!((history.peak(), history.0.len()), (1.0, 1));
        for _ in 0..2 * MAX_SAMPLES {
            history.push(61.5, 1.0, 1.0);
        }
        assert!(history.0.len() <= MAX_SAMPLES);
    }
}
