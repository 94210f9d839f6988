//! Medians with confidence intervals.

use serde::Serialize;

/// The median of a sample, with a confidence interval of the true median.
///
/// The interval lies between two order statistics. Of *n* values, the number below the true median
/// is binomial(*n*, ½) for every continuous distribution, so no resampling is needed. The interval
/// is the narrowest symmetric one with a coverage of at least 95 % (2nd to 8th of 9 values:
/// 96.1 %); with fewer than six values, it is their range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Median {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// Probability that the interval covers the true median.
    pub(crate) coverage: f64,
    pub(crate) n: usize,
}

const MIN_COVERAGE: f64 = 0.95;

impl Median {
    /// Computes the median. Ignores infinite values and NaN. Returns `None` if no values remain.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let middle = *sorted.get(n / 2)?;
        let median =
            if n.is_multiple_of(2) { f64::midpoint(sorted[n / 2 - 1], middle) } else { middle };
        let (depth, coverage) = (0..n.div_ceil(2))
            .map(|depth| (depth, coverage(n, depth)))
            .take_while(|&(depth, coverage)| depth == 0 || coverage >= MIN_COVERAGE)
            .last()?;
        Some(Self { median, low: sorted[depth], high: sorted[n - 1 - depth], coverage, n })
    }
}

/// Returns the coverage of the interval that remains of `n` values without the `depth` lowest and
/// the `depth` highest.
fn coverage(n: usize, depth: usize) -> f64 {
    // The probability that at most `depth` of n values lie on one side of the true median.
    let mut term = 0.5f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let mut tail = 0.0;
    for k in 0..=depth {
        tail += term;
        term *= (n - k) as f64 / (k + 1) as f64;
    }
    (1.0 - 2.0 * tail).max(0.0)
}

/// Returns the lower quartile: of costs that other programs can only increase, a more stable figure
/// than the median. Ignores infinite values and NaN.
pub(crate) fn lower_quartile(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 4).copied()
}

/// Returns the slope of y over x: the median of the slopes of all pairs of points with different x
/// (Theil and Sen). A point that is far off, such as an interrupted run, hardly changes it. Returns
/// `None` without such a pair.
pub(crate) fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let pairs = points.iter().enumerate().flat_map(|(index, a)| {
        points[index + 1..].iter().filter(|b| b.0 != a.0).map(|b| (b.1 - a.1) / (b.0 - a.0))
    });
    Median::of(pairs).map(|median| median.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slope_ignores_a_point_that_is_far_off() {
        let mut points: Vec<_> = (0..6).map(|n| (f64::from(n), 7.0 + 3.0 * f64::from(n))).collect();
        assert_eq!(slope(&points), Some(3.0));
        points[4].1 += 1000.0;
        assert_eq!(slope(&points), Some(3.0));
        assert_eq!(slope(&[(1.0, 2.0), (1.0, 3.0)]), None);
    }

    #[test]
    fn lower_quartile_ignores_the_highest_values() {
        assert_eq!(
            lower_quartile([5.0, 1.0, 2.0, 3.0, f64::NAN, 900.0, 4.0, 800.0, 700.0]),
            Some(3.0)
        );
        assert_eq!(lower_quartile([7.0]), Some(7.0));
        assert_eq!(lower_quartile([]), None);
    }

    #[test]
    fn interval_of_nine_values_is_second_to_eighth() {
        let median = Median::of((1..=9).map(f64::from)).unwrap();
        assert_eq!((median.median, median.low, median.high), (5.0, 2.0, 8.0));
        // As in tables of the sign test: 1 - 2 (1 + 9) / 512.
        assert!((median.coverage - (1.0 - 20.0 / 512.0)).abs() < 1e-12, "{median:?}");
    }

    #[test]
    fn few_values_give_range_with_its_coverage() {
        let median = Median::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!(
            (median.median, median.low, median.high, median.coverage),
            (2.0, 1.0, 3.0, 0.75)
        );
        assert_eq!(Median::of([7.0]).unwrap().coverage, 0.0);
        assert_eq!(Median::of([4.0, 2.0]).unwrap().median, 3.0);
        assert_eq!(Median::of([f64::NAN]), None);
    }

    #[test]
    fn six_values_are_needed_for_95_percent_coverage() {
        assert!(Median::of((0..5).map(f64::from)).unwrap().coverage < MIN_COVERAGE);
        assert!(Median::of((0..6).map(f64::from)).unwrap().coverage >= MIN_COVERAGE);
    }
}
