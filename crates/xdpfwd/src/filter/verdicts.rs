//! Verdicts on the packets of a capture, and their output.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use xdpfwd_stages::filter::{Filter, Outcome, PacketException, Program};
use xdpfwd_wire::Headers;

use super::capture::{CapturedPacket, MAX_FRAME_BYTES, Skip};
use crate::output::write_failed;

/// A line of the output with `--json`.
#[derive(Serialize)]
struct PacketVerdict<'a> {
    /// From 0.
    index: u64,
    verdict: &'static str,
    /// From 0; null if no rule decided.
    rule: Option<u32>,
    /// The drop reason, or the packet exception whose configuration key accepted the packet.
    reason: Option<&'static str>,
    /// Why the packet was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<&'a str>,
}

/// Judges packets and prints each verdict.
pub(super) struct Judge<W: Write> {
    program: Arc<Program>,
    filter: Filter,
    clock: CaptureClock,
    index: u64,
    truncated: u64,
    by_outcome: BTreeMap<(Option<u32>, Option<&'static str>, &'static str), u64>,
    skipped: BTreeMap<Cow<'static, str>, u64>,
    frame: FrameBuffer,
    json: bool,
    stdout: W,
    /// Whether each verdict is written to stdout at once, without waiting for a full buffer.
    flush: bool,
}

impl<W: Write> Judge<W> {
    pub(super) fn new(program: &Arc<Program>, json: bool, stdout: W, flush: bool) -> Self {
        Self {
            program: Arc::clone(program),
            filter: Filter::for_dry_run(Arc::clone(program)),
            clock: CaptureClock::default(),
            index: 0,
            truncated: 0,
            by_outcome: BTreeMap::new(),
            skipped: BTreeMap::new(),
            frame: FrameBuffer::new(),
            json,
            stdout,
            flush,
        }
    }

    pub(super) fn judge(&mut self, packet: &CapturedPacket) -> Result<()> {
        let CapturedPacket { time, bytes, length } = packet;
        self.truncated += u64::from(bytes.len() < *length);
        let frame = self.frame.fill(bytes, *length);
        let inspection = self.program.inspect(frame, &Headers::parse(frame));
        let now = self.clock.elapsed(*time);
        let Outcome { drop, rule, exception } = self.filter.decide(inspection, *length, now);
        let line = PacketVerdict {
            index: self.index,
            verdict: if drop.is_none() { "accept" } else { "drop" },
            rule,
            reason: drop.or(exception.map(PacketException::reason)).map(|reason| reason.name()),
            skipped: None,
        };
        *self.by_outcome.entry((line.rule, line.reason, line.verdict)).or_default() += 1;
        let decided_by = rule.map_or("no rule".to_owned(), |rule| format!("rule {rule}"));
        let reason = line.reason.map_or(String::new(), |reason| format!(" ({reason})"));
        self.print(&line, &format!("{decided_by}{reason}"))
    }

    /// Counts a packet that cannot be judged.
    pub(super) fn skip(&mut self, skip: Skip) -> Result<()> {
        let Skip { text, reason } = skip;
        let line = PacketVerdict {
            index: self.index,
            verdict: "skip",
            rule: None,
            reason: None,
            skipped: Some(&text),
        };
        self.print(&line, &text)?;
        *self.skipped.entry(reason).or_default() += 1;
        Ok(())
    }

    fn print(&mut self, line: &PacketVerdict<'_>, text: &str) -> Result<()> {
        let line = if self.json {
            serde_json::to_string(line)? + "\n"
        } else {
            format!("{:>8}  {:<6}  {text}\n", line.index, line.verdict)
        };
        self.index += 1;
        self.stdout.write_all(line.as_bytes()).map_err(write_failed)?;
        if self.flush {
            self.stdout.flush().map_err(write_failed)?;
        }
        Ok(())
    }

