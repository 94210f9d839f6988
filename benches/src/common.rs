//! Code shared by the measurements: options, result files, Ctrl-C.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;
use serde_json::json;
use xdpfwd_bench::machine::Machine;
use xdpfwd_lab::{GeneratorKind, Pktgen, Sink, Traffic};

use crate::forwarders::{Environment, ForwarderKind, MissingReason, PreparedForwarder};

/// After this long without a frame at the sink, no frame is assumed to be in transit.
const SETTLE_TIME: Duration = Duration::from_millis(200);
const SETTLE_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of all lab measurements")]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) traffic: TrafficOptions,
    /// Measure only these forwarders or paths, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Core of the forwarder
    #[arg(long, default_value_t = 1)]
    pub(crate) core: usize,
    /// The xdpfwd binary [default: in the folder of this program]
    #[arg(long, value_name = "PATH")]
    xdpfwd: Option<PathBuf>,
    /// Folder with the sources of the compared forwarders
    #[arg(long, value_name = "DIR", default_value = "benches/peers")]
    peers: PathBuf,
    /// Write results to DIR/<date>-<host>
    #[arg(long, default_value = "benches/results", value_name = "DIR")]
    results: PathBuf,
}

/// Returns the folder of this program, such as `target/release`.
pub(crate) fn build_output() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot determine the path of this program")?;
    Ok(program.parent().context("this program has no parent folder")?.to_owned())
}

/// When and where traffic is generated.
#[derive(Args, Clone, Debug)]
pub(crate) struct TrafficOptions {
    /// Seconds measured in each run
    #[arg(long, default_value_t = 3.0, value_parser = parse_seconds)]
    pub(crate) seconds: f64,
    /// Seconds of traffic before the measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = parse_seconds)]
    pub(crate) warmup: f64,
    /// Core of the generator
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    pub(crate) generator_core: usize,
    /// What sends the packets: the lab's live frames, or the kernel's pktgen. Without pktgen in the
    /// kernel, live frames are used, and the results say so
    #[arg(long, value_enum, value_name = "GENERATOR", default_value_t = GeneratorName::Live)]
    pub(crate) generator: GeneratorName,
}

/// Parses a duration in seconds.
pub(crate) fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("use 0 to 3600 seconds".to_owned()),
    }
}

/// The values of `--generator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GeneratorName {
    Live,
    Pktgen,
}

impl GeneratorName {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Pktgen => "pktgen",
        }
    }
}

/// The generator of a measurement, as in its results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct GeneratorUse {
    pub(crate) used: GeneratorName,
    /// Why it is not the generator that the command line asks for.
    pub(crate) reason: Option<String>,
}

impl GeneratorUse {
    /// Returns the generator to use. If this kernel lacks it, prints why.
    pub(crate) fn of(requested: GeneratorName) -> Self {
        let available = match requested {
            GeneratorName::Live => Ok(()),
            GeneratorName::Pktgen => Pktgen::check_available(),
        };
        let generator = Self::new(requested, available);
        if let Some(reason) = &generator.reason {
            note(&format!("warning: sending live frames instead of pktgen's: {reason}"));
        }
        generator
    }

    fn new(requested: GeneratorName, available: Result<(), xdpfwd_lab::Error>) -> Self {
        match available {
            Err(error) if requested == GeneratorName::Pktgen => {
                Self { used: GeneratorName::Live, reason: Some(error.to_string()) }
            }
            _ => Self { used: requested, reason: None },
        }
    }

    pub(crate) fn kind(&self) -> GeneratorKind {
        match self.used {
            GeneratorName::Live => GeneratorKind::Live,
            GeneratorName::Pktgen => GeneratorKind::Pktgen,
        }
    }
}

impl TrafficOptions {
    pub(crate) fn seconds(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.clamp(0.01, 3600.0))
    }

    pub(crate) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup.clamp(0.0, 3600.0))
    }

    /// Returns the generator to use. If this kernel lacks it, the first call prints why.
    pub(crate) fn generator(&self) -> &'static GeneratorUse {
        static USED: OnceLock<GeneratorUse> = OnceLock::new();
        USED.get_or_init(|| GeneratorUse::of(self.generator))
    }

    /// Sets the generator of the traffic, and its core.
    pub(crate) fn prepare(&self, traffic: Traffic) -> Traffic {
        traffic.core(self.generator_core).generator(self.generator().kind())
    }

    /// Fails if the command line asks for pktgen. `reason` says why the measurement needs live
    /// frames.
    pub(crate) fn require_live(&self, reason: &str) -> Result<()> {
        match self.generator {
            GeneratorName::Live => Ok(()),
            GeneratorName::Pktgen => {
                bail!("cannot measure with --generator pktgen: {reason}; use --generator live")
            }
        }
    }
}

impl Common {
    pub(crate) fn seconds(&self) -> Duration {
        self.traffic.seconds()
    }

