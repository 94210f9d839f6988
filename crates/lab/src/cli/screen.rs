//! Output on the terminal: results, progress, and numbers with units.

use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use xdpfwd_lab::{SinkCounters, grouped};

/// A display of the progress on stderr; stdout contains only the result. On a terminal, a line
/// overwrites the previous one.
pub(super) struct Progress {
    terminal: bool,
    quiet: bool,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        Self { terminal: io::stderr().is_terminal(), quiet }
    }

    pub(super) fn show(&self, line: &str) {
        if !self.quiet {
            // A failure to write progress must not stop the measurement.
            let _ = if self.terminal {
                write!(io::stderr(), "\r\x1b[K{line}")
            } else {
                writeln!(io::stderr(), "{line}")
            };
        }
    }

    pub(super) fn done(&self) {
        if self.terminal && !self.quiet {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done();
    }
}

/// Prints to stdout. Also succeeds if the reader has closed its end of a pipe (`| head`).
pub(super) fn print(text: &str) -> Result<()> {
    Ok(xdpfwd_lab::print(text)?)
}

pub(super) fn check_results(seen: &SinkCounters) -> String {
    let (corrupt, reordered, duplicates) =
        (grouped(seen.corrupt), grouped(seen.reordered), grouped(seen.duplicates));
    format!("{corrupt} corrupt, {reordered} reordered, {duplicates} duplicates")
}

/// Formats as "2.357 Mpps" or "9.87 kpps".
pub(super) fn rate(pps: f64) -> String {
    if pps >= 100_000.0 {
        format!("{:.3} Mpps", pps / 1e6)
    } else {
        format!("{:.2} kpps", pps / 1e3)
    }
}

/// Formats as "1.131 Gbit/s" or "4.80 Mbit/s".
pub(super) fn bits(bps: f64) -> String {
    if bps >= 1e8 { format!("{:.3} Gbit/s", bps / 1e9) } else { format!("{:.2} Mbit/s", bps / 1e6) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_bits_choose_readable_unit() {
        assert_eq!(rate(2_357_000.0), "2.357 Mpps");
        assert_eq!(rate(9_870.0), "9.87 kpps");
        assert_eq!(bits(1.131e9), "1.131 Gbit/s");
        assert_eq!(bits(4.8e6), "4.80 Mbit/s");
    }
}
