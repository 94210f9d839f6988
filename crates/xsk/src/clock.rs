//! A fast counter for measuring the time spent in stages.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Returns a counter that runs at a constant rate: the time-stamp counter on x86-64, the virtual
/// counter on aarch64, nanoseconds elsewhere. On x86-64, the rate is independent of the core clock
/// only if the processor has an invariant TSC.
///
/// The processor may read the counter some tens of instructions earlier or later, which is
/// negligible for a batch.
#[inline(always)]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 processor has RDTSC, and Linux leaves it enabled. Needs `unsafe`:
        // compiler intrinsic.
        unsafe { std::arch::x86_64::_rdtsc() }
    }
    #[cfg(target_arch = "aarch64")]
    {
        let cycles: u64;
        // SAFETY: reading the virtual counter is allowed in user space on Linux and has no effect.
        // Needs `unsafe`: assembly.
        unsafe { std::arch::asm!("mrs {}, cntvct_el0", out(reg) cycles, options(nomem, nostack)) };
        cycles
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Returns the rate of [`cycles`] in cycles per second. The first call measures it for 20 ms.
pub fn cycles_per_second() -> f64 {
    static RATE: OnceLock<f64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let (start, start_cycles) = both_clocks();
        std::thread::sleep(Duration::from_millis(20));
        let (end, end_cycles) = both_clocks();
        end_cycles.wrapping_sub(start_cycles) as f64 / end.duration_since(start).as_secs_f64()
    })
}

/// Reads [`cycles`] and the system clock almost together. Returns the fastest of several attempts,
/// because an interrupt between both reads can take milliseconds.
fn both_clocks() -> (Instant, u64) {
    let read = || {
        let before = cycles();
        let now = Instant::now();
        let duration = cycles().wrapping_sub(before);
        (duration, now, before.wrapping_add(duration / 2))
    };
    let (_, now, cycles) =
        (0..9).map(|_| read()).min_by_key(|(duration, ..)| *duration).unwrap_or_else(read);
    (now, cycles)
}