    pub(crate) fn warmup(&self) -> Duration {
        self.traffic.warmup()
    }

    /// Creates the scratch folder, and locks it for this process. Paths are absolute, because `ip
    /// netns exec` searches PATH for a relative name without slashes.
    pub(crate) fn environment(&self) -> Result<Environment> {
        let absolute = |path: &Path| {
            path.canonicalize().with_context(|| {
                format!(
                    "cannot find `{}`; run this in the repository after `make build`",
                    path.display()
                )
            })
        };
        let output = build_output()?;
        let scratch = output.join("bench-scratch");
        let xdpfwd = self.xdpfwd.clone().unwrap_or_else(|| output.join("xdpfwd"));
        fs::create_dir_all(&scratch).with_context(|| format!("creating {}", scratch.display()))?;
        lock_scratch(&scratch)?;
        Ok(Environment {
            xdpfwd: absolute(&xdpfwd)?,
            sources: absolute(&self.peers)?,
            scratch: absolute(&scratch)?,
            generator: self.traffic.generator_core,
            core: self.core,
        })
    }

    pub(crate) fn selected(&self, all: &[ForwarderKind]) -> Vec<ForwarderKind> {
        all.iter().copied().filter(|kind| self.is_selected(kind.name())).collect()
    }

    /// Returns whether the option `--only` is absent or contains the name.
    pub(crate) fn is_selected(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// Returns the available forwarders and, for each missing one, its name and the reason.
    pub(crate) fn prepare_selected(
        &self,
        all: &[ForwarderKind],
        environment: &Environment,
    ) -> (Vec<PreparedForwarder>, BTreeMap<&'static str, MissingReason>) {
        let queues = 1;
        let mut ready = Vec::new();
        let mut missing = BTreeMap::new();
        for kind in self.selected(all) {
            match kind
                .prepare(environment, queues)
                .and_then(|forwarder| forwarder.check_start().map(|()| forwarder))
            {
                Ok(forwarder) => ready.push(forwarder),
                Err(reason) => {
                    note(&format!("{}: missing: {reason}", kind.name()));
                    missing.insert(kind.name(), reason);
                }
            }
        }
        (ready, missing)
    }

    /// Checks the prerequisites of a measurement of forwarders. Returns its result files.
    pub(crate) fn begin(&self, name: &'static str) -> Result<Output> {
        let names: Vec<&str> =
            crate::forwarders::ALL.iter().map(|kind| kind.name()).chain(["xdpfwd-spin"]).collect();
        self.begin_with(name, "forwarder", &names)
    }

    /// Checks the prerequisites of a measurement for which `--only` accepts these names. Returns
    /// its result files.
    pub(crate) fn begin_with(
        &self,
        name: &'static str,
        kind: &str,
        names: &[&str],
    ) -> Result<Output> {
        check_names(kind, &self.only, names)?;
        let machine = self.check_machine()?;
        Ok(Output {
            directory: self.results.join(format!("{}-{}", machine.date, machine.host)),
            name,
            machine,
            generator: self.traffic.generator(),
        })
    }

    /// Checks privileges and cores, and warns if other programs use the machine.
    pub(crate) fn check_machine(&self) -> Result<Machine> {
        xdpfwd_lab::require_root("measuring in the lab")?;
        let cores = thread::available_parallelism().map_or(1, Into::into);
        if self.core >= cores
            || self.traffic.generator_core >= cores
            || self.core == self.traffic.generator_core
        {
            bail!(
                "invalid cores {} (forwarder) and {} (generator): use two different cores \
                 below {cores}",
                self.core,
                self.traffic.generator_core
            );
        }
        let machine = Machine::detect();
        let load = machine
            .load_average
            .split_whitespace()
            .next()
            .and_then(|load| load.parse::<f64>().ok());
        if load.is_some_and(|load| load > 0.5) {
            note(&format!(
                "warning: other programs use this machine (load average {}): rates are \
                 worthless, and ratios are unreliable",
                machine.load_average
            ));
        }
        Ok(machine)
    }

    /// Returns the folder of the results of all days.
    pub(crate) fn results(&self) -> &Path {
        &self.results
    }
}

/// Locks the scratch folder until this process ends. A second measurement would replace the
/// configurations, keys and programs of the first, and both would share the cores.
pub(crate) fn lock_scratch(scratch: &Path) -> Result<()> {
    // By path: a process may prepare a measurement twice.
    static LOCKS: Mutex<BTreeMap<PathBuf, Flock<File>>> = Mutex::new(BTreeMap::new());
    let mut locks = LOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    if !locks.contains_key(scratch) {
        locks.insert(scratch.to_owned(), lock_file(&scratch.join("lock"))?);
    }
    Ok(())
}

/// Locks a file, and writes the number of this process into it. The kernel releases the lock when
/// the process ends.
fn lock_file(path: &Path) -> Result<Flock<File>> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0)
                .and_then(|()| write!(lock, "{}", std::process::id()))
                .with_context(|| format!("writing {}", path.display()))?;
            Ok(lock)
        }
        Err((_, Errno::EWOULDBLOCK)) => {
            let pid = fs::read_to_string(path).unwrap_or_default();
            bail!(
                "cannot measure: another `xdpfwd-bench` (pid {pid}) measures on this machine and \
                 uses {}; wait until it has ended, or stop it with `kill {pid}`",
                path.display()
            )
        }
        Err((_, error)) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}

