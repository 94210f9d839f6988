//! A start fails if another XDP program is attached to an interface. The error must name this
//! program and a command that detaches it. Needs root.

mod support;

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::Link;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use support::{chain, cross_connect, stop};
use xdpfwd_engine::{AttachmentHolder, Control, DataPlane, StartError};
use xdpfwd_lab::{Chain, Sink};
use xdpfwd_testkit::lab::ip;

/// The XDP program that the tests attach before the start: a copy of xdpfwd's own.
const OBJECT: &str = concat!(env!("OUT_DIR"), "/xdpfwd.bpf.o");

fn start() -> Result<(), StartError> {
    let control = Control::new().unwrap();
    DataPlane::start(cross_connect(1, None), &control).map(|data_plane| drop(stop(data_plane)))
}

/// Returns the program and the detaching command in the error of a start.
fn failed_start(lab: &Chain) -> (xdpfwd_engine::AttachedProgram, String) {
    let error = lab.fwd().run(start).unwrap().unwrap_err();
    let text = error.to_string();
    let command =
        text.split('`').nth(1).unwrap_or_else(|| panic!("no command in: {text}")).to_owned();
    let StartError::AttachedAlready { interface, program } = error else { panic!("{text}") };
    assert_eq!(interface, "fwd0", "{text}");
    let program = *program.unwrap_or_else(|| panic!("{text}"));
    assert!(text.starts_with(&format!("fwd0 is busy: XDP program {} ", program.id)), "{text}");
    (program, command)
}

#[track_caller]
fn assert_command_enables_start(lab: &Chain, command: &str) {
    let status = lab.fwd().command("sh").args(["-c", command]).status().unwrap();
    assert!(status.success(), "{command}");
    lab.fwd().run(start).unwrap().unwrap_or_else(|error| panic!("after `{command}`: {error}"));
}

#[test]
fn command_in_error_detaches_netlink_program() {
    let lab = chain(Chain::builder());
    for mode in ["xdp", "xdpgeneric"] {
        ip(lab.fwd(), &format!("link set dev fwd0 {mode} obj {OBJECT} sec xdp"));
        let (program, command) = failed_start(&lab);
        assert_eq!(
            (program.interface.as_str(), program.name.as_deref(), program.mode),
            ("fwd0", Some("xdpfwd"), mode)
        );
        assert_eq!(program.holder, AttachmentHolder::Netlink(vec![]));
        assert_eq!(command, format!("ip link set dev fwd0 {mode} off"));
        assert_command_enables_start(&lab, &command);
    }
}

/// The program is attached to the bridge of `fwd0`. `ip link show fwd0` does not show it.
#[test]
fn error_names_program_on_bridge_of_port() {
    let lab = chain(Chain::builder());
    ip(lab.fwd(), "link add br0 type bridge");
    ip(lab.fwd(), "link set dev fwd0 master br0");
    ip(lab.fwd(), &format!("link set dev br0 xdpgeneric obj {OBJECT} sec xdp"));
    // `run` enters the network namespace, but /sys still shows the original one. So `start` finds
    // the bridge over rtnetlink.
    let error = lab.fwd().run(start).unwrap().unwrap_err();
    let StartError::AttachedAlready { program: Some(program), .. } = error else {
        panic!("{error}")
    };
    assert_eq!((program.interface.as_str(), program.mode), ("br0", "xdpgeneric"));
    assert_command_enables_start(&lab, "ip link set dev br0 xdpgeneric off");
}

#[test]
fn error_names_program_and_its_holder_process() {
    let lab = chain(Chain::builder());
    let sink = Sink::attach(lab.fwd(), "fwd0").unwrap();
    let (program, command) = failed_start(&lab);
    let AttachmentHolder::Processes(processes) = &program.holder else { panic!("{program}") };
    let pids: Vec<u32> = processes.iter().map(|process| process.pid).collect();
    assert_eq!(pids, [std::process::id()], "{program}");
    assert_eq!(program.name.as_deref(), Some("sink"));
    assert_eq!(command, format!("kill {}", std::process::id()));
    drop(sink);
    lab.fwd().run(start).unwrap().unwrap();
}

/// The link is pinned in a BPF file system that only the thread of `pin_and_start` sees.
#[test]
fn error_names_pinned_link_that_no_process_holds() {
    let lab = chain(Chain::builder());
    let pin_and_start = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .unwrap();
        mount(Some("bpf"), "/mnt", Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        let index = nix::net::if_::if_nametoindex("fwd0").unwrap();
        let object = libbpf_rs::ObjectBuilder::default().open_file(OBJECT).unwrap().load().unwrap();
        let mut link = object.progs_mut().next().unwrap().attach_xdp(index as i32).unwrap();
        link.pin("/mnt/link").unwrap();
        let fdinfo =
            fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_fd().as_raw_fd())).unwrap();
        let id = fdinfo
            .lines()
            .find_map(|line| line.strip_prefix("link_id:"))
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        drop((link, object));

        let error = start().unwrap_err();
        let text = error.to_string();
        let StartError::AttachedAlready { program: Some(program), .. } = error else {
            panic!("{text}")
        };
        assert_eq!(program.holder, AttachmentHolder::Link(id), "{text}");
        assert!(text.ends_with(&format!("detach it: `bpftool link detach id {id}`")), "{text}");
        // Detach the link as the command does, without bpftool.
        Link::open("/mnt/link").unwrap().detach().unwrap();
        start().unwrap();
    };
    lab.fwd().run(pin_and_start).unwrap();
}
