//! Tests with simulated devices.

use anyhow::bail;
use xdpfwd_bench::classbench::Random;

use super::*;

const GOALS: [f64; 2] = [0.0, 0.005];

/// A device that loses what exceeds its capacity, behind a generator.
struct Device {
    /// Packets per second.
    capacity: f64,
    /// Maximum of the generator in packets per second.
    generator: f64,
    /// Probability that a trial is disturbed, and loses 2 % of its packets.
    disturbance: f64,
    random: Random,
    trials: Vec<(f64, f64)>,
}

impl Device {
    fn new(capacity: f64) -> Self {
        let (random, trials) = (Random::new(7), Vec::new());
        Self { capacity, generator: 8e6, disturbance: 0.0, random, trials }
    }

    fn trial(&mut self, pps: f64, seconds: f64) -> TrialCounts {
        self.trials.push((pps, seconds));
        let offered_pps = pps.min(self.generator);
        let mut forwarded_pps = offered_pps.min(self.capacity);
        if self.random.chance(self.disturbance) {
            forwarded_pps *= 0.98;
        }
        TrialCounts {
            sent: (offered_pps * seconds).round() as u64,
            offered_pps,
            received: (forwarded_pps * seconds).round() as u64,
        }
    }

    fn search(&mut self, limits: &Limits) -> Vec<FoundRate> {
        search(limits, &GOALS, |pps, seconds| Ok(self.trial(pps, seconds))).unwrap()
    }
}

fn limits() -> Limits {
    Limits::new(1000.0, 16e6)
}

#[test]
fn search_with_hard_limit_brackets_it_within_precision() {
    for capacity in [1500.0, 42_000.0, 1_234_567.0, 7_900_000.0] {
        let mut device = Device::new(capacity);
        let found = device.search(&limits());
        for (rate, goal) in found.iter().zip(GOALS) {
            // A loss of 0.5 % allows 1 / (1 − 0.005) times the capacity.
            let true_rate = capacity / (1.0 - goal);
            let (pps, upper_pps) = (rate.pps.unwrap(), rate.upper_pps.unwrap());
            assert_eq!(rate.allowed_loss, goal);
            // Counts are whole packets, so the limit is blurred by one packet per trial.
            assert!(
                pps <= true_rate + 4.0 && true_rate - 4.0 <= upper_pps,
                "{true_rate}: {rate:?}"
            );
            assert!(upper_pps - pps <= 0.02 * upper_pps, "{true_rate}: {rate:?}");
        }
        assert!(found[0].pps <= found[1].pps, "{found:?}");
        assert!(found.iter().all(|rate| rate.is_complete), "{found:?}");
        assert!(device.trials.len() < 60, "{}", device.trials.len());
    }
}

#[test]
fn search_reports_only_rates_confirmed_by_long_trials() {
    let mut device = Device::new(1_234_567.0);
    for rate in device.search(&limits()) {
        for pps in [rate.pps.unwrap(), rate.upper_pps.unwrap()] {
            assert!(device.trials.contains(&(pps, 1.0)), "{pps}: {:?}", device.trials);
        }
    }
}

#[test]
fn search_repeats_a_failed_trial_before_it_counts() {
    let mut device = Device::new(2e6);
    device.search(&limits());
    let attempts = |(pps, seconds): (f64, f64)| {
        device.trials.iter().filter(|&&trial| trial == (pps, seconds)).count()
    };
    for &(pps, seconds) in &device.trials {
        // Rates between both goals pass one of them at once.
        let expected = if pps <= 2e6 { 1 } else { 2 };
        assert_eq!(attempts((pps, seconds)), expected, "{pps} for {seconds} s");
    }
}

