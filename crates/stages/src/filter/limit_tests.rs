use super::*;
use xdpfwd_filter::Per;

fn limit(rate: u64, unit: Unit, burst: u64) -> Limit {
    Limit { rate, unit, burst, per: Per::Rule }
}

/// Returns a worker's meter; its clock counts nanoseconds.
fn meter(limit: &Limit, bucket: Arc<Bucket>, workers: usize) -> Meter {
    let rate = Rate::new(limit, Ticks::NANOSECONDS).with_advance_tokens(limit, workers);
    Meter::new(rate, limit.unit, bucket)
}

fn dry_run_meter(limit: &Limit) -> Meter {
    Meter::new(Rate::new(limit, Ticks::NANOSECONDS), limit.unit, Arc::default())
}

/// Returns the time `seconds` after a start time, in nanoseconds. Buckets are full at the start
/// time.
fn at(seconds: f64) -> u64 {
    ((100.0 + seconds) * 1e9).round() as u64
}

const ONE_WORKER: usize = 1;

fn passed(meter: &mut Meter, packets: usize, bytes: usize, now: u64) -> usize {
    (0..packets).filter(|_| meter.passes(bytes, now)).count()
}

#[test]
fn meter_passes_burst_then_rate() {
    let limit = limit(1000, Unit::Packets, 50);
    let mut meter = meter(&limit, Arc::default(), ONE_WORKER);
    assert_eq!(passed(&mut meter, 200, 60, at(0.0)), 50);
    assert_eq!(passed(&mut meter, 200, 60, at(0.0101)), 10);
    assert_eq!(passed(&mut meter, 200, 60, at(0.0106)), 0);
    // An idle period of any length earns at most the burst.
    assert_eq!(passed(&mut meter, 200, 60, at(90.0)), 50);
}

#[test]
fn meter_limits_bits_per_second() {
    // Ten frames of 1250 bytes per second.
    let limit = limit(100_000, Unit::Bits, 20_000);
    let mut meter = meter(&limit, Arc::default(), ONE_WORKER);
    let passed: usize =
        (0..100).map(|tenth| passed(&mut meter, 10, 1250, at(f64::from(tenth) / 10.0))).sum();
    // The first two frames come from the burst.
    assert!((99..=102).contains(&passed), "{passed}");
}

#[test]
fn frame_larger_than_burst_passes_at_rate() {
    let limit = limit(121_120, Unit::Bits, 100);
    let mut meter = meter(&limit, Arc::default(), ONE_WORKER);
    // Ten frames of 1514 bytes per second. The clock starts at 0, as at boot.
    let at_millisecond = |millisecond: u64| millisecond * 1_000_000;
    let passed: usize = (0..10_000)
        .map(|millisecond| passed(&mut meter, 1, 1514, at_millisecond(millisecond)))
        .sum();
    assert!((98..=102).contains(&passed), "{passed}");
}

#[test]
fn new_bucket_is_full_right_after_boot() {
    let limit = limit(1, Unit::Packets, 1000);
    let since_boot = 5; // nanoseconds
    let mut meter = meter(&limit, Arc::default(), ONE_WORKER);
    assert_eq!(passed(&mut meter, 2000, 60, since_boot), 1000);
}

#[test]
fn workers_share_one_bucket() {
    let limit = limit(100_000, Unit::Packets, 1000);
    let bucket = Arc::new(Bucket::default());
    let mut workers: Vec<_> = (0..4).map(|_| meter(&limit, Arc::clone(&bucket), 4)).collect();
    let mut total = 0;
    for step in 0..1000 {
        for meter in &mut workers {
            total += passed(meter, 60, 60, at(f64::from(step) / 1000.0));
        }
    }
    // One second's tokens plus the burst, minus tokens that workers have not spent.
    assert!((100_500..=101_000).contains(&total), "{total}");
}

#[test]
fn idle_worker_takes_few_tokens_from_others() {
    let limit = limit(1000, Unit::Packets, 8);
    let bucket = Arc::new(Bucket::default());
    let mut idle = meter(&limit, Arc::clone(&bucket), 2);
    let mut busy = meter(&limit, Arc::clone(&bucket), 2);
    assert!(idle.passes(60, at(0.0)));
    assert!(passed(&mut busy, 20, 60, at(0.0)) >= 6);
}

#[test]
fn source_prefixes_have_separate_buckets() {
    let limit = limit(10, Unit::Packets, 5);
    let sources = SourceBuckets::new(&limit, 24, Ticks::NANOSECONDS);
    let from = |source: u32| xdpfwd_filter::Addresses::V4 { source, destination: 1 };
    let passed =
        |source: u32| (0..20).filter(|_| sources.passes(&from(source), 60, at(0.0))).count();
    assert_eq!(passed(0x0a00_0001), 5);
    assert_eq!(passed(0x0a00_0002), 0, "expected two addresses of a /24 to share its bucket");
    assert_eq!(passed(0x0a00_0101), 5);
    let v6 = |source: u128| xdpfwd_filter::Addresses::V6 { source, destination: 1 };
    assert_eq!((0..20).filter(|_| sources.passes(&v6(1 << 110), 60, at(0.0))).count(), 5);
}

