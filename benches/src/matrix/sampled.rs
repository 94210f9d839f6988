//! Cycles by account of any path, measured from outside: the same instrument for all rows.

use std::sync::OnceLock;

use xdpfwd_bench::results::Cycles;
use xdpfwd_perf::{Account, Core, CoreUsage, Sampler, StartError, Symbols};
use xdpfwd_xsk::clock;

use crate::common::{Common, note};

/// Samples per second and core, in this order of preference: the kernel may limit the rate. Not
/// near a multiple of the kernel's tick. A sample takes some microseconds, less than 1 % of a core.
const FREQUENCIES_HZ: [u64; 3] = [1987, 997, 241];

/// A running measurement of both cores.
pub(crate) struct Sampling {
    sampler: Sampler,
}

impl Sampling {
    /// Starts to sample. `threads` are the threads of the forwarding process; none if the kernel
    /// forwards. Returns `None` if sampling is unavailable, and prints the reason once.
    pub(crate) fn start(common: &Common, threads: &[u32]) -> Option<Self> {
        static UNAVAILABLE: OnceLock<String> = OnceLock::new();
        match Self::try_start(common, threads) {
            Ok(sampling) => Some(sampling),
            Err(error) => {
                UNAVAILABLE.get_or_init(|| {
                    note(&format!("cycles by account are unavailable: {error}"));
                    error.to_string()
                });
                None
            }
        }
    }

    fn try_start(common: &Common, threads: &[u32]) -> Result<Self, StartError> {
        let symbols = symbols()?;
        let mut result = Err(StartError::UnknownSymbols);
        for frequency in FREQUENCIES_HZ {
            let threads = threads.iter().copied();
            result = Sampler::start_at(frequency, symbols.clone(), &cores(common), threads);
            // The kernel rejects a rate above its limit.
            if !matches!(result, Err(StartError::Event(_))) {
                break;
            }
        }
        Ok(Self { sampler: result? })
    }

    /// Returns the usage of both cores since the start.
    pub(crate) fn usage(&self) -> Vec<CoreUsage> {
        self.sampler.counts().cores
    }
}

/// Returns the cores of generator and forwarder. In the lab, a veth receives on the core that sends
/// to it: fwd0 on the generator's core, or in its NAPI thread, and sink0 on the forwarder's core.
/// So what softirqs poll on the forwarder's core is sink0, the far end.
fn cores(common: &Common) -> [Core; 2] {
    [
        Core {
            number: common.traffic.generator_core,
            // Its system calls are the generator's.
            has_worker: false,
            only_veths: true,
            polls_other_end: false,
        },
        Core { number: common.core, has_worker: true, only_veths: true, polls_other_end: true },
    ]
}

/// Returns the kernel's symbols, read once. BPF programs that are loaded later do not matter: their
/// addresses belong to no function of the kernel.
fn symbols() -> Result<Symbols, StartError> {
    static SYMBOLS: OnceLock<Symbols> = OnceLock::new();
    if let Some(symbols) = SYMBOLS.get() {
        return Ok(symbols.clone());
    }
    let symbols = Symbols::read(&[])?;
    Ok(SYMBOLS.get_or_init(|| symbols).clone())
}

/// Computes cycles per packet from the usage of both cores.
pub(crate) fn cycles(usage: &[CoreUsage], packets: u64) -> Cycles {
    let of = |account| {
        let seconds: f64 = usage.iter().map(|core| core.account(account).as_secs_f64()).sum();
        seconds * clock::cycles_per_second() / packets.max(1) as f64
    };
    let accounts = [Account::User, Account::SystemCall, Account::Softirq, Account::FarEnd];
    let samples =
        usage.iter().flat_map(|core| accounts.map(|account| core.samples.account(account))).sum();
    Cycles {
        user: of(Account::User),
        system_call: of(Account::SystemCall),
        softirq: of(Account::Softirq),
        far_end: of(Account::FarEnd),
        samples,
    }
}
