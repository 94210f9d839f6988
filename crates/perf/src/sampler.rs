//! Samples cores with the kernel's `perf_event_open`, and counts the samples by account and group.

use std::collections::BTreeSet;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use perf_event::data;
use rustix::time::{ClockId, clock_gettime};

use crate::account::{CoreUsage, Samples};
use crate::calibration::sample_cost;
use crate::chain::{Core, Thread, classify};
use crate::error::StartError;
use crate::event::event;
use crate::symbols::Symbols;

/// Samples per second and core. Rates near the frequency of the kernel's tick (100, 250, 1000 Hz)
/// or a divisor of it would run in lockstep with periodic work.
pub const FREQUENCY_HZ: u64 = 241;

/// Samples per core between two reads of the rings: a fifth of a second at [`FREQUENCY_HZ`].
const SAMPLES_PER_READ: f64 = 48.0;

/// Ring size for each core: five times [`SAMPLES_PER_READ`] of the longest call chains (1 KiB),
/// twenty times of common ones.
const RING_BYTES: usize = 256 << 10;

/// A core that was sampled less often than this share of the sampling rate was offline meanwhile. (A
/// virtual machine that does not run loses samples, too, but not as many.)
const MIN_RATE: f64 = 0.1;

/// Samples cores until it is dropped. A thread reads the samples five times per second.
pub struct Sampler {
    state: Arc<Mutex<State>>,
    /// Dropping it ends the thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The counts of a [`Sampler`].
#[derive(Clone, Debug)]
pub struct Sampled {
    /// The usage of each core, in the order given at the start.
    pub cores: Vec<CoreUsage>,
    /// Time since the start.
    pub elapsed: Duration,
    /// Samples per second and core.
    pub frequency_hz: u64,
    /// Samples of all cores.
    pub samples: u64,
    /// Samples that the kernel discarded because a ring was full.
    pub lost: u64,
    /// The time that a sample takes: in the sampled core's interrupt, and in the thread that reads
    /// it.
    pub sample_cost: Duration,
}

impl Sampled {
    /// Returns the share of a core's time that sampling takes, in percent.
    pub fn cost_percent(&self) -> f64 {
        100.0 * self.frequency_hz as f64 * self.sample_cost.as_secs_f64()
    }
}

struct State {
    symbols: Symbols,
    workers: BTreeSet<u32>,
    rings: Vec<Ring>,
    started: Instant,
    frequency_hz: u64,
    interrupt_cost: Duration,
    /// CPU time of all reads.
    read_time: Duration,
}

struct Ring {
    core: Core,
    sampler: perf_event::Sampler,
    usage: CoreUsage,
    lost: u64,
    /// Until when the core's time is charged to accounts: the last read that found samples.
    charged_until: Instant,
}

impl Sampler {
    /// Starts sampling at [`FREQUENCY_HZ`]. `workers` are the thread ids of the workers.
    ///
    /// Needs CAP_PERFMON, or the sysctl `kernel.perf_event_paranoid` 0 or less.
    pub fn start(
        symbols: Symbols,
        cores: &[Core],
        workers: impl IntoIterator<Item = u32>,
    ) -> Result<Self, StartError> {
        Self::start_at(FREQUENCY_HZ, symbols, cores, workers)
    }

