//! State files on a full disk, with a limited file size, and after SIGKILL.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use xdpfwd_testkit::process::run;

use crate::support::esp::{Lab, Setup, drops, inject, latest, new_state};
use crate::support::socket::Socket;
use crate::support::{Config, Running, XDPFWD, stderr, until};
use crate::{SELECT_10_77, drop_counts, drops_of, for_both_sides, stop};

use super::inbound::encapsulate;

/// A small file system in memory, unmounted on drop.
struct Disk(PathBuf);

impl Disk {
    fn mount(lab: &Lab, size: &str) -> Self {
        let path = lab.folder.join("disk");
        fs::create_dir(&path).unwrap();
        let options = format!("size={size},mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&path));
        Self(path)
    }

    /// Writes a file until there is no space. Returns its path.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filling");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[1; 512]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

struct Case {
    lab: Lab,
    /// The configuration of side 1.
    config: String,
    /// ESP packets that side 0 has sent to side 1.
    frames: Vec<Vec<u8>>,
}

impl Case {
    /// Creates a lab with ESP packets for side 1. `state` creates the state file of side 1 and
    /// returns its path; `engine` is the text in the table `[engine]` of side 1.
    fn new(state: impl FnOnce(&Lab) -> PathBuf, engine: &str) -> Self {
        let setup = Setup {
            seal_sa: for_both_sides(SELECT_10_77),
            engine: [String::new(), engine.to_owned()],
            ..Setup::default()
        };
        let lab = Lab::with_silent_hosts(1);
        lab.separate_taps();
        let state = state(&lab);
        let sender = lab.start_one(&setup, 0);
        let frames = encapsulate(&lab, &sender, 1, 200);
        stop(sender);
        let default_path = format!("{:?}", lab.state_file(1));
        let config = setup.config(&lab, 1).replace(&default_path, &format!("{state:?}"));
        Self { lab, config, frames }
    }

    fn start(&self) -> Running {
        Running::try_start_in(&[XDPFWD], self.lab.namespaces.fwd(), &self.config)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Checks that xdpfwd refuses to start on side 1. Returns the error.
    fn start_error(&self) -> String {
        let config = Config::new(&self.config);
        let arguments = ["--config", config.path(), "--duration", "0.2"];
        let output = self.lab.namespaces.fwd().command(XDPFWD).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        stderr(&output)
    }
}

/// Writes to the state file need no free space, so after a full disk, a restart rejects replays.
#[test]
fn full_disk_loses_no_received_number() {
    let mut disk = None;
    let state = |lab: &Lab| {
        let disk = disk.insert(Disk::mount(lab, "32k"));
        new_state(&disk.0.join("1.state"));
        disk.0.join("1.state")
    };
    let case = Case::new(state, "");
    let disk = disk.unwrap();
    let running = case.start();
    let filling = disk.fill();
    let frames = &case.frames[..20];
    assert_eq!(drops_of(&case.lab, &running, frames), drop_counts([]));
    stop(running);
    fs::remove_file(filling).unwrap();
    let running = case.start();
    let dropped: u64 = drops_of(&case.lab, &running, frames).values().sum();
    assert_eq!(dropped, 20, "replayed packets were accepted");
    stop(running);
}

#[test]
fn start_on_full_disk_converts_no_old_file_and_names_remedy() {
    let mut disk = None;
    let state = |lab: &Lab| {
        let disk = disk.insert(Disk::mount(lab, "32k"));
        let path = disk.0.join("1.state");
        fs::write(&path, "version = 1\nepoch = 7\n# end\n").unwrap();
        path
    };
    let case = Case::new(state, "");
    let disk = disk.unwrap();
    let path = disk.0.join("1.state");
    let filling = disk.fill();
    let before = fs::read(&path).unwrap();
    let error = case.start_error();
    assert!(error.contains("cannot be written: No space left on device"), "{error}");
    assert!(error.contains(&format!("df {}", disk.0.display())), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    fs::remove_file(filling).unwrap();
    stop(case.start());
    assert!(fs::read_to_string(&path).unwrap().contains("version = 2\nwrite_failed = false\n"));
}

/// Limits the size of files that xdpfwd writes. Sets only the soft limit, which can be raised
/// again.
fn limit_file_size(running: &Running, bytes: &str) {
    let pid = running.forwarder.pid().to_string();
    run(Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]));
}

/// Injects packets, from the index `from`, until one is dropped as `state_file`. Returns the index
/// of the next packet.
fn inject_until_refused(case: &Case, running: &Running, from: usize) -> usize {
    let mut next = from;
    until("packets are refused", || {
        inject(&case.lab.wire, "tap1", [&case.frames[next]]);
        next += 1;
        std::thread::sleep(std::time::Duration::from_millis(20));
        drops(&latest(running)).get("state_file").is_some_and(|count| *count > 0)
    });
    next
}

fn accept_state(path: &Path) -> std::process::Output {
    Command::new(XDPFWD).args(["esp", "accept-state"]).arg(path).output().unwrap()
}

#[test]
fn failed_write_is_reported_everywhere_and_refuses_next_start() {
    let socket = Socket::new("state");
    let engine = format!("control = {:?}", socket.path());
    let case = Case::new(|lab| lab.state_file(1), &engine);
    let state = case.lab.state_file(1);
    let running = case.start();
    assert_eq!(socket.query("status")["faults"], serde_json::json!([]));
    assert_eq!(drops_of(&case.lab, &running, &case.frames[..20]), drop_counts([]));
    // Now xdpfwd can write only the header of the file, in which it marks a failed write.
    limit_file_size(&running, "4096");
    let next = inject_until_refused(&case, &running, 20);
    let expected =
        ["cannot be written: File too large", "inbound packets are dropped as state_file"];
    let assert_fault = |text: &str| {
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
    };
    for text in [
        socket.query("status")["faults"].to_string(),
        socket.query("stats")["faults"].to_string(),
        socket.query("sa")["sas"][0]["fault"].to_string(),
        latest(&running)["faults"].to_string(),
        running.forwarder.stderr().join("\n"),
    ] {
        assert_fault(&text);
    }
    for command in ["status", "stats", "sa"] {
        assert_fault(&String::from_utf8(socket.ctl(&[command]).stdout).unwrap());
    }
    assert_eq!(running.count_log_lines("cannot be written"), 1, "the failure is logged repeatedly");

    let (exit, report) = running.stop();
    assert_eq!(exit.status.code(), Some(1), "{exit:?}");
    let faults = report.json["faults"].to_string();
    assert!(faults.contains("could be accepted again"), "{faults}");

    let error = case.start_error();
    let command = format!("xdpfwd esp accept-state {}", state.display());
    assert!(error.contains("records a failed write") && error.contains(&command), "{error}");
    assert!(error.contains("xdpfwd esp new-key"), "{error}");
    let output = accept_state(&state);
    assert!(output.status.success(), "{output:?}");
    let running = case.start();
    // Packets that were received before the failure are rejected as replays.
    let dropped: u64 = drops_of(&case.lab, &running, &case.frames[..20]).values().sum();
    assert_eq!(dropped, 20);
    assert_eq!(drops_of(&case.lab, &running, &case.frames[next..next + 5]), drop_counts([]));
    stop(running);
}

#[test]
fn disk_that_works_again_clears_the_fault() {
    let case = Case::new(|lab| lab.state_file(1), "");
    let running = case.start();
    limit_file_size(&running, "0");
    let next = inject_until_refused(&case, &running, 0);
    limit_file_size(&running, "unlimited");
    until("the fault ends", || latest(&running)["faults"] == serde_json::json!([]));
    assert_eq!(drops_of(&case.lab, &running, &case.frames[next..next + 20]), drop_counts([]));
    stop(running);
    let running = case.start();
    let dropped: u64 = drops_of(&case.lab, &running, &case.frames[..next + 20]).values().sum();
    assert_eq!(dropped, next as u64 + 20);
    stop(running);
}

#[test]
fn kill_leaves_state_that_starts_and_rejects_received_packets() {
    let case = Case::new(|lab| lab.state_file(1), "");
    let running = case.start();
    assert_eq!(drops_of(&case.lab, &running, &case.frames[..20]), drop_counts([]));
    let path = case.lab.state_file(1);
    until("the progress is written", || {
        fs::read_to_string(&path).unwrap().contains("highest = 20\n")
    });
    let mut running = running;
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait();
    let running = case.start();
    let dropped: u64 = drops_of(&case.lab, &running, &case.frames[..20]).values().sum();
    assert_eq!(dropped, 20);
    stop(running);
}
