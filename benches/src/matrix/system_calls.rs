//! System calls of a process that does not count them itself, by a BPF program on the tracepoint
//! `raw_syscalls:sys_enter` (`benches/peers/system_calls.bpf.c`).

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, Result};
use libbpf_rs::{Link, MapCore as _, MapFlags, MapHandle, Object, ObjectBuilder};
use xdpfwd_lab::{Generator, Reading, Sink};

/// Duration of the measurement, which slows the process down: after the windows of a run.
const DURATION: Duration = Duration::from_millis(100);

/// Counts until it is dropped.
pub(crate) struct SystemCallCounter {
    calls: MapHandle,
    // Field order matters: the link is dropped before the program.
    _link: Link,
    _object: Object,
}

impl SystemCallCounter {
    /// Starts to count the system calls of a process. `object` is the compiled BPF program.
    pub(crate) fn start(object: &Path, pid: u32) -> Result<Self> {
        let mut open = ObjectBuilder::default().open_file(object)?;
        let mut config = open.maps_mut().find(|map| map.name() == ".rodata.config");
        let config = config.as_mut().context("system_calls.bpf.c has no map .rodata.config")?;
        config.set_initial_value(&pid.to_ne_bytes())?;
        let object = open.load().context("cannot load the program that counts system calls")?;
        let program = object.progs_mut().next().context("system_calls.bpf.c has no program")?;
        let link = program.attach()?;
        let calls = object.maps().find(|map| map.name() == "calls");
        let calls = MapHandle::try_from(&calls.context("system_calls.bpf.c has no map calls")?)?;
        Ok(Self { calls, _link: link, _object: object })
    }

    /// Returns the number of system calls so far.
    pub(crate) fn count(&self) -> Result<u64> {
        let values = self.calls.lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY)?;
        let words = values.iter().flatten().filter_map(|value| value.first_chunk());
        Ok(words.map(|word| u64::from_ne_bytes(*word)).sum())
    }

    /// Counts while the generator sends. Returns system calls per packet that arrived at the sink.
    pub(crate) fn per_packet(&self, generator: &Generator, sink: &Sink) -> Result<f64> {
        let (start, before) = (Reading::take(generator, sink)?, self.count()?);
        thread::sleep(DURATION);
        let (end, after) = (Reading::take(generator, sink)?, self.count()?);
        let packets = start.until(&end).forwarded.packets;
        Ok((after - before) as f64 / packets.max(1) as f64)
    }
}
