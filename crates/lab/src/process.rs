//! A forwarder process.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::AtomicBool, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{Error, Namespace, require_root, veth};

/// Maximum number of output lines kept: more than two hours at one line per second.
const MAX_LINES: usize = 10_000;
/// Maximum number of lines quoted when a forwarder ends unexpectedly.
const QUOTED_LINES: usize = 20;
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Time between SIGINT and SIGKILL on drop.
const DROP_DEADLINE: Duration = Duration::from_secs(3);

/// A program in a namespace, with its output. Drop ends and reaps it. If this process is killed,
/// the program receives SIGTERM.
#[derive(Debug)]
pub struct Forwarder {
    command: String,
    child: Child,
    status: Option<ExitStatus>,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
    /// The thread that forked the process; it ends when the sender is dropped.
    spawner: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

/// How a forwarder ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwarderExit {
    /// Exit status.
    pub status: ExitStatus,
    /// Whether the process was killed after the deadline.
    pub killed: bool,
}

impl Forwarder {
    /// Starts the program `arguments[0]` inside `namespace`.
    ///
    /// The program has its own process group, so that only the lab receives Ctrl-C. SIGINT and
    /// SIGQUIT have their default action, even if this process ignores them.
    ///
    /// # Errors
    ///
    /// Not root, no arguments, or the start fails. (If the program does not exist, the next wait
    /// returns [`Error::Ended`].)
    pub fn spawn<S: AsRef<str>>(namespace: &Namespace, arguments: &[S]) -> Result<Self, Error> {
        // `ip` executes `setpriv`, which executes the program: the process ID stays the same.
        Self::spawn_with(namespace.command("setpriv"), arguments)
    }

    /// As [`Self::spawn`], in the network namespace of this process.
    ///
    /// # Errors
    ///
    /// As [`Self::spawn`].
    pub fn spawn_here<S: AsRef<str>>(arguments: &[S]) -> Result<Self, Error> {
        Self::spawn_with(Command::new("setpriv"), arguments)
    }

    /// `command` runs `setpriv`.
    fn spawn_with<S: AsRef<str>>(mut command: Command, arguments: &[S]) -> Result<Self, Error> {
        require_root("running a forwarder")?;
        if arguments.is_empty() {
            return Err(Error::Value {
                parameter: "command",
                value: "none".into(),
                accepted: "give a program and its arguments".into(),
            });
        }
        reset_ignored_signals()?;
        let words: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        command.args(["--pdeathsig", "TERM", "--"]).args(&words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);

        // The kernel sends the parent-death signal when the forking *thread* ends.
        let (child_sender, child_receiver) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let spawner = thread::Builder::new()
            .name("lab-forwarder".into())
            .spawn(move || {
                let _ = child_sender.send(command.spawn());
                let _ = released.recv();
            })
            .map_err(Error::io("starting a thread"))?;
        let command_line = words.join(" ");
        let mut child = child_receiver
            .recv()
            .map_err(|_| Error::Panicked("Forwarder::spawn"))?
            .map_err(|cause| Error::Start { command: command_line.clone(), cause })?;
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let mut readers = Vec::new();
        readers.extend(child.stdout.take().map(|pipe| Lines::collect(&stdout, pipe)));
        readers.extend(child.stderr.take().map(|pipe| Lines::collect(&stderr, pipe)));
        Ok(Self {
            command: command_line,
            child,
            status: None,
            stdout,
            stderr,
            readers,
            spawner: Some((release, spawner)),
        })
    }

