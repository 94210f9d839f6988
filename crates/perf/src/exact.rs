//! Measures the time of cores exactly, with BPF programs on tracepoints.

use std::fs;
use std::time::{Duration, Instant};

use libbpf_rs::{Link, MapCore as _, MapFlags, MapHandle, Object, ObjectBuilder};
use rustix::process::getppid;
use rustix::time::{ClockId, clock_gettime};

use crate::account::{Account, CoreUsage};
use crate::chain::Core;
use crate::error::StartError;

static PROGRAMS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernel_ledger.bpf.o"));

/// The namespace in which the kernel numbers threads for BPF programs
/// (`PROC_PID_INIT_INO` in linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Measures the accounts of cores until it is dropped. The kernel detaches the programs when the
/// process ends, also if it is killed.
pub struct Tracer {
    cores: Vec<Core>,
    started: Instant,
    states: MapHandle,
    event_cost: Duration,
    _links: Vec<Link>,
    _object: Object,
}

/// What a [`Tracer`] has measured.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The usage of each core, in the order given at the start.
    pub cores: Vec<CoreUsage>,
    /// Time since the start.
    pub elapsed: Duration,
    /// Changes between accounts on these cores.
    pub events: u64,
    /// The time that a change takes, with the tracepoint.
    pub event_cost: Duration,
    /// The share of the busiest core's time that tracing takes, in percent.
    pub cost_percent: f64,
}

impl Tracer {
    /// Starts the measurement. `workers` are the thread ids of the workers.
    ///
    /// Needs CAP_BPF and CAP_PERFMON, a kernel with BTF, and the initial PID namespace.
    pub fn start(
        cores: &[Core],
        workers: impl IntoIterator<Item = u32>,
    ) -> Result<Self, StartError> {
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        if namespace.as_os_str() != INITIAL_PID_NAMESPACE {
            return Err(StartError::PidNamespace);
        }
        let failed = |error: libbpf_rs::Error| StartError::of_bpf(&error);
        let without = system_call_cost();
        let mut builder = ObjectBuilder::default();
        let object = builder
            .name("xdpfwd_ledger")
            .and_then(|builder| builder.open_memory(PROGRAMS))
            .and_then(libbpf_rs::OpenObject::load)
            .map_err(failed)?;
        let find_map = |name: &str| {
            let map = object.maps().find(|map| map.name() == name);
            let map =
                map.ok_or_else(|| StartError::Bpf(format!("the object has no map {name}")))?;
            MapHandle::try_from(&map).map_err(failed)
        };
        let (states, worker_map) = (find_map("cores")?, find_map("workers")?);
        for tid in workers {
            worker_map
                .update(&tid.to_ne_bytes(), &0_u64.to_ne_bytes(), MapFlags::ANY)
                .map_err(failed)?;
        }
        let core_count = libbpf_rs::num_possible_cpus().map_err(failed)?;
        let initial: Vec<Vec<u8>> = (0..core_count)
            .map(|number| State::initial(cores.iter().find(|core| core.number == number)).encode())
            .collect();
        states.update_percpu(&KEY, &initial, MapFlags::ANY).map_err(failed)?;
        let started = Instant::now();
        let links = object.progs_mut().map(|program| program.attach()).collect::<Result<_, _>>();
        let links = links.map_err(failed)?;
        let event_cost = system_call_cost().saturating_sub(without) / EVENTS_PER_SYSTEM_CALL;
        Ok(Self {
            cores: cores.to_vec(),
            started,
            states,
            event_cost,
            _links: links,
            _object: object,
        })
    }

    /// Returns the times since the start. Zeros if the kernel's map cannot be read.
    pub fn times(&self) -> Traced {
        let states = self.states.lookup_percpu(&KEY, MapFlags::ANY).ok().flatten();
        let (now, elapsed) = (monotonic_nanoseconds(), self.started.elapsed());
        let (mut events, mut busiest) = (0, 0);
        let cores = self.cores.iter().map(|core| {
            let state = states.as_ref().and_then(|states| State::decode(states.get(core.number)?));
            let state = state.unwrap_or_default();
            events += state.events;
            busiest = busiest.max(state.events);
            CoreUsage::new(core.number, state.times(now))
        });
        let cores = cores.collect();
        let cost = self.event_cost.as_secs_f64() * busiest as f64;
        Traced {
            cores,
            elapsed,
            events,
            event_cost: self.event_cost,
            cost_percent: 100.0 * cost / elapsed.as_secs_f64().max(1e-9),
        }
    }
}

/// The only key of the map `cores`.
const KEY: [u8; 4] = [0; 4];

const EVENTS_PER_SYSTEM_CALL: u32 = 2;

/// Returns the duration of a system call that does nothing: of several series, the fastest, because
/// other threads and interrupts make series longer.
fn system_call_cost() -> Duration {
    const CALLS: u32 = 1000;
    let series = (0..20).map(|_| {
        let start = Instant::now();
        for _ in 0..CALLS {
            std::hint::black_box(getppid());
        }
        start.elapsed() / CALLS
    });
    series.min().unwrap_or_default()
}

fn monotonic_nanoseconds() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// `struct core` of bpf/kernel_ledger.bpf.c.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    has_worker: u64,
    only_veths: u64,
    last: u64,
    account: u64,
    events: u64,
    nanoseconds: [u64; Account::ALL.len()],
}

/// Members of `struct core` that only the program uses.
const INTERNAL: usize = 4;

impl State {
    /// The state of a core before the first event. `core` is `None` for a core that nobody asked
    /// about.
    fn initial(core: Option<&Core>) -> Self {
        Self {
            has_worker: core.is_some_and(|core| core.has_worker).into(),
            only_veths: core.is_some_and(|core| core.only_veths).into(),
            last: monotonic_nanoseconds(),
            account: Account::Idle as u64,
            ..Self::default()
        }
    }

    fn encode(&self) -> Vec<u8> {
        let words = [self.has_worker, self.only_veths, self.last, self.account, self.events];
        let words = words.into_iter().chain([0; INTERNAL]).chain(self.nanoseconds);
        words.flat_map(u64::to_ne_bytes).collect()
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let words: Vec<u64> =
            value.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        let [has_worker, only_veths, last, account, events, ..] = words[..] else { return None };
        let nanoseconds = words.get(5 + INTERNAL..)?.try_into().ok()?;
        Some(Self { has_worker, only_veths, last, account, events, nanoseconds })
    }

    /// Returns the times up to `now`, with the account that lasts until then.
    fn times(&self, now: u64) -> [Duration; Account::ALL.len()] {
        let mut nanoseconds = self.nanoseconds;
        if let Some(current) = nanoseconds.get_mut(self.account as usize) {
            *current += now.saturating_sub(self.last);
        }
        nanoseconds.map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_decodes_what_it_encodes_and_adds_the_current_account() {
        let state = State {
            has_worker: 1,
            last: 1000,
            account: Account::Softirq as u64,
            events: 7,
            nanoseconds: [1, 2, 3, 4, 5, 6],
            ..State::default()
        };
        assert_eq!(State::decode(&state.encode()), Some(state.clone()));
        let times = state.times(1500).map(|time| time.as_nanos());
        assert_eq!(times, [1, 2, 503, 4, 5, 6]);
        assert_eq!(state.times(900).map(|time| time.as_nanos()), [1, 2, 3, 4, 5, 6]);
        assert_eq!(State::decode(&[0; 8]), None);
    }
}
