//! What pktgen reports about a device.

use crate::Error;

/// The counters and rates that pktgen itself reports for one of its devices.
#[derive(Clone, Debug, PartialEq)]
pub struct PktgenDevice {
    /// Core of the sending thread.
    pub core: usize,
    /// Frames passed to the driver so far.
    pub packets: u64,
    /// Frames that the driver refused.
    pub errors: u64,
    /// Duration in seconds, after the end.
    pub seconds: Option<f64>,
    /// Packets per second as pktgen computes them, after the end.
    pub pps: Option<u64>,
    /// Frame length in bytes without FCS, after the end.
    pub size: Option<u16>,
    /// Queues, from the lowest to the highest.
    pub queues: (u16, u16),
}

/// The state of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    Running,
    Ended,
}

/// Returns the state of a device from its file.
pub(crate) fn state(text: &str) -> State {
    match text.lines().find_map(|line| line.trim().strip_prefix("Result:")).map(str::trim) {
        Some("Starting" | "Running") => State::Running,
        // The result contains the totals of a run, such as `OK: 100004(c99321+d683) usec, …`.
        Some(result) if result.starts_with("OK:") && result.contains("usec") => State::Ended,
        _ => State::Idle,
    }
}

impl PktgenDevice {
    /// Parses the file of a device.
    pub(crate) fn parse(core: usize, text: &str) -> Result<Self, Error> {
        let parsed = || {
            let queues =
                (number(text, "queue_map_min:")? as u16, number(text, "queue_map_max:")? as u16);
            Some(Self {
                core,
                packets: number(text, "pkts-sofar:")?,
                errors: number(text, "errors:")?,
                seconds: ended(text).and_then(|result| Some(number(result, "OK:")? as f64 / 1e6)),
                pps: ended(text).and_then(|result| before(result, "pps")),
                size: ended(text)
                    .and_then(|result| before(result, "byte,"))
                    .and_then(|size| u16::try_from(size).ok()),
                queues,
            })
        };
        parsed().ok_or_else(|| Error::Value {
            parameter: "report of pktgen",
            value: text.trim().to_owned(),
            accepted: "this kernel's pktgen has another format; report this as a bug".into(),
        })
    }
}

/// Returns the text from the totals of an ended run on.
fn ended(text: &str) -> Option<&str> {
    let result = &text[text.find("Result:")?..];
    (state(text) == State::Ended).then_some(result)
}

/// Returns the first number after a name.
fn number(text: &str, name: &str) -> Option<u64> {
    let rest = text[text.find(name)? + name.len()..].trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Returns the number directly before a word.
fn before(text: &str, word: &str) -> Option<u64> {
    let start = &text[..text.find(word)?];
    let digits = start.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    start[digits..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = "\
Params: count 0  min_pkt_size: 60  max_pkt_size: 60
     frags: 0  delay: 0  clone_skb: 0  ifname: gen0@1
     queue_map_min: 1  queue_map_max: 1
Current:
     pkts-sofar: 1234  errors: 7
     started: 100us  stopped: 0us idle: 0us
Result: Starting
";

    #[test]
    fn device_in_progress_has_counts_without_rate() {
        let device = PktgenDevice::parse(1, RUNNING).unwrap();
        assert_eq!((device.core, device.packets, device.errors), (1, 1234, 7));
        assert_eq!((device.seconds, device.pps, device.size), (None, None, None));
        assert_eq!(device.queues, (1, 1));
        assert_eq!(state(RUNNING), State::Running);
    }

    #[test]
    fn ended_device_has_rate_and_duration() {
        let ended = RUNNING.replace(
            "Result: Starting",
            "Result: OK: 100004(c99321+d683) usec, 1000 (60byte,0frags)\n  9999pps 4Mb/sec \
             (4799520bps) errors: 7",
        );
        let device = PktgenDevice::parse(1, &ended).unwrap();
        assert_eq!((device.pps, device.size), (Some(9999), Some(60)));
        assert_eq!(device.seconds, Some(0.100004));
        assert_eq!(state(&ended), State::Ended);
    }

    #[test]
    fn state_before_start_is_idle() {
        for result in ["Idle", "OK: ratep=100", "OK: pkt_size=60"] {
            assert_eq!(state(&RUNNING.replace("Starting", result)), State::Idle, "{result}");
        }
    }

    #[test]
    fn report_of_unknown_format_is_an_error() {
        let error = PktgenDevice::parse(0, "Params: something else").unwrap_err().to_string();
        assert!(error.contains("another format"), "{error}");
    }
}
