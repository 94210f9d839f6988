//! Network namespaces.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Error, require_root, tool};

const DIRECTORY: &str = "/run/netns";
const PREFIX: &str = "xdpfwd-";

static NEXT_NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network namespace. Drop removes it, unless it belongs to a kept lab.
///
/// The kernel frees a removed namespace and its veths only when the last process inside has ended.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    keep: bool,
}

impl Namespace {
    /// Creates the namespace `xdpfwd-<pid>-<n>-<label>`; `label` must consist of lower-case
    /// letters.
    ///
    /// # Errors
    ///
    /// Not root, an invalid label, or the error of `ip netns add`.
    pub fn create(label: &str) -> Result<Self, Error> {
        if label.is_empty() || !label.bytes().all(|b| b.is_ascii_lowercase()) {
            return Err(Error::Value {
                parameter: "namespace label",
                value: format!("{label:?}"),
                accepted: "use lower-case letters only".into(),
            });
        }
        let n = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let keep = false;
        Self::add(format!("{PREFIX}{}-{n}-{label}", std::process::id()), keep)
    }

    /// Creates the namespace `xdpfwd-<lab>-<label>`, which stays until [`crate::take_down`].
    pub(crate) fn create_kept(lab: &str, label: &str) -> Result<Self, Error> {
        let keep = true;
        Self::add(kept_name(lab, label)?, keep)
    }

    fn add(name: String, keep: bool) -> Result<Self, Error> {
        require_root("creating a network namespace")?;
        tool::ip(&["netns", "add", &name])?;
        Ok(Self { name, keep })
    }

    /// Returns the name, as `ip netns` prints it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns a command that runs `program` inside, through `ip netns exec`. `program` has the
    /// process ID of the started command, because `ip` replaces itself.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs `work` on a new thread inside the namespace.
    ///
    /// # Errors
    ///
    /// The namespace cannot be entered, or `work` panicked.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let handle = self.handle()?;
        thread::scope(|scope| {
            thread::Builder::new()
                .name("lab-namespace".into())
                .spawn_scoped(scope, move || handle.enter().map(|()| work()))
                .map_err(Error::io("starting a thread"))?
                .join()
                .map_err(|_| Error::Panicked("Namespace::run"))?
        })
    }

    pub(crate) fn handle(&self) -> Result<NamespaceHandle, Error> {
        let path = Path::new(DIRECTORY).join(&self.name);
        let file = File::open(&path).map_err(Error::io(format!("opening {}", path.display())))?;
        Ok(NamespaceHandle(Some(file), path))
    }

    pub(crate) fn ip(&self, arguments: &[&str]) -> Result<String, Error> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments);
        tool::ip(&all)
    }

    /// `path` is relative to `/proc/sys/net`.
    pub(crate) fn sysctl(&self, path: &str, value: &str) -> Result<(), Error> {
        let path = PathBuf::from("/proc/sys/net").join(path);
        // A kernel without IPv6 does not have the file.
        self.run(|| if path.exists() { fs::write(&path, value) } else { Ok(()) })?
            .map_err(Error::io(format!("writing {value} to {}", path.display())))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = tool::ip(&["netns", "del", &self.name])
        {
            crate::print_error(&format!("xdpfwd-lab: {error}"));
        }
    }
}

/// An open namespace, with its path for error messages. Without a file, [`Self::enter`] does
/// nothing.
#[derive(Debug)]
pub(crate) struct NamespaceHandle(Option<File>, PathBuf);

impl NamespaceHandle {
    pub(crate) fn current() -> Self {
        Self(None, PathBuf::new())
    }

    pub(crate) fn enter(&self) -> Result<(), Error> {
        match &self.0 {
            Some(file) => setns(file, CloneFlags::CLONE_NEWNET)
                .map_err(Error::nix(format!("entering {}", self.1.display()))),
            None => Ok(()),
        }
    }
}

/// Removes the namespaces of ended processes, and returns the namespaces' names.
///
/// The names have the exact pattern `xdpfwd-<pid>-<n>-<label>`, where process `<pid>` does not
/// exist. First ends the processes inside, which would keep the namespace alive.
///
/// # Errors
///
/// Not root, or the error of `ip netns`.
pub fn sweep() -> Result<Vec<String>, Error> {
    require_root("removing network namespaces")?;
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return Ok(Vec::new()) };
    let mut removed = Vec::new();
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some(pid) = owner_pid(&name) else { continue };
        if Path::new(&format!("/proc/{pid}")).exists() {
            continue;
        }
        match remove(&name) {
            Ok(()) => removed.push(name),
            // Another lab removed it at the same time.
            Err(_) if !Path::new(DIRECTORY).join(&name).exists() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

pub(crate) fn remove(name: &str) -> Result<(), Error> {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let inside = tool::ip(&["netns", "pids", name])?;
        let pids: Vec<i32> = inside.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            // The process may have ended already.
            let _ = kill(Pid::from_raw(pid), signal);
        }
        thread::sleep(Duration::from_millis(300));
    }
    tool::ip(&["netns", "del", name]).map(drop)
}

/// Returns `<pid>` of `xdpfwd-<pid>-<n>-<label>`.
fn owner_pid(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let (pid, n, label) = (parts.next()?, parts.next()?, parts.next()?);
    let is_number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let matches = parts.next().is_none()
        && is_number(pid)
        && is_number(n)
        && !label.is_empty()
        && label.bytes().all(|b| b.is_ascii_lowercase());
    if matches { pid.parse().ok() } else { None }
}

/// Returns the name of a kept lab's namespace. A lab's name starts with a letter, so [`sweep`]
/// never removes its namespaces.
pub(crate) fn kept_name(lab: &str, label: &str) -> Result<String, Error> {
    let is_valid = lab.len() <= 32
        && lab.starts_with(|c: char| c.is_ascii_lowercase())
        && lab.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if is_valid {
        Ok(format!("{PREFIX}{lab}-{label}"))
    } else {
        Err(Error::Value {
            parameter: "lab name",
            value: format!("{lab:?}"),
            accepted: "use a lower-case letter, then up to 31 lower-case letters, digits and '-'"
                .into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{kept_name, owner_pid};

    #[test]
    fn owner_pid_accepts_only_the_exact_name_pattern() {
        assert_eq!(owner_pid("xdpfwd-1234-0-gen"), Some(1234));
        for other in [
            "xdpfwd-play-gen",
            "xdpfwd-1234-gen",
            "xdpfwd-1234-0-",
            "xdpfwd-1234-0-gen-x",
            "xdpfwd-1234-0-Gen",
            "xdpfwd--1-0-gen",
            "xdpfwd-+1-0-gen",
            "xdpfwd-99999999999-0-gen",
            "gen",
            "other-1234-0-gen",
        ] {
            assert_eq!(owner_pid(other), None, "{other}");
        }
    }

    #[test]
    fn kept_name_is_never_swept_and_invalid_name_fails() {
        for lab in ["play", "a", "a-1", "x1234-0"] {
            assert_eq!(owner_pid(&kept_name(lab, "gen").unwrap()), None, "{lab}");
        }
        for lab in ["", "1234-0", "Play", "a/b", "-a", &"a".repeat(33)] {
            assert!(kept_name(lab, "gen").is_err(), "{lab}");
        }
    }
}