    /// Returns the number of packets in the capture, and how many of them were skipped.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.index, self.skipped.values().sum())
    }

    /// Prints the counts, unless the output is JSON.
    pub(super) fn finish(mut self) -> Result<()> {
        if !self.json {
            let summary = self.summary();
            self.stdout.write_all(summary.as_bytes()).map_err(write_failed)?;
        }
        self.stdout.flush().map_err(write_failed)
    }

    fn summary(&self) -> String {
        let (packets, skipped) = self.counts();
        let notes = [
            (self.truncated, "truncated by the capture"),
            (self.clock.earlier, "with an earlier timestamp than a packet before"),
            (skipped, "skipped"),
        ];
        let notes: String = notes
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, note)| format!(", {count} of them {note}"))
            .collect();
        let mut text = format!("\n{packets} packets{notes}\n");
        for ((rule, reason, verdict), count) in &self.by_outcome {
            let reason = reason.map_or(String::new(), |reason| format!(" ({reason})"));
            let decided_by = match rule {
                Some(rule) => format!(
                    "rule {rule}: {}",
                    self.program.rule(*rule).map_or(String::new(), ToString::to_string)
                ),
                None => "no rule".to_owned(),
            };
            text += &format!("{count:>8}  {verdict:<6}  {decided_by}{reason}\n");
        }
        for (reason, count) in &self.skipped {
            text += &format!("{count:>8}  skip    {reason}\n");
        }
        text
    }
}

/// A frame whose uncaptured bytes are zeros. `fill` zeroes only the bytes that the previous frame
/// set: most bytes of a long frame can be uncaptured.
struct FrameBuffer {
    bytes: Box<[u8]>,
    /// All bytes from here on are zero.
    used: usize,
}

impl FrameBuffer {
    fn new() -> Self {
        Self { bytes: vec![0; MAX_FRAME_BYTES].into(), used: 0 }
    }

    /// Returns the frame of `length` bytes, of which `captured` are the first.
    fn fill(&mut self, captured: &[u8], length: usize) -> &[u8] {
        let used = captured.len().min(self.bytes.len());
        self.bytes[..used].copy_from_slice(&captured[..used]);
        self.bytes[used..self.used.max(used)].fill(0);
        self.used = used;
        &self.bytes[..length.min(self.bytes.len())]
    }
}

/// The clock of rate limits. It starts with the first timestamp and never runs backwards.
#[derive(Debug, Default)]
struct CaptureClock {
    /// In nanoseconds since 1970.
    first: Option<i128>,
    /// In nanoseconds since `first`.
    elapsed: u64,
    /// Number of packets whose timestamp is earlier than that of a packet before.
    earlier: u64,
}

impl CaptureClock {
    /// Returns the time at which a packet with this timestamp is judged. A packet without a
    /// timestamp, or with an earlier one than a packet before, is judged at the latest time so far.
    fn elapsed(&mut self, timestamp: Option<i128>) -> u64 {
        let Some(timestamp) = timestamp else { return self.elapsed };
        let since_first = timestamp - *self.first.get_or_insert(timestamp);
        self.earlier += u64::from(since_first < i128::from(self.elapsed));
        // 64 bits hold 584 years.
        self.elapsed = self.elapsed.max(u64::try_from(since_first.max(0)).unwrap_or(u64::MAX));
        self.elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_buffer_has_zeros_after_the_captured_bytes() {
        let mut buffer = FrameBuffer::new();
        for (captured, length) in
            [(5, 5), (3, 7), (0, MAX_FRAME_BYTES), (MAX_FRAME_BYTES, MAX_FRAME_BYTES), (1, 9)]
        {
            let mut expected = vec![1; captured];
            expected.resize(length, 0);
            assert_eq!(buffer.fill(&vec![1; captured], length), expected);
        }
    }

    #[test]
    fn capture_clock_never_runs_backwards() {
        let mut clock = CaptureClock::default();
        assert_eq!(clock.elapsed(None), 0);
        let times = [5, 7, 7, 6, -9, 8, i128::from(u64::MAX) + 100, 9];
        let elapsed = times.map(|time| clock.elapsed(Some(time)));
        assert_eq!(elapsed, [0, 2, 2, 2, 2, 3, u64::MAX, u64::MAX]);
        assert_eq!(clock.elapsed(None), u64::MAX);
        assert_eq!(clock.earlier, 3);
    }
}
