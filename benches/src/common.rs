//! Shared parts of all measurements: options, result files, Ctrl-C.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;
use xdpfwd_bench::machine::Machine;
use xdpfwd_lab::Sink;

use crate::peer::{Missing, Peer, Place, Ready};

/// Time without arrivals at the sink after which no frame is in transit.
const SETTLED: Duration = Duration::from_millis(200);
const SETTLE_DEADLINE: Duration = Duration::from_secs(5);

/// Options of every measurement in the lab.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Seconds measured in each run
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Seconds of traffic before the measurement
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warmup: f64,
    /// Only these forwarders, by name, separated by commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Core of the forwarder
    #[arg(long, default_value_t = 1)]
    pub(crate) core: usize,
    /// Core of the generator
    #[arg(long, default_value_t = 0)]
    pub(crate) generator_core: usize,
    /// The xdpfwd binary [default: the one beside this program]
    #[arg(long)]
    xdpfwd: Option<PathBuf>,
    /// Folder with the sources of the compared forwarders
    #[arg(long, default_value = "benches/peers")]
    peers: PathBuf,
    /// Results go to a folder of DIR, named after day and host
    #[arg(long, default_value = "benches/results", value_name = "DIR")]
    results: PathBuf,
}

/// Returns the folder that cargo built this program in, which has the other programs too:
/// `target/release`, for example.
pub(crate) fn build_output() -> Result<PathBuf> {
    let program = std::env::current_exe().context("the path of this program")?;
    Ok(program.parent().context("the folder of this program")?.to_owned())
}

impl Common {
    pub(crate) fn seconds(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.clamp(0.01, 3600.0))
    }

    pub(crate) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup.clamp(0.0, 3600.0))
    }

    /// Returns all paths. They are absolute, because `ip netns exec` searches PATH for a bare name.
    pub(crate) fn place(&self) -> Result<Place> {
        let absolute = |path: &Path| {
            path.canonicalize().with_context(|| {
                format!(
                    "{} can't be read; run this from the repository, after `make build`",
                    path.display()
                )
            })
        };
        let output = build_output()?;
        let scratch = output.join("bench-scratch");
        let xdpfwd = self.xdpfwd.clone().unwrap_or_else(|| output.join("xdpfwd"));
        fs::create_dir_all(&scratch).with_context(|| format!("creating {}", scratch.display()))?;
        Ok(Place {
            xdpfwd: absolute(&xdpfwd)?,
            sources: absolute(&self.peers)?,
            scratch: absolute(&scratch)?,
            generator: self.generator_core,
            core: self.core,
        })
    }

    /// Returns the selected forwarders.
    pub(crate) fn wanted(&self, all: &[Peer]) -> Vec<Peer> {
        let wanted =
            |peer: &Peer| self.only.is_empty() || self.only.iter().any(|name| name == peer.name());
        all.iter().copied().filter(wanted).collect()
    }

    /// Returns the selected forwarders that are available, and the missing parts of the others by
    /// name.
    pub(crate) fn choose(
        &self,
        all: &[Peer],
        place: &Place,
    ) -> (Vec<Ready>, BTreeMap<&'static str, Missing>) {
        let mut ready = Vec::new();
        let mut missing = BTreeMap::new();
        for peer in self.wanted(all) {
            match peer.prepare(place, 1).and_then(|ready| ready.attempt().map(|()| ready)) {
                Ok(it) => ready.push(it),
                Err(why) => {
                    note(&format!("{}: missing: {why}", peer.name()));
                    missing.insert(peer.name(), why);
                }
            }
        }
        (ready, missing)
    }

    /// Checks the prerequisites before a long measurement, and opens its results.
    pub(crate) fn begin(&self, what: &'static str) -> Result<Output> {
        xdpfwd_lab::require_root("measuring in the lab")?;
        let known: Vec<&str> =
            crate::peer::ALL.iter().map(|peer| peer.name()).chain(["xdpfwd-spin"]).collect();
        if let Some(name) = self.only.iter().find(|name| !known.contains(&name.as_str())) {
            bail!("there is no forwarder {name:?}; there are {}", known.join(", "));
        }
        let cores = thread::available_parallelism().map_or(1, Into::into);
        if self.core >= cores || self.generator_core >= cores || self.core == self.generator_core {
            bail!(
                "cores {} (forwarder) and {} (generator): use two different ones below {cores}",
                self.core,
                self.generator_core
            );
        }
        let machine = Machine::here();
        let busy = machine
            .load_average
            .split_whitespace()
            .next()
            .and_then(|load| load.parse::<f64>().ok());
        if busy.is_some_and(|load| load > 0.5) {
            note(&format!(
                "this machine is busy with other things (load average {}): take ratios, not rates",
                machine.load_average
            ));
        }
        Ok(Output {
            directory: self.results.join(format!("{}-{}", machine.date, machine.host)),
            what,
            machine,
        })
    }
}

/// The result files of a measurement.
pub(crate) struct Output {
    directory: PathBuf,
    what: &'static str,
    machine: Machine,
}

impl Output {
    /// Saves the printed table.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        self.write("txt", text).map(drop)
    }

    /// Saves the raw numbers, with command line and machine.
    pub(crate) fn json(&mut self, numbers: &serde_json::Value) -> Result<PathBuf> {
        let mut all = json!({
            "command": std::env::args().collect::<Vec<_>>().join(" "),
            "machine": self.machine,
        });
        if let (Some(all), Some(numbers)) = (all.as_object_mut(), numbers.as_object()) {
            all.extend(numbers.clone());
        }
        self.write("json", &format!("{:#}\n", all))
    }

    fn write(&self, extension: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(format!("{}.{extension}", self.what));
        fs::create_dir_all(&self.directory)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// A flag set by Ctrl-C or SIGTERM, checked between runs so that every lab is removed in order.
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn new() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag))
                .context("installing a signal handler")?;
        }
        Ok(Self(flag))
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted; the lab is removed");
        }
        Ok(())
    }
}

/// Prints a progress line to stderr; stdout is for the result.
pub(crate) fn note(line: &str) {
    eprintln!("{line}");
}

/// Waits until no frame arrives at the sink.
pub(crate) fn settle(sink: &Sink) -> Result<()> {
    let start = Instant::now();
    let (mut last, mut since) = (sink.seen()?.arrived.packets, Instant::now());
    while since.elapsed() < SETTLED {
        if start.elapsed() > SETTLE_DEADLINE {
            bail!("frames still arrive {} s after the last was sent", SETTLE_DEADLINE.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
        let now = sink.seen()?.arrived.packets;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
}