    /// Starts sampling at another rate, for a short measurement. The kernel limits the rate
    /// (`kernel.perf_event_max_sample_rate`).
    pub fn start_at(
        frequency_hz: u64,
        symbols: Symbols,
        cores: &[Core],
        workers: impl IntoIterator<Item = u32>,
    ) -> Result<Self, StartError> {
        if !symbols.has_softirqs() {
            return Err(StartError::UnknownSymbols);
        }
        let interrupt_cost = sample_cost().map_err(StartError::of_event)?;
        let mut rings = Vec::with_capacity(cores.len());
        for core in cores {
            rings.extend(Ring::open(*core, frequency_hz)?);
        }
        let state = Arc::new(Mutex::new(State {
            symbols,
            workers: workers.into_iter().collect(),
            rings,
            started: Instant::now(),
            frequency_hz,
            interrupt_cost,
            read_time: Duration::ZERO,
        }));
        let (stop, stopped) = mpsc::channel();
        let reader_state = Arc::clone(&state);
        let interval = read_interval(frequency_hz);
        let read = move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                lock(&reader_state).read_rings();
            }
        };
        let thread = thread::Builder::new().name("kernel-ledger".into()).spawn(read);
        let thread = thread.map_err(StartError::Thread)?;
        Ok(Self { state, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns the counts since the start, with all samples up to now.
    pub fn counts(&self) -> Sampled {
        let mut state = lock(&self.state);
        state.read_rings();
        state.counts()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; there is nothing to undo.
            let _ = thread.join();
        }
    }
}

/// Locks the state. If the other thread panicked, the counts are still valid: each sample is added
/// at once.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the pause between two reads of the rings.
fn read_interval(frequency_hz: u64) -> Duration {
    Duration::from_secs_f64(SAMPLES_PER_READ / frequency_hz.max(1) as f64)
}

/// "No such device": the core is offline.
const ENODEV: i32 = 19;

impl Ring {
    /// Returns `None` if the core has gone offline since the caller listed it.
    fn open(core: Core, frequency_hz: u64) -> Result<Option<Self>, StartError> {
        let mut counter = match event(frequency_hz).any_pid().one_cpu(core.number).build() {
            Err(error) if error.raw_os_error() == Some(ENODEV) => return Ok(None),
            counter => counter.map_err(StartError::of_event)?,
        };
        counter.enable().map_err(StartError::of_event)?;
        let sampler = counter.sampled(RING_BYTES).map_err(StartError::of_ring)?;
        let usage = CoreUsage::new(core.number, Default::default());
        Ok(Some(Self { core, sampler, usage, lost: 0, charged_until: Instant::now() }))
    }

    fn read(&mut self, symbols: &Symbols, workers: &BTreeSet<u32>, frequency_hz: u64) {
        let mut samples = Samples::default();
        while let Some(record) = self.sampler.next_record() {
            match record.parse_record() {
                Ok(data::Record::Sample(sample)) => {
                    let thread = match sample.tid() {
                        Some(0) => Thread::Idle,
                        Some(tid) if workers.contains(&tid) => Thread::Worker,
                        _ => Thread::Other,
                    };
                    let chain = sample.callchain().unwrap_or_default();
                    let (account, group) = classify(symbols, chain, thread, self.core);
                    samples.add(account, group);
                }
                Ok(data::Record::Lost(lost)) => self.lost += lost.lost,
                Ok(data::Record::LostSamples(lost)) => self.lost += lost.lost,
                // The kernel reports pauses of sampling (`Throttle`), which lose no sample.
                Ok(_) => {}
                Err(_) => self.lost += 1,
            }
        }
        if samples.total() > 0 {
            let now = Instant::now();
            let elapsed = now.duration_since(self.charged_until);
            let by_count = Duration::from_secs_f64(samples.total() as f64 / frequency_hz as f64);
            let was_offline =
                by_count < elapsed.mul_f64(MIN_RATE) && elapsed > 5 * read_interval(frequency_hz);
            self.usage.charge(if was_offline { by_count } else { elapsed }, &samples);
            self.charged_until = now;
        }
    }
}

impl State {
    fn read_rings(&mut self) {
        let started = thread_time();
        for ring in &mut self.rings {
            ring.read(&self.symbols, &self.workers, self.frequency_hz);
        }
        self.read_time += thread_time().saturating_sub(started);
    }

    fn counts(&self) -> Sampled {
        let now = Instant::now();
        let samples: u64 = self.rings.iter().map(|ring| ring.usage.samples.total()).sum();
        let read_cost = self.read_time.div_f64(samples.max(1) as f64);
        Sampled {
            cores: self.rings.iter().map(|ring| ring.usage.clone()).collect(),
            elapsed: now.duration_since(self.started),
            frequency_hz: self.frequency_hz,
            samples,
            lost: self.rings.iter().map(|ring| ring.lost).sum(),
            sample_cost: self.interrupt_cost + read_cost,
        }
    }
}

/// Returns the CPU time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
