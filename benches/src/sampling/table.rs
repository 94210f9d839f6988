//! The result of `sampling`.

use std::fmt::Write as _;

use anyhow::{Result, bail};

use super::{options::Arguments, windows::Sampling};
use crate::stats::Median;

/// The rate with sampling divided by the rate without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ratios {
    /// Of packets per second.
    pub(super) rate: f64,
    /// Of packets per second of the workers' CPU time.
    pub(super) cpu_time: Option<f64>,
}

/// Returns the text, and the upper end of the interval of the cost, in percent: by CPU time, if it
/// was measured.
pub(super) fn text(
    ratios: &[Ratios],
    sampling: Option<&Sampling>,
    arguments: &Arguments,
) -> (String, f64) {
    let mut text = match arguments.restarts {
        true => format!(
            "Packets per second of xdpfwd with kernel_ledger = \"sampled\", divided by \"off\"; \
             {} pairs of runs\n",
            ratios.len()
        ),
        false => format!(
            "Packets per second of xdpfwd while it is sampled, divided by the rate while it is \
             not; {} runs with {} pairs of windows of {} ms each\n",
            ratios.len(),
            arguments.pairs,
            arguments.window
        ),
    };
    let rate = Median::of(ratios.iter().map(|ratios| ratios.rate));
    let cpu_time = Median::of(ratios.iter().filter_map(|ratios| ratios.cpu_time));
    let mut highest = f64::NAN;
    let names = ["packets per second", "packets per second of CPU time"];
    for (name, median) in names.iter().zip([rate, cpu_time]) {
        let Some(Median { median, low, high, coverage, .. }) = median else { continue };
        highest = 100.0 * (1.0 - low);
        let _ = writeln!(
            text,
            "  {name:<32}{median:.4} [{low:.4}, {high:.4}] {:.0} %: cost {:.2} % [{:.2}, {:.2}]",
            100.0 * coverage,
            100.0 * (1.0 - median),
            100.0 * (1.0 - high),
            highest
        );
    }
    if let Some(Sampling { frequency_hz, sample_nanoseconds, cost_percent }) = sampling {
        let _ = writeln!(
            text,
            "  calculated by the sampler: cost {cost_percent:.2} %: {frequency_hz} samples per second \
             and core, {sample_nanoseconds} ns each"
        );
    }
    (text, highest)
}

/// Fails if the cost is not below the limit.
pub(super) fn check(cost: f64, limit: Option<f64>) -> Result<()> {
    match limit {
        Some(limit) if cost.is_nan() || cost >= limit => bail!(
            "the upper end of the cost, {cost:.2} %, is not below {limit} %; if other programs \
             use this machine, repeat the measurement without them"
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn cost_is_upper_end_of_interval_and_limited() {
        let arguments = Cli::parse_from(["sampling"]).arguments;
        let rates = [0.990, 0.995, 1.005];
        let ratios = rates.map(|rate| Ratios { rate, cpu_time: Some(rate) });
        let (text, cost) = text(&ratios, None, &arguments);
        assert!(text.contains("0.50 % [-0.50, 1.00]"), "{text}");
        assert!((cost - 1.0).abs() < 1e-9, "{cost}");
        assert!(check(cost, Some(2.0)).is_ok() && check(cost, Some(0.9)).is_err());
        assert!(check(f64::NAN, Some(2.0)).is_err() && check(f64::NAN, None).is_ok());
    }
}