/// With two attempts, a rate fails wrongly only if both are disturbed.
#[test]
fn search_with_disturbed_trials_stays_near_the_limit() {
    let mut near = 0;
    for seed in 0..100 {
        let mut device = Device { disturbance: 0.1, ..Device::new(2e6) };
        device.random = Random::new(seed);
        let found = device.search(&limits());
        let pps = found[0].pps.unwrap();
        assert!(pps <= 2e6, "no disturbance adds packets: {found:?}");
        near += usize::from(pps >= 0.95 * 2e6);
    }
    let mut once = 0;
    for seed in 0..100 {
        let mut device = Device { disturbance: 0.1, ..Device::new(2e6) };
        device.random = Random::new(seed);
        let found = device.search(&Limits { attempts: 1, ..limits() });
        once += usize::from(found[0].pps.unwrap() >= 0.95 * 2e6);
    }
    assert!(near >= 85 && near > once, "{near} and {once} of 100 searches");
}

/// Without the generator's load, a device passes any trial.
#[test]
fn search_ignores_trials_in_which_the_generator_was_disturbed() {
    let mut device = Device::new(2e6);
    let mut random = Random::new(3);
    let mut disturbed = 0;
    let found = search(&limits(), &GOALS, |pps, seconds| {
        // Never the first trial, which shows what the generator can send.
        let is_disturbed = pps < 16e6 && random.chance(0.3);
        disturbed += u32::from(is_disturbed);
        Ok(device.trial(if is_disturbed { 0.3 * pps } else { pps }, seconds))
    })
    .unwrap();
    assert!(disturbed > 0);
    for rate in &found {
        let (pps, upper_pps) = (rate.pps.unwrap(), rate.upper_pps.unwrap());
        assert!((0.98 * 2e6..=2.0101e6).contains(&pps) && upper_pps > 2e6, "{found:?}");
    }
}

/// As on a machine on which other programs start to run.
#[test]
fn search_with_generator_that_becomes_slower_ends_with_its_rate() {
    let mut device = Device::new(5e6);
    let found = search(&limits(), &GOALS, |pps, seconds| {
        // Only the first trial is fast.
        let generator = if pps >= 16e6 { 8e6 } else { 1e6 };
        Ok(device.trial(pps.min(generator), seconds))
    })
    .unwrap();
    for rate in &found {
        assert_eq!((rate.pps, rate.upper_pps.is_some()), (Some(1e6), false), "{found:?}");
        assert!(rate.trials < limits().max_trials, "{found:?}");
    }
}

#[test]
fn search_of_device_that_never_loses_finds_the_generators_maximum() {
    let mut device = Device::new(f64::INFINITY);
    for rate in device.search(&limits()) {
        assert_eq!((rate.pps, rate.upper_pps), (Some(8e6), None));
    }
    assert_eq!(device.trials.len(), 2, "one trial in each phase: {:?}", device.trials);
}

#[test]
fn search_of_device_that_loses_everything_finds_no_rate() {
    let mut device = Device::new(0.0);
    for rate in device.search(&limits()) {
        assert_eq!((rate.pps, rate.upper_pps), (None, Some(1000.0)));
    }
    assert!(device.trials.len() < 20, "{:?}", device.trials);
}

/// A device that forwards much less when it is overloaded.
#[test]
fn search_of_device_that_collapses_under_overload_finds_its_limit() {
    let trial = |pps: f64, seconds: f64| {
        let received = if pps <= 3e6 { pps } else { 1e5 };
        Ok(TrialCounts {
            sent: (pps * seconds) as u64,
            offered_pps: pps,
            received: (received * seconds) as u64,
        })
    };
    for rate in search(&limits(), &GOALS, trial).unwrap() {
        let (pps, upper_pps) = (rate.pps.unwrap(), rate.upper_pps.unwrap());
        assert!(pps <= 3e6 && upper_pps > 3e6 && upper_pps - pps <= 0.02 * upper_pps, "{rate:?}");
    }
}

