//! Cycles by account of any path, measured from outside: the same instrument for all rows.

use std::sync::OnceLock;

use xdpfwd_bench::results::Cycles;
use xdpfwd_perf::{Account, Core, CoreUsage, Sampled, Sampler, StartError, Symbols};
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

    /// Returns the samples of both cores since the start.
    pub(crate) fn counts(&self) -> Sampled {
        self.sampler.counts()
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

/// Cycles per packet of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) cycles: Cycles,
    /// The part of [`Cycles::total`] that the forwarder's core had.
    pub(crate) forwarding_core: f64,
    /// Samples that the kernel discarded.
    pub(crate) lost: u64,
}

/// Computes cycles per packet. `forwarding_core` is the number of the forwarder's core.
///
/// Time is the number of samples divided by their rate, not a share of the elapsed time: a core is
/// not sampled while the hypervisor does not run it, so stolen time does not count.
pub(crate) fn cycles(counts: &Sampled, forwarding_core: usize, packets: u64) -> Measured {
    let per_sample =
        clock::cycles_per_second() / counts.frequency_hz.max(1) as f64 / packets.max(1) as f64;
    let on = |core: &CoreUsage, account| core.samples.account(account) as f64 * per_sample;
    let of = |account| counts.cores.iter().map(|core| on(core, account)).sum();
    let accounts = [Account::User, Account::SystemCall, Account::Softirq, Account::FarEnd];
    let samples = counts
        .cores
        .iter()
        .flat_map(|core| accounts.map(|account| core.samples.account(account)))
        .sum();
    let own = [Account::User, Account::SystemCall, Account::Softirq];
    let forwarding = counts.cores.iter().filter(|core| core.core == forwarding_core);
    Measured {
        cycles: Cycles {
            user: of(Account::User),
            system_call: of(Account::SystemCall),
            softirq: of(Account::Softirq),
            far_end: of(Account::FarEnd),
            samples,
        },
        forwarding_core: forwarding.flat_map(|core| own.map(|account| on(core, account))).sum(),
        lost: counts.lost,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use xdpfwd_perf::Group;

    use super::*;

    fn core(number: usize, counts: &[(Account, u64)]) -> CoreUsage {
        let mut usage = CoreUsage::default();
        usage.core = number;
        for &(account, count) in counts {
            (0..count).for_each(|_| usage.samples.add(account, Group::Other));
        }
        usage
    }

    /// The elapsed time of 10 s is twice the time of the samples: half of it was stolen.
    #[test]
    fn cycles_count_sampled_time_of_each_core_without_stolen_time() {
        let cores = vec![
            core(0, &[(Account::Softirq, 100), (Account::Other, 400)]),
            core(
                1,
                &[
                    (Account::User, 50),
                    (Account::SystemCall, 150),
                    (Account::FarEnd, 200),
                    (Account::Idle, 100),
                ],
            ),
        ];
        let counts = Sampled {
            cores,
            elapsed: Duration::from_secs(10),
            frequency_hz: 100,
            samples: 1000,
            lost: 3,
            sample_cost: Duration::ZERO,
        };
        let measured = cycles(&counts, 1, 1000);
        // One sample is 10 ms; there are 1000 packets.
        let sample = clock::cycles_per_second() / 100.0 / 1000.0;
        let is_near = |value: f64, samples: f64| (value / (samples * sample) - 1.0).abs() < 1e-9;
        let Cycles { user, system_call, softirq, far_end, samples } = measured.cycles;
        assert!(is_near(user, 50.0) && is_near(system_call, 150.0), "{measured:?}");
        assert!(is_near(softirq, 100.0) && is_near(far_end, 200.0), "{measured:?}");
        assert_eq!((samples, measured.lost), (500, 3));
        assert!(is_near(measured.forwarding_core, 200.0), "{measured:?}");
    }
}
