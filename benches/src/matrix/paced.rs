//! The rate of the second window of a run, and whether the window is valid.

use xdpfwd_lab::Window;

/// The rate of each attempt, as a multiple of the highest rate that the path has forwarded. A
/// process that forwards everything polls in vain for part of the time, so the next attempt has the
/// next factor. It starts from the rate that was just forwarded: no attempt offers much more than
/// the path can forward, because the receive work for packets that are then dropped would count.
const FACTORS: [f64; 3] = [1.05, 1.1, 1.1];
/// Share of the offered packets that a busy process forwards at most.
const BUSY: f64 = 0.995;
/// Attempts that may be invalid: the generator, the path or the sampling was disturbed.
const MAX_INVALID: usize = 3;
/// The lowest share of the requested rate that the generator must send.
const MIN_OFFERED: f64 = 0.9;
/// The lowest share of what was offered, or forwarded before, that the path must forward.
const MIN_FORWARDED: f64 = 0.88;
/// The fewest samples of a window of a second.
const MIN_SAMPLES: f64 = 100.0;
/// The highest share of samples that the kernel may discard.
const MAX_LOST: f64 = 0.01;

/// Samples of a window: counted, and discarded by the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SampleCounts {
    pub(crate) samples: u64,
    pub(crate) lost: u64,
}

/// What to do after an attempt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    Accept,
    Repeat,
    /// Too many attempts were invalid; the reason of the last one.
    Fail(String),
}

/// The attempts at a second window.
pub(crate) struct Attempts {
    first: Window,
    has_process: bool,
    /// The highest rate that was forwarded so far.
    forwarded_pps: f64,
    factor: usize,
    invalid: usize,
}

impl Attempts {
    /// `first` is the window without a limit; `has_process` whether a process forwards, which polls
    /// in vain if it is idle.
    pub(crate) fn new(first: &Window, has_process: bool) -> Self {
        let forwarded_pps = first.forwarded_pps();
        Self { first: *first, has_process, forwarded_pps, factor: 0, invalid: 0 }
    }

    /// Returns the rate of the next attempt in packets per second.
    pub(crate) fn pps(&self) -> f64 {
        FACTORS[self.factor] * self.forwarded_pps
    }

    /// Returns the rate of the last attempt, as a multiple of the rate forwarded in the first
    /// window.
    pub(crate) fn paced_factor(&self) -> f64 {
        self.pps() / self.first.forwarded_pps()
    }

    /// Decides about an attempt at the rate [`Self::pps`]. `samples` is `None` if sampling is
    /// unavailable.
    pub(crate) fn judge(&mut self, window: &Window, samples: Option<SampleCounts>) -> Decision {
        if let Some(reason) = self.invalid_because(window, samples) {
            self.invalid += 1;
            return match self.invalid >= MAX_INVALID {
                true => Decision::Fail(reason),
                false => Decision::Repeat,
            };
        }
        let is_busy = window.forwarded_pps() < BUSY * window.offered_pps();
        let can_send_more = self.pps() < self.first.offered_pps();
        if self.has_process && !is_busy && can_send_more && self.factor + 1 < FACTORS.len() {
            self.forwarded_pps = self.forwarded_pps.max(window.forwarded_pps());
            self.factor += 1;
            return Decision::Repeat;
        }
        Decision::Accept
    }

