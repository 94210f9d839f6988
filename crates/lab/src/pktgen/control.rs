//! pktgen's files in /proc/net/pktgen.

use std::{fs, path::Path, process::Command};

use crate::{Error, tool};

/// The folder of the calling *thread's* network namespace: `/proc/net` shows that of the process.
pub(crate) const DIRECTORY: &str = "/proc/thread-self/net/pktgen";

/// Checks for pktgen's files, and loads the module if they are missing.
pub(crate) fn check_available() -> Result<(), Error> {
    let control = Path::new(DIRECTORY).join("pgctrl");
    if control.exists() {
        return Ok(());
    }
    let loaded = tool::run(Command::new("modprobe").arg("pktgen"));
    match loaded {
        _ if control.exists() => Ok(()),
        Ok(_) => Err(Error::NoPktgen { cause: "/proc/net/pktgen is missing".into() }),
        Err(Error::Command { stderr, .. }) => Err(Error::NoPktgen { cause: stderr }),
        Err(error) => Err(Error::NoPktgen { cause: error.to_string() }),
    }
}

/// Returns the name of a core's thread.
pub(crate) fn thread_name(core: usize) -> String {
    format!("kpktgend_{core}")
}

/// Writes a line to a file of pktgen.
pub(crate) fn write(file: &str, line: &str) -> Result<(), Error> {
    let path = Path::new(DIRECTORY).join(file);
    fs::write(&path, format!("{line}\n"))
        .map_err(Error::io(format!("writing `{line}` to pktgen's file {file}")))
}

pub(crate) fn read(file: &str) -> Result<String, Error> {
    let path = Path::new(DIRECTORY).join(file);
    fs::read_to_string(&path).map_err(Error::io(format!("reading pktgen's file {file}")))
}

/// Fails if pktgen has devices in this namespace: `start` would start them too.
pub(crate) fn check_unused() -> Result<(), Error> {
    let entries = fs::read_dir(DIRECTORY).map_err(Error::io("reading /proc/net/pktgen"))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("reading /proc/net/pktgen"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("kpktgend_") {
            let devices = devices(&read(&name)?);
            if !devices.is_empty() {
                return Err(Error::Value {
                    parameter: "configuration of pktgen",
                    value: format!("{name} already has {}", devices.join(", ")),
                    accepted: format!(
                        "stop its user, or run: echo rem_device_all > /proc/net/pktgen/{name}"
                    ),
                });
            }
        }
    }
    Ok(())
}

/// Fails if a core has no thread.
pub(crate) fn check_core(core: usize) -> Result<(), Error> {
    if Path::new(DIRECTORY).join(thread_name(core)).exists() {
        return Ok(());
    }
    Err(Error::Value {
        parameter: "core for pktgen",
        value: core.to_string(),
        accepted: "use the number of an online core, see `nproc`".into(),
    })
}

/// Returns the devices in the file of a thread.
fn devices(thread: &str) -> Vec<String> {
    let lists = thread
        .lines()
        .filter_map(|line| line.strip_prefix("Running: ").or(line.strip_prefix("Stopped: ")));
    lists.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_lists_running_and_stopped_devices() {
        assert_eq!(devices("Running: a@0 \nStopped: b \nResult: NA\n"), ["a@0", "b"]);
        assert!(devices("Running: \nStopped: \nResult: OK: rem_device_all\n").is_empty());
    }
}