    /// Returns the process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the last 10000 lines of stdout.
    #[must_use]
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().lines.iter().cloned().collect()
    }

    /// Returns the last 10000 lines of stderr.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().lines.iter().cloned().collect()
    }

    /// Returns the last line of stdout that is `wanted`.
    pub fn last_line(&self, mut wanted: impl FnMut(&str) -> bool) -> Option<String> {
        self.stdout.lock().lines.iter().rev().find(|line| wanted(line)).cloned()
    }

    /// Fails if the process has ended.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`], which quotes the output.
    pub fn check_running(&mut self) -> Result<(), Error> {
        match self.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.exit_error(status)),
        }
    }

    /// Waits for a `wanted` line on stdout, which may be older than the call.
    ///
    /// # Errors
    ///
    /// The process ended ([`Error::Ended`]), or the deadline passed.
    pub fn wait_for_line(
        &mut self,
        deadline: Duration,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Result<String, Error> {
        let start = Instant::now();
        let mut next = 0;
        loop {
            // Read the status before the lines: the last lines of an ended process must be seen.
            let status = self.try_wait()?;
            if status.is_some() {
                self.drain();
            }
            {
                let log = self.stdout.lock();
                let skip = usize::try_from(next - log.dropped.min(next)).unwrap_or(usize::MAX);
                if let Some(line) = log.lines.iter().skip(skip).find(|line| wanted(line)) {
                    return Ok(line.clone());
                }
                next = log.dropped + log.lines.len() as u64;
                let _woken = self
                    .stdout
                    .line_added
                    .wait_timeout(log, POLL_INTERVAL)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if let Some(status) = status {
                return Err(self.exit_error(status));
            }
            if start.elapsed() > deadline {
                return Err(self.timeout("the expected line on stdout", deadline));
            }
        }
    }

    /// Waits until each of `interfaces` has an XDP program, which a forwarder attaches shortly
    /// before it is ready.
    ///
    /// # Errors
    ///
    /// The process ended, or the deadline passed.
    pub fn wait_for_xdp(
        &mut self,
        namespace: &Namespace,
        interfaces: &[&str],
        deadline: Duration,
    ) -> Result<(), Error> {
        let start = Instant::now();
        for interface in interfaces {
            while veth::link(namespace, interface)?.get("xdp").is_none() {
                self.check_running()?;
                if start.elapsed() > deadline {
                    return Err(self.timeout(&format!("an XDP program on {interface}"), deadline));
                }
                thread::sleep(POLL_INTERVAL);
            }
        }
        Ok(())
    }

    /// Sends SIGINT, kills the process after `deadline`, and reads its remaining output.
    ///
    /// # Errors
    ///
    /// Waiting for the process fails.
    pub fn stop(&mut self, deadline: Duration) -> Result<ForwarderExit, Error> {
        if self.try_wait()?.is_none() {
            self.signal(Signal::SIGINT);
        }
        let start = Instant::now();
        let mut killed = false;
        let status = loop {
            if let Some(status) = self.try_wait()? {
                break status;
            }
            if start.elapsed() > deadline && !killed {
                killed = true;
                self.signal(Signal::SIGKILL);
            }
            thread::sleep(POLL_INTERVAL);
        };
        self.drain();
        Ok(ForwarderExit { status, killed })
    }

    /// Signals the process group, as Ctrl-C does, so that a shell's children end too.
    fn signal(&self, signal: Signal) {
        // The process ID is valid only until the process is reaped. ESRCH: it may just have ended.
        if self.status.is_none()
            && let Ok(pid) = i32::try_from(self.child.id())
        {
            let _ = killpg(Pid::from_raw(pid), signal);
        }
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>, Error> {
        if self.status.is_none() {
            self.status = self
                .child
                .try_wait()
                .map_err(Error::io(format!("waiting for `{}`", self.command)))?;
        }
        Ok(self.status)
    }

    /// Waits for the remaining output, but at most 1 s, because a child of the process may keep the
    /// pipe open.
    fn drain(&mut self) {
        let start = Instant::now();
        while self.readers.iter().any(|reader| !reader.is_finished())
            && start.elapsed() < Duration::from_secs(1)
        {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn exit_error(&mut self, status: ExitStatus) -> Error {
        self.drain();
        let mut lines = self.stderr();
        if lines.is_empty() {
            lines = self.stdout();
        }
        let output = lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n");
        Error::Ended { command: self.command.clone(), status, output }
    }

    fn timeout(&self, event: &str, deadline: Duration) -> Error {
        let hint = match self.stderr().last() {
            Some(line) => format!("the last line on stderr: {line}"),
            None => "the program wrote nothing to stderr".into(),
        };
        Error::Timeout {
            event: format!("{event} of `{}`", self.command),
            seconds: deadline.as_secs_f64(),
            hint,
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if let Err(error) = self.stop(DROP_DEADLINE) {
            crate::print_error(&format!("xdpfwd-lab: {error}"));
        }
        if let Some((release, spawner)) = self.spawner.take() {
            drop(release);
            // The thread only waits to be released and cannot panic.
            let _ = spawner.join();
        }
    }
}

/// Gives SIGINT and SIGQUIT their default action in programs that this process starts.
///
/// A shell starts background commands (`make test &` in a script) with both signals ignored, also
/// across exec: the forwarder would not end on SIGINT. Exec resets a signal with a handler to its
/// default action, so replace ignoring by a handler that does nothing.
fn reset_ignored_signals() -> Result<(), Error> {
    let status =
        fs::read_to_string("/proc/self/status").map_err(Error::io("reading /proc/self/status"))?;
    let ignored = ignored_signals(&status);
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        if ignored & (1 << (signal as i32 - 1)) != 0 {
            let unused = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(signal as i32, unused)
                .map_err(Error::io(format!("handling {signal}")))?;
        }
    }
    Ok(())
}

/// Returns the ignored signals in `/proc/PID/status`; bit *n* - 1 stands for signal *n*.
fn ignored_signals(status: &str) -> u64 {
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

/// The last lines of an output, at most [`MAX_LINES`].
#[derive(Debug, Default)]
struct Lines {
    log: Mutex<Log>,
    line_added: Condvar,
}

#[derive(Debug, Default)]
struct Log {
    lines: VecDeque<String>,
    /// Number of older lines, which are no longer in `lines`.
    dropped: u64,
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Log> {
        // The lines stay consistent if another thread panics.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(this: &Arc<Self>, pipe: impl Read + Send + 'static) -> JoinHandle<()> {
        let this = Arc::clone(this);
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let mut log = this.lock();
                log.lines.push_back(String::from_utf8_lossy(&line).into_owned());
                if log.lines.len() > MAX_LINES {
                    log.lines.pop_front();
                    log.dropped += 1;
                }
                this.line_added.notify_all();
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_parses_proc_status() {
        let status =
            "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001006\nSigCgt:\t0000000000000001\n";
        assert_eq!(ignored_signals(status), 1 << 12 | 1 << 2 | 1 << 1);
        assert_eq!(ignored_signals("Name:\tx\n"), 0);
    }
}
