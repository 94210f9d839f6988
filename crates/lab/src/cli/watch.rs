//! Displays the rates during a run.

use std::time::{Duration, Instant};

use anyhow::Result;
use xdpfwd_lab::{Forwarder, Generator, Reading, Sink, Window};

use super::{
    screen::{Progress, rate},
    stop::Stop,
};

/// Shows the rates once per second. Returns the frames offered and forwarded in the whole time.
///
/// # Errors
///
/// The user stopped the command, the forwarder ended, or the counters cannot be read.
pub(super) fn watch(
    generator: &Generator,
    sink: &Sink,
    forwarder: &mut Forwarder,
    time: Duration,
    stop: &Stop,
    progress: &Progress,
) -> Result<Window> {
    let start = Instant::now();
    let first = Reading::take(generator, sink)?;
    let mut previous = first;
    for second in 1.. {
        stop.sleep_until(start, time.min(Duration::from_secs(second)));
        stop.check()?;
        forwarder.check_running()?;
        let now = Reading::take(generator, sink)?;
        let window = previous.until(&now);
        progress.show(&format!(
            "{:>4.1} s   offered {}   forwarded {}",
            start.elapsed().as_secs_f64(),
            rate(window.offered_pps()),
            rate(window.forwarded_pps())
        ));
        previous = now;
        if start.elapsed() >= time {
            break;
        }
    }
    Ok(first.until(&previous))
}
