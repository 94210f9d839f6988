//! Line rates of Ethernet, and the number of cores that they need.

use xdpfwd_lab::WIRE_OVERHEAD;

/// Line rates in the report: name, and bits per second.
pub(super) const LINE_RATES: [(&str, f64); 4] =
    [("10 GbE", 10e9), ("25 GbE", 25e9), ("40 GbE", 40e9), ("100 GbE", 100e9)];

/// Returns the packets per second of a line rate with frames of this length in memory.
pub(super) fn packets_per_second(bits_per_second: f64, bytes: f64) -> f64 {
    bits_per_second / ((bytes + WIRE_OVERHEAD as f64) * 8.0)
}

/// Returns the number of cores that forward this many packets, if all share the work equally.
pub(super) fn cores(packets_per_second: f64, cycles: f64, tsc_hz: f64) -> f64 {
    packets_per_second * cycles / tsc_hz
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_rates_of_small_frames_are_those_of_the_standard() {
        let rates: Vec<String> = LINE_RATES
            .iter()
            .map(|(_, bits)| format!("{:.2}", packets_per_second(*bits, 60.0) / 1e6))
            .collect();
        assert_eq!(rates, ["14.88", "37.20", "59.52", "148.81"]);
        assert_eq!(format!("{:.2}", packets_per_second(100e9, 1514.0) / 1e6), "8.13");
    }

    #[test]
    fn cores_are_cycles_of_all_packets_divided_by_clock() {
        assert_eq!(cores(2e6, 3000.0, 2e9), 3.0);
    }
}