/// In a fixed bug, the hash had the IP version in bits that prefixes of /121 and longer use.
#[test]
fn prefixes_of_different_ip_versions_have_separate_buckets() {
    let limit = limit(10, Unit::Packets, 5);
    let victim = 0xc000_0201_u32;
    let v4 = xdpfwd_filter::Addresses::V4 { source: victim, destination: 1 };
    for prefix_len in 0..=128 {
        let v4_prefix =
            u128::from(victim.checked_shr(32 - u32::from(prefix_len.min(32))).unwrap_or(0));
        // IPv6 prefixes: the IPv4 prefix, shifted or with flipped bits.
        let words = [v4_prefix, v4_prefix << 8 | 4, v4_prefix << 64];
        let masks = [0, 4, 6, 4 ^ 6, u128::MAX, 6 << 120, 6 << 64];
        for seed in [0, 1, 0x0123_4567_89ab_cdef] {
            let buckets = SourceBuckets::with_seed(&limit, prefix_len, Ticks::NANOSECONDS, seed);
            for (word, mask) in words.iter().flat_map(|word| masks.map(|mask| (word, mask))) {
                let source = (word ^ mask).checked_shl(128 - u32::from(prefix_len)).unwrap_or(0);
                let v6 = xdpfwd_filter::Addresses::V6 { source, destination: 1 };
                assert_ne!(
                    buckets.prefix_hash(&v6),
                    buckets.prefix_hash(&v4),
                    "/{prefix_len}, {source:x}, seed {seed}"
                );
            }
        }
    }
    let buckets = SourceBuckets::new(&limit, 128, Ticks::NANOSECONDS);
    let source = u128::from(victim) << 8 | 4 | 6 << 120;
    let v6 = xdpfwd_filter::Addresses::V6 { source, destination: 1 };
    let passed = |addresses| (0..20).filter(|_| buckets.passes(addresses, 60, at(0.0))).count();
    assert_eq!((passed(&v6), passed(&v4)), (5, 5));
}

/// Compares a limit with an exact token bucket. Packets arrive when tokens are due, and one
/// nanosecond before and after.
#[test]
fn dry_run_limit_equals_exact_token_bucket() {
    // Most of these rates do not divide a second evenly. The last earns 4 tokens per nanosecond.
    for (rate, burst) in [(3, 1), (7, 2), (99_991, 5), (999_999_937, 3), (4_000_000_000, 64)] {
        let mut meter = dry_run_meter(&limit(rate, Unit::Packets, burst));
        // `level` is in billionths of a token: each nanosecond earns `rate` of them.
        let second = 1_000_000_000_u128;
        let (mut level, mut last) = (u128::from(burst) * second, 0);
        let mut now = 0_u64;
        for step in 0..20_000_u64 {
            let interval = (second / u128::from(rate)) as u64;
            now += [interval, 0, interval + 1, interval.saturating_sub(1)][step as usize % 4];
            level += u128::from(now - last) * u128::from(rate);
            level = level.min(u128::from(burst) * second);
            last = now;
            let expected = level >= second;
            if expected {
                level -= second;
            }
            assert_eq!(meter.passes(60, now), expected, "{rate} pps, step {step}");
        }
    }
}

#[test]
fn dry_run_limit_accepts_every_packet_at_its_rate() {
    let mut meter = dry_run_meter(&limit(100, Unit::Packets, 1));
    assert_eq!((0..5_000).filter(|packet| meter.passes(60, packet * 10_000_000)).count(), 5_000);
    // One nanosecond before the next token.
    assert!(!meter.passes(60, 5_000 * 10_000_000 - 1));
    assert!(meter.passes(60, 5_000 * 10_000_000));
}

#[test]
fn limit_with_largest_numbers_does_not_overflow() {
    let mut meter = dry_run_meter(&limit(u64::MAX, Unit::Bits, u64::MAX));
    assert!([0, 1, u64::MAX - 1, u64::MAX].into_iter().all(|now| meter.passes(1 << 18, now)));
}

#[test]
fn dry_run_with_full_source_table_gives_same_verdicts_each_time() {
    let limit = limit(1, Unit::Packets, 1);
    let verdicts = || {
        let sources = SourceBuckets::for_dry_run(&limit, 32);
        let from = |source: u32| xdpfwd_filter::Addresses::V4 { source, destination: 1 };
        (0..100_000).map(|source| sources.passes(&from(source), 60, 0)).collect::<Vec<_>>()
    };
    let first = verdicts();
    assert!(first.contains(&false), "no full set of prefixes: the test needs more sources");
    assert_eq!(first, verdicts());
}
