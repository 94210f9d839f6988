//! A run of pktgen.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::signal::SigSet;

use super::{
    control::{self, thread_name, write},
    report::{PktgenDevice, State, state},
};
use crate::{Counters, Error, SentTotals, generator::Source, namespace::NamespaceHandle};

/// pktgen waits 125 ms before it starts its threads.
const START_DEADLINE: Duration = Duration::from_secs(5);
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Running traffic of pktgen. Dropping this value stops it and removes its devices.
#[derive(Debug)]
pub struct PktgenRun {
    handle: Arc<NamespaceHandle>,
    devices: Vec<Device>,
    size: u64,
    count: Option<u64>,
    /// Writes `start` to pgctrl, which blocks until all devices have ended.
    starter: Option<JoinHandle<Result<(), Error>>>,
}

#[derive(Clone, Debug)]
struct Device {
    core: usize,
    /// The interface's name, `@`, and the number of the core: several threads can share an
    /// interface.
    name: String,
}

impl PktgenRun {
    /// `threads` are the cores, with the settings of their devices.
    pub(super) fn start(
        handle: NamespaceHandle,
        interface: &str,
        threads: Vec<(usize, Vec<String>)>,
        size: u16,
        count: Option<u64>,
    ) -> Result<Self, Error> {
        let handle = Arc::new(handle);
        let devices = threads
            .iter()
            .map(|&(core, _)| Device { core, name: format!("{interface}@{core}") })
            .collect();
        in_namespace(&handle, || -> Result<(), Error> {
            control::check_available()?;
            threads.iter().try_for_each(|&(core, _)| control::check_core(core))?;
            control::check_unused()
        })?;
        // From here on, dropping the run removes the devices.
        let mut run = Self { handle, devices, size: u64::from(size), count, starter: None };
        in_namespace(&run.handle, || {
            run.devices.iter().zip(&threads).try_for_each(|(device, (core, settings))| {
                write(&thread_name(*core), &format!("add_device {}", device.name))?;
                settings.iter().try_for_each(|line| write(&device.name, line))
            })
        })?;
        let handle = Arc::clone(&run.handle);
        let starter = thread::Builder::new()
            .name("lab-pktgen".into())
            .spawn(move || {
                // A signal would end the run.
                SigSet::all().thread_set_mask().map_err(Error::nix("blocking signals"))?;
                handle.enter()?;
                write("pgctrl", "start")
            })
            .map_err(Error::io("starting pktgen's thread"))?;
        run.starter = Some(starter);
        run.wait_for_start()?;
        Ok(run)
    }

