//! The error for an interface in use names the attached XDP program and a command that removes it.
//! Needs root.

mod support;

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::Link;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use support::{chain, cross_connect, stop};
use xdpfwd_engine::{Control, DataPlane, Keeper, StartError};
use xdpfwd_lab::{Chain, Sink};
use xdpfwd_testkit::lab::ip;

/// An arbitrary XDP program.
const OBJECT: &str = concat!(env!("OUT_DIR"), "/xdpfwd.bpf.o");

/// Tries to start in the calling thread's network namespace.
fn start() -> Result<(), StartError> {
    let control = Control::new().unwrap();
    DataPlane::start(cross_connect(1, None), &control).map(|data_plane| drop(stop(data_plane)))
}

/// Returns the attached program and the command in the error.
fn in_the_way(chain: &Chain) -> (xdpfwd_engine::AttachedProgram, String) {
    let error = chain.fwd().run(start).unwrap().unwrap_err();
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
fn run_it(chain: &Chain, command: &str) {
    let status = chain.fwd().command("sh").args(["-c", command]).status().unwrap();
    assert!(status.success(), "{command}");
    chain.fwd().run(start).unwrap().unwrap_or_else(|error| panic!("after `{command}`: {error}"));
}

#[test]
fn a_program_attached_over_netlink_goes_by_the_command_named() {
    let chain = chain(Chain::builder());
    for place in ["xdp", "xdpgeneric"] {
        ip(chain.fwd(), &format!("link set dev fwd0 {place} obj {OBJECT} sec xdp"));
        let (program, command) = in_the_way(&chain);
        assert_eq!(
            (program.interface.as_str(), program.name.as_deref(), program.place),
            ("fwd0", Some("xdpfwd"), place)
        );
        assert_eq!(program.keeper, Keeper::Nobody(vec![]));
        assert_eq!(command, format!("ip link set dev fwd0 {place} off"));
        run_it(&chain, &command);
    }
}

/// A program on a bridge also blocks its ports, although `ip link show fwd0` does not show it.
#[test]
fn a_program_on_an_interface_above_is_found() {
    let chain = chain(Chain::builder());
    ip(chain.fwd(), "link add br0 type bridge");
    ip(chain.fwd(), "link set dev fwd0 master br0");
    ip(chain.fwd(), &format!("link set dev br0 xdpgeneric obj {OBJECT} sec xdp"));
    // /sys shows the interfaces of the network namespace in which it was mounted.
    let program = chain.fwd().run(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .unwrap();
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).unwrap();
        let error = start().unwrap_err();
        let StartError::AttachedAlready { program: Some(program), .. } = error else {
            panic!("{error}")
        };
        program
    });
    let program = program.unwrap();
    assert_eq!((program.interface.as_str(), program.place), ("br0", "xdpgeneric"));
    // Without that /sys, the error states that the program cannot be seen.
    let error = chain.fwd().run(start).unwrap().unwrap_err().to_string();
    assert!(error.contains("cannot be seen"), "{error}");
    run_it(&chain, "ip link set dev br0 xdpgeneric off");
}

#[test]
fn a_program_that_a_process_holds_is_named_with_it() {
    let chain = chain(Chain::builder());
    let sink = Sink::attach(chain.fwd(), "fwd0").unwrap();
    let (program, command) = in_the_way(&chain);
    let Keeper::Processes(processes) = &program.keeper else { panic!("{program}") };
    let pids: Vec<u32> = processes.iter().map(|process| process.pid).collect();
    assert_eq!(pids, [std::process::id()], "{program}");
    assert_eq!(program.name.as_deref(), Some("sink"));
    assert_eq!(command, format!("kill {}", std::process::id()));
    drop(sink);
    chain.fwd().run(start).unwrap().unwrap();
}

/// The link is pinned in a directory that only one thread sees.
#[test]
fn a_link_without_a_process_is_named() {
    let chain = chain(Chain::builder());
    let pin = || {
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
        assert_eq!(program.keeper, Keeper::Link(id), "{text}");
        assert!(text.ends_with(&format!("`bpftool link detach id {id}` takes it off")), "{text}");
        // Does the same as the command, without bpftool.
        Link::open("/mnt/link").unwrap().detach().unwrap();
        start().unwrap();
    };
    chain.fwd().run(pin).unwrap();
}
