//! Measures a thread of this process whose work is known. Needs root.

use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use xdpfwd_perf::{Account, Core, CoreUsage, FREQUENCY_HZ, Group, Sampler, Symbols, Tracer};

/// A "worker" that computes, or makes system calls, until it is dropped.
struct Worker {
    tid: u32,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(makes_system_calls: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            sender.send(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()).unwrap();
            let mut buffer = vec![0; 64 << 10];
            while !stopped.load(Ordering::Relaxed) {
                if makes_system_calls {
                    rustix::rand::getrandom(&mut buffer, rustix::rand::GetRandomFlags::empty())
                        .unwrap();
                } else {
                    (0..1000).fold(0_u64, |sum, number| black_box(sum + number));
                }
            }
        });
        Self { tid: receiver.recv().unwrap(), stop, thread: Some(thread) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn cores() -> Vec<Core> {
    // Lists such as `0-3,8`.
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<usize>().unwrap()..=last.parse().unwrap()
    };
    let numbers = online.trim().split(',').flat_map(range);
    numbers
        .map(|number| Core { number, has_worker: true, only_veths: false, polls_other_end: false })
        .collect()
}

fn total(cores: &[CoreUsage], account: Account) -> Duration {
    cores.iter().map(|core| core.account(account)).sum()
}

/// Waits until `is_done` returns true; fails after 30 s.
fn wait_until(is_done: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_done() {
        assert!(start.elapsed() < Duration::from_secs(30), "timeout");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn samples_of_a_computing_worker_are_user_and_equal_frequency_times_time() {
    let worker = Worker::start(false);
    let sampler = Sampler::start(Symbols::read(&[]).unwrap(), &cores(), [worker.tid]).unwrap();
    // The samples reach 300 only if idle cores are sampled too, or soon enough otherwise.
    wait_until(|| sampler.counts().samples >= 300);
    let counts = sampler.counts();
    let expected = FREQUENCY_HZ as f64 * cores().len() as f64 * counts.elapsed.as_secs_f64();
    assert_eq!(counts.lost, 0, "{counts:?}");
    let ratio = counts.samples as f64 / expected;
    // A virtual machine loses timer interrupts while the host does not run it.
    assert!((0.3..1.2).contains(&ratio), "{} of {expected} samples", counts.samples);
    let (user, system) =
        (total(&counts.cores, Account::User), total(&counts.cores, Account::SystemCall));
    assert!(user > system, "{counts:?}");
    // A core that the host of a virtual machine hardly runs counts as offline.
    let enough = FREQUENCY_HZ as f64 * counts.elapsed.as_secs_f64() / 5.0;
    let is_sampled = |core: &&CoreUsage| core.samples.total() as f64 > enough;
    let sampled: Vec<&CoreUsage> = counts.cores.iter().filter(is_sampled).collect();
    assert!(!sampled.is_empty(), "{counts:?}");
    for core in sampled {
        let sum: Duration = core.accounts.iter().sum();
        assert!(sum.abs_diff(counts.elapsed) < counts.elapsed / 5, "{core:?}");
    }
    // The interrupt and the reading of a sample take some time, and less than the whole core.
    assert!(!counts.sample_cost.is_zero());
    assert!(counts.cost_percent() < 100.0, "{counts:?}");
}

/// A higher rate than [`FREQUENCY_HZ`] takes more samples in the same time.
#[test]
fn samples_at_another_rate_equal_that_rate_times_time() {
    let worker = Worker::start(false);
    let symbols = Symbols::read(&[]).unwrap();
    let sampler = Sampler::start_at(997, symbols, &cores(), [worker.tid]).unwrap();
    wait_until(|| sampler.counts().samples >= 1000);
    let counts = sampler.counts();
    assert_eq!((counts.frequency_hz, counts.lost), (997, 0), "{counts:?}");
    let expected = 997.0 * cores().len() as f64 * counts.elapsed.as_secs_f64();
    let ratio = counts.samples as f64 / expected;
    assert!((0.3..1.2).contains(&ratio), "{} of {expected} samples", counts.samples);
}

#[test]
fn samples_of_system_calls_are_divided_into_groups() {
    let worker = Worker::start(true);
    let sampler = Sampler::start(Symbols::read(&[]).unwrap(), &cores(), [worker.tid]).unwrap();
    let system = || total(&sampler.counts().cores, Account::SystemCall);
    wait_until(|| !system().is_zero() && sampler.counts().samples >= 200);
    let counts = sampler.counts();
    assert!(system() > total(&counts.cores, Account::User));
    for core in &counts.cores {
        for account in Account::ALL.into_iter().filter(|account| account.has_groups()) {
            let groups: u64 =
                Group::ALL.iter().map(|group| core.samples.group(account, *group)).sum();
            assert_eq!(groups, core.samples.account(account));
        }
    }
}

#[test]
fn traced_accounts_add_up_to_the_time_of_each_core() {
    for makes_system_calls in [false, true] {
        let worker = Worker::start(makes_system_calls);
        let tracer = Tracer::start(&cores(), [worker.tid]).unwrap();
        let account = if makes_system_calls { Account::SystemCall } else { Account::User };
        wait_until(|| total(&tracer.times().cores, account) > Duration::from_millis(100));
        let traced = tracer.times();
        for core in &traced.cores {
            let sum: Duration = core.accounts.iter().sum();
            assert!(sum.abs_diff(traced.elapsed) < traced.elapsed / 10, "{core:?} {traced:?}");
        }
        let other = if makes_system_calls { Account::User } else { Account::SystemCall };
        assert!(
            total(&traced.cores, account) > total(&traced.cores, other),
            "{makes_system_calls}: {traced:?}"
        );
        assert!(traced.events > 0);
    }
}