/// Each trial loses or not at random, whatever its rate.
#[test]
fn search_with_random_trials_ends_within_the_maximum_of_trials() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut trials = 0;
        let limits = Limits { max_trials: 25, ..limits() };
        let found = search(&limits, &GOALS, |pps, seconds| {
            trials += 1;
            let sent = (pps * seconds) as u64;
            let received = if random.chance(0.5) { sent } else { sent / 2 };
            Ok(TrialCounts { sent, offered_pps: pps, received })
        });
        let found = found.unwrap();
        assert!(trials <= 25);
        assert!(found.iter().all(|rate| rate.trials <= trials), "{found:?}");
    }
}

#[test]
fn search_without_trials_for_the_last_phase_uses_the_phase_before() {
    let mut device = Device::new(2e6);
    let found = device.search(&Limits { max_trials: 8, ..limits() });
    assert_eq!(device.trials.len(), 8);
    assert!(found[0].pps.is_some_and(|pps| pps <= 2e6), "{found:?}");
    assert!(found.iter().any(|rate| !rate.is_complete), "{found:?}");
}

/// Short trials pass at any rate, long trials only up to 1 Mpps.
#[test]
fn search_cut_off_by_trials_never_has_bounds_that_contradict_each_other() {
    for max_trials in 1..60 {
        let limits = Limits { max_trials, ..limits() };
        let found = search(&limits, &GOALS, |pps, seconds| {
            let offered_pps = pps.min(8e6);
            let capacity = if seconds < 1.0 { 3e6 } else { 1e6 };
            Ok(TrialCounts {
                sent: (offered_pps * seconds) as u64,
                offered_pps,
                received: (offered_pps.min(capacity) * seconds) as u64,
            })
        });
        for rate in found.unwrap() {
            if let (Some(pps), Some(upper_pps)) = (rate.pps, rate.upper_pps) {
                assert!(upper_pps >= pps, "{max_trials}: {rate:?}");
                let is_precise = upper_pps - pps <= 0.0201 * upper_pps;
                assert!(is_precise || !rate.is_complete, "{max_trials}: {rate:?}");
            }
        }
    }
}

/// A generator that is always slow is not always disturbed: the rate is what it offered.
#[test]
fn search_with_generator_that_offers_less_brackets_what_was_offered() {
    let mut device = Device::new(2e6);
    let mut found = search(&limits(), &GOALS, |pps, seconds| {
        Ok(device.trial(if pps < 8e6 { 0.92 * pps } else { pps }, seconds))
    })
    .unwrap();
    for (rate, goal) in found.drain(..).zip(GOALS) {
        let true_rate = 2e6 / (1.0 - goal);
        let (pps, upper_pps) = (rate.pps.unwrap(), rate.upper_pps.unwrap());
        assert!(rate.is_complete, "{rate:?}");
        assert!(pps <= true_rate + 4.0 && true_rate - 4.0 <= upper_pps, "{rate:?}");
        assert!(upper_pps - pps <= 0.02 * upper_pps, "{rate:?}");
    }
}

/// A third of the trials offers only 0.92 of the rate, at which the device loses nothing.
#[test]
fn search_with_some_slow_trials_passes_no_rate_that_was_not_offered() {
    let mut device = Device::new(2e6);
    let mut random = Random::new(5);
    let found = search(&limits(), &GOALS, |pps, seconds| {
        let is_slow = pps < 8e6 && random.chance(0.33);
        Ok(device.trial(if is_slow { 0.92 * pps } else { pps }, seconds))
    })
    .unwrap();
    for (rate, goal) in found.iter().zip(GOALS) {
        let true_rate = 2e6 / (1.0 - goal);
        let (pps, upper_pps) = (rate.pps.unwrap(), rate.upper_pps.unwrap());
        assert!(pps >= 0.98 * true_rate - 4.0 && upper_pps >= true_rate - 4.0, "{found:?}");
    }
}

#[test]
fn search_passes_an_error_of_a_trial_on() {
    let mut trials = 0;
    let error = search(&limits(), &GOALS, |_, _| {
        trials += 1;
        bail!("the forwarder has ended")
    })
    .unwrap_err();
    assert_eq!((error.to_string().as_str(), trials), ("the forwarder has ended", 1));
}