    /// Waits until no device is idle.
    fn wait_for_start(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            let texts = self.texts()?;
            if texts.iter().all(|text| state(text) != State::Idle) {
                return Ok(());
            }
            if self.starter.as_ref().is_some_and(JoinHandle::is_finished) {
                self.join()?;
            }
            if start.elapsed() > START_DEADLINE {
                return Err(Error::Timeout {
                    event: "pktgen to start".into(),
                    seconds: START_DEADLINE.as_secs_f64(),
                    hint: format!("check that the interface is up; it reports: {}", texts.concat()),
                });
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns what pktgen reports about each of its devices.
    ///
    /// # Errors
    ///
    /// pktgen's files cannot be read.
    pub fn devices(&self) -> Result<Vec<PktgenDevice>, Error> {
        let texts = self.texts()?;
        self.devices.iter().zip(texts).map(|(d, text)| PktgenDevice::parse(d.core, &text)).collect()
    }

    fn texts(&self) -> Result<Vec<String>, Error> {
        in_namespace(&self.handle, || {
            self.devices.iter().map(|device| control::read(&device.name)).collect()
        })
    }

    /// Returns the frames passed to the driver so far.
    ///
    /// # Errors
    ///
    /// As [`Self::devices`].
    pub fn sent(&self) -> Result<Counters, Error> {
        let packets = self.devices()?.iter().map(|device| device.packets).sum();
        Ok(Counters { packets, bytes: packets * self.size })
    }

    /// Returns whether a device is still sending.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.starter.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Stops all devices, removes them, and returns the totals. The duration is that of the
    /// longest.
    ///
    /// # Errors
    ///
    /// The error of pktgen.
    pub fn stop(self) -> Result<SentTotals, Error> {
        self.stop_with_devices().map(|(totals, _)| totals)
    }

    /// As [`Self::stop`]. Also returns the final reports of the devices.
    ///
    /// # Errors
    ///
    /// As [`Self::stop`].
    pub fn stop_with_devices(mut self) -> Result<(SentTotals, Vec<PktgenDevice>), Error> {
        self.stop_devices()?;
        let devices = self.devices()?;
        let packets = devices.iter().map(|device| device.packets).sum();
        let seconds = devices.iter().filter_map(|device| device.seconds).fold(0.0, f64::max);
        self.remove_devices()?;
        Ok((SentTotals { packets, bytes: packets * self.size, seconds }, devices))
    }

    /// Waits until [`crate::Pktgen::count`] frames are sent, and returns the totals.
    ///
    /// # Errors
    ///
    /// No count was set, the deadline passed, or pktgen failed.
    pub fn finish(self, deadline: Duration) -> Result<(SentTotals, Vec<PktgenDevice>), Error> {
        let Some(count) = self.count else {
            return Err(Error::Value {
                parameter: "traffic to be finished",
                value: "no count".into(),
                accepted: "set one with Pktgen::count".into(),
            });
        };
        let start = Instant::now();
        while self.is_running() {
            if start.elapsed() > deadline {
                return Err(Error::Timeout {
                    event: format!("{count} frames of pktgen to be sent"),
                    seconds: deadline.as_secs_f64(),
                    hint: "use fewer frames or a higher rate".into(),
                });
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.stop_with_devices()
    }

    fn stop_devices(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        // pktgen forgets a `stop` that it receives just before its threads start.
        while self.is_running() {
            in_namespace(&self.handle, || write("pgctrl", "stop"))?;
            if start.elapsed() > STOP_DEADLINE {
                return Err(Error::Timeout {
                    event: "pktgen to stop".into(),
                    seconds: STOP_DEADLINE.as_secs_f64(),
                    hint: "run: echo stop > /proc/net/pktgen/pgctrl".into(),
                });
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.join()
    }

    fn join(&mut self) -> Result<(), Error> {
        let Some(thread) = self.starter.take() else { return Ok(()) };
        thread.join().unwrap_or(Err(Error::Panicked("pktgen")))
    }

    fn remove_devices(&mut self) -> Result<(), Error> {
        let devices = std::mem::take(&mut self.devices);
        in_namespace(&self.handle, || {
            devices.iter().try_for_each(|device| write(&thread_name(device.core), "rem_device_all"))
        })
    }
}

impl Source for PktgenRun {
    fn sent(&self) -> Result<Counters, Error> {
        self.sent()
    }

    fn grant(&self, _packets: u64) -> Result<(), Error> {
        Err(unsupported("frames on grant"))
    }

    fn is_running(&self) -> bool {
        self.is_running()
    }

    fn stop(self: Box<Self>) -> Result<SentTotals, Error> {
        (*self).stop()
    }

    fn finish(self: Box<Self>, deadline: Duration) -> Result<SentTotals, Error> {
        (*self).finish(deadline).map(|(totals, _)| totals)
    }
}

pub(super) fn unsupported(feature: &str) -> Error {
    Error::Value {
        parameter: "traffic for pktgen",
        value: feature.into(),
        accepted: "use live frames for this traffic".into(),
    }
}

impl Drop for PktgenRun {
    fn drop(&mut self) {
        if self.devices.is_empty() {
            return;
        }
        if let Err(error) = self.stop_devices().and_then(|()| self.remove_devices()) {
            crate::print_error(&format!("xdpfwd-lab: {error}"));
        }
    }
}

/// Runs `work` in a new thread in the namespace.
fn in_namespace<T: Send>(
    handle: &NamespaceHandle,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("lab-pktgen".into())
            .spawn_scoped(scope, || handle.enter().and_then(|()| work()))
            .map_err(Error::io("starting a thread"))?
            .join()
            .map_err(|_| Error::Panicked("pktgen"))?
    })
}