/// Fails if a selected name is not one of `names`, which are names of a `kind`, such as "row".
pub(crate) fn check_names(kind: &str, selected: &[String], names: &[&str]) -> Result<()> {
    match selected.iter().find(|name| !names.contains(&name.as_str())) {
        Some(name) => bail!("unknown {kind} {name:?}; use {}", names.join(", ")),
        None => Ok(()),
    }
}

pub(crate) struct Output {
    directory: PathBuf,
    name: &'static str,
    machine: Machine,
    generator: &'static GeneratorUse,
}

impl Output {
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        self.write("txt", text).map(drop)
    }

    pub(crate) fn json(&mut self, numbers: &serde_json::Value) -> Result<PathBuf> {
        let mut contents = json!({
            "command": std::env::args().collect::<Vec<_>>().join(" "),
            "machine": self.machine,
            "generator": self.generator,
        });
        if let (Some(contents), Some(numbers)) = (contents.as_object_mut(), numbers.as_object()) {
            contents.extend(numbers.clone());
        }
        self.write("json", &format!("{:#}\n", contents))
    }

    fn write(&self, extension: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(format!("{}.{extension}", self.name));
        fs::create_dir_all(&self.directory)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// A flag set by Ctrl-C or SIGTERM, checked between runs, so that every run removes its lab.
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

    /// Sets the flag.
    #[cfg(test)]
    pub(crate) fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}

pub(crate) fn print(text: &str) -> Result<()> {
    Ok(xdpfwd_lab::print(text)?)
}

/// Prints a line to stderr; stdout is for results.
pub(crate) fn note(line: &str) {
    // `cargo test` captures only output of macros.
    #[cfg(test)]
    eprintln!("{line}");
    #[cfg(not(test))]
    xdpfwd_lab::print_error(line);
}

/// Runs `work` in a new thread on `core`, so the caller is not pinned.
pub(crate) fn on_core<T: Send>(core: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let mut set = CpuSet::new();
    set.set(core).with_context(|| format!("invalid core {core}"))?;
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            sched_setaffinity(Pid::from_raw(0), &set)
                .with_context(|| format!("pinning to core {core}"))?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Waits until no frame arrives for [`SETTLE_TIME`]. Fails after [`SETTLE_DEADLINE`].
pub(crate) fn settle(sink: &Sink) -> Result<()> {
    let start = Instant::now();
    let (mut arrived, mut last_change) = (sink.seen()?.arrived.packets, Instant::now());
    while last_change.elapsed() < SETTLE_TIME {
        if start.elapsed() > SETTLE_DEADLINE {
            bail!(
                "frames still arrive at the sink {} s after the last was sent",
                SETTLE_DEADLINE.as_secs()
            );
        }
        thread::sleep(Duration::from_millis(20));
        let now = sink.seen()?.arrived.packets;
        if now != arrived {
            (arrived, last_change) = (now, Instant::now());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_lock_of_a_file_names_the_process_that_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        // A longer number that a process left behind.
        fs::write(&path, "12345678901234567890").unwrap();
        let lock = lock_file(&path).unwrap();
        let error = lock_file(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        drop(lock);
        lock_file(&path).unwrap();
    }

    #[test]
    fn scratch_folder_may_be_locked_twice_by_one_process() {
        let folder = tempfile::tempdir().unwrap();
        lock_scratch(folder.path()).unwrap();
        lock_scratch(folder.path()).unwrap();
        assert!(lock_file(&folder.path().join("lock")).is_err());
    }

    #[test]
    fn missing_pktgen_is_replaced_by_live_frames_with_reason() {
        let missing = || Err(xdpfwd_lab::Error::NoPktgen { cause: "no such module".into() });
        let generator = GeneratorUse::new(GeneratorName::Pktgen, missing());
        assert_eq!(generator.kind(), GeneratorKind::Live);
        let reason = generator.reason.unwrap();
        for part in ["no such module", "modprobe pktgen", "CONFIG_NET_PKTGEN"] {
            assert!(reason.contains(part), "{reason}");
        }
        let generator = GeneratorUse::new(GeneratorName::Pktgen, Ok(()));
        assert_eq!((generator.kind(), generator.reason), (GeneratorKind::Pktgen, None));
    }
}
