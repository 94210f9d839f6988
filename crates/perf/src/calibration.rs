//! Measures how long the kernel takes for one sample.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::event::event;

/// Sampling rates to try, in this order: the kernel may limit the rate
/// (`kernel.perf_event_max_sample_rate`).
const FREQUENCIES_HZ: [u64; 3] = [4000, 1000, 241];

/// Samples to wait for.
const WANTED: usize = 100;

/// Time limit of the measurement.
const TIMEOUT: Duration = Duration::from_millis(100);

/// Returns the time that one sample takes on the sampled core, from the timer interrupt to the
/// return from it.
///
/// Samples the calling thread at a high rate while it repeats a short system call, which a sample
/// interrupts inside the kernel, with a call chain as deep as that of a transmit call. A call that
/// a sample interrupts takes longer than the others; the result is the median of the differences. A
/// median ignores the few calls that another thread or interrupt has made much longer.
pub(crate) fn sample_cost() -> io::Result<Duration> {
    let (sender, receiver) = UnixDatagram::pair()?;
    let mut counter = open_counter()?;
    counter.enable()?;
    let mut samples = counter.sampled(1 << 20)?;
    let mut durations = Vec::with_capacity(1 << 17);
    let mut byte = [0];
    let (mut sampled, started) = (0, Instant::now());
    while sampled < WANTED && started.elapsed() < TIMEOUT {
        for _ in 0..256 {
            let start = Instant::now();
            sender.send(&byte)?;
            receiver.recv(&mut byte)?;
            durations.push(start.elapsed());
        }
        while samples.next_record().is_some() {
            sampled += 1;
        }
    }
    Ok(median_excess(&mut durations, sampled))
}

fn open_counter() -> io::Result<perf_event::Counter> {
    let mut result = Err(io::ErrorKind::InvalidInput.into());
    for frequency in FREQUENCIES_HZ {
        result = event(frequency).observe_self().any_cpu().build();
        // EINVAL: the rate is too high.
        if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::InvalidInput) {
            break;
        }
    }
    result
}

/// Returns how much longer than the median of all durations the median of the `count` longest is.
fn median_excess(durations: &mut [Duration], count: usize) -> Duration {
    durations.sort_unstable();
    let count = count.min(durations.len());
    let (Some(common), Some(long)) =
        (durations.get(durations.len() / 2), durations.get(durations.len() - count.div_ceil(2)))
    else {
        return Duration::ZERO;
    };
    long.saturating_sub(*common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_excess_ignores_outliers() {
        let micros = Duration::from_micros;
        // A thousand common calls, ten with a sample, and four that another thread made long.
        let mut durations =
            [vec![micros(2); 1000], vec![micros(5); 10], vec![micros(9000); 4]].concat();
        assert_eq!(median_excess(&mut durations, 14), micros(3));
    }

    #[test]
    fn median_excess_without_samples_is_zero() {
        assert_eq!(median_excess(&mut [], 0), Duration::ZERO);
        assert_eq!(median_excess(&mut [Duration::from_micros(2)], 0), Duration::ZERO);
        assert_eq!(median_excess(&mut [Duration::from_micros(2)], 9), Duration::ZERO);
    }
}