    /// Returns why a window is invalid, if it is.
    fn invalid_because(&self, window: &Window, samples: Option<SampleCounts>) -> Option<String> {
        let (offered, forwarded) = (window.offered_pps(), window.forwarded_pps());
        let asked = self.pps().min(self.first.offered_pps());
        if offered < MIN_OFFERED * asked {
            return Some(format!(
                "the generator sent {offered:.0} of {asked:.0} packets per second"
            ));
        }
        let expected = offered.min(self.first.forwarded_pps());
        if forwarded < MIN_FORWARDED * expected {
            return Some(format!(
                "the path forwarded {forwarded:.0} packets per second, and {expected:.0} just \
                 before, or were offered"
            ));
        }
        let SampleCounts { samples, lost } = samples?;
        let enough = MIN_SAMPLES * window.seconds.min(1.0);
        if (samples as f64) < enough {
            return Some(format!("{samples} samples were taken, fewer than {enough:.0}"));
        }
        if lost as f64 > MAX_LOST * samples as f64 {
            return Some(format!("the kernel discarded {lost} samples, and kept {samples}"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use xdpfwd_lab::Counters;

    use super::*;

    const SAMPLES: Option<SampleCounts> = Some(SampleCounts { samples: 500, lost: 0 });

    fn window(offered: f64, forwarded: f64) -> Window {
        let count = |pps: f64| Counters { packets: (pps * 0.5) as u64, bytes: 0 };
        Window { offered: count(offered), forwarded: count(forwarded), seconds: 0.5 }
    }

    fn attempts(has_process: bool) -> Attempts {
        Attempts::new(&window(5e6, 1e6), has_process)
    }

    #[test]
    fn window_of_busy_path_is_accepted_at_once() {
        let mut attempts = attempts(true);
        assert!((attempts.pps() / 1.05e6 - 1.0).abs() < 1e-9);
        assert_eq!(attempts.judge(&window(1.04e6, 1e6), SAMPLES), Decision::Accept);
        assert!((attempts.paced_factor() - 1.05).abs() < 1e-9);
    }

    #[test]
    fn idle_process_is_offered_little_more_than_it_forwarded() {
        let mut attempts = attempts(true);
        assert_eq!(attempts.judge(&window(1.04e6, 1.04e6), SAMPLES), Decision::Repeat);
        assert!((attempts.pps() / (1.1 * 1.04e6) - 1.0).abs() < 1e-6, "{}", attempts.pps());
        assert_eq!(attempts.judge(&window(1.14e6, 1.14e6), SAMPLES), Decision::Repeat);
        let pps = attempts.pps();
        assert_eq!(attempts.judge(&window(pps, pps), SAMPLES), Decision::Accept, "the last factor");
        assert!((attempts.paced_factor() - pps / 1e6).abs() < 1e-9);
    }

    /// The kernel does not poll in vain.
    #[test]
    fn window_of_kernel_path_that_forwards_everything_is_accepted() {
        let mut attempts = attempts(false);
        assert_eq!(attempts.judge(&window(1.04e6, 1.04e6), SAMPLES), Decision::Accept);
    }

    #[test]
    fn window_is_accepted_at_the_maximum_of_the_generator() {
        let mut attempts = Attempts::new(&window(1e6, 1e6), true);
        assert_eq!(attempts.judge(&window(0.97e6, 0.97e6), SAMPLES), Decision::Accept);
    }

    #[test]
    fn disturbed_windows_are_repeated_at_the_same_rate_then_fail() {
        let few = Some(SampleCounts { samples: 49, lost: 0 });
        let discarded = Some(SampleCounts { samples: 500, lost: 6 });
        for (window, samples, reason) in [
            (window(0.9e6, 0.9e6), SAMPLES, "the generator sent"),
            (window(1.05e6, 0.64e6), SAMPLES, "the path forwarded"),
            (window(1.05e6, 0.0), None, "the path forwarded"),
            (window(1.05e6, 1e6), few, "49 samples"),
            (window(1.05e6, 1e6), discarded, "discarded 6 samples"),
        ] {
            let mut attempts = attempts(true);
            let pps = attempts.pps();
            assert_eq!(attempts.judge(&window, samples), Decision::Repeat, "{reason}");
            assert_eq!(attempts.pps(), pps, "{reason}");
            assert_eq!(attempts.judge(&window, samples), Decision::Repeat, "{reason}");
            let last = attempts.judge(&window, samples);
            let Decision::Fail(text) = last else { panic!("{last:?}, {reason}") };
            assert!(text.contains(reason), "{text}");
        }
    }

    #[test]
    fn window_after_a_disturbed_one_is_accepted() {
        let mut attempts = attempts(true);
        assert_eq!(attempts.judge(&window(1.05e6, 0.64e6), SAMPLES), Decision::Repeat);
        assert_eq!(attempts.judge(&window(1.05e6, 1e6), SAMPLES), Decision::Accept);
    }
}
