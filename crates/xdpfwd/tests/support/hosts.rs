//! Two hosts, `left` and `right`, that are connected to ports of xdpfwd by veths, which can be
//! removed and created again. The ports' interfaces are `lan0` and `wan0`; the hosts ping each
//! other.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use xdpfwd_lab::Namespace;
use xdpfwd_testkit::lab::try_ping;

use super::{Running, TIMEOUT, XDPFWD, cross_connect_between, ip_batch, until};

pub const PORTS: [&str; 2] = ["lan0", "wan0"];
const HOSTS: [&str; 2] = ["left0", "right0"];
pub const RIGHT: &str = "10.9.0.2";

pub struct Network {
    pub forwarder: Namespace,
    pub hosts: [Namespace; 2],
    /// The number of queues of interfaces that are created from now on.
    pub queues: u16,
}

impl Network {
    pub fn new(queues: u16) -> Self {
        let create = |label| {
            let namespace = Namespace::create(label);
            namespace.unwrap_or_else(|error| {
                panic!("{error}\n(tests named root_* need root: `make test`)")
            })
        };
        let network =
            Self { forwarder: create("fwd"), hosts: ["left", "right"].map(create), queues };
        [0, 1].into_iter().for_each(|side| network.connect(side));
        network
    }

    /// Creates the veth of a host, as it was before: a host keeps its addresses, as a machine
    /// behind a NIC would.
    pub fn connect(&self, side: usize) {
        let (port, host, queues) = (PORTS[side], HOSTS[side], self.queues);
        let number = side + 1;
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        ip_batch(
            Some(&self.forwarder),
            &format!(
                "link add {port} {queues} type veth peer name {host} {queues} netns {}\n\
                 link set {port} up\n",
                self.hosts[side].name()
            ),
        );
        ip_batch(
            Some(&self.hosts[side]),
            &format!(
                "link set {host} address 02:00:00:00:00:0{number}\n\
                 link set {host} up\n\
                 address add 10.9.0.{number}/24 dev {host}\n"
            ),
        );
    }

    pub fn disconnect(&self, side: usize) {
        ip_batch(Some(&self.forwarder), &format!("link del {}\n", PORTS[side]));
    }

    pub fn config(&self, engine: &str) -> String {
        cross_connect_between(PORTS, self.queues, engine)
    }

    pub fn start(&self, config: &str) -> Running {
        Running::try_start_in(&[XDPFWD], &self.forwarder, config)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until the hosts reach each other through xdpfwd.
    #[track_caller]
    pub fn wait_until_forwarding(&self, running: &mut Running) {
        until("the left host reaches the right host", || {
            running.forwarder.check_running().unwrap();
            try_ping(&self.hosts[0], RIGHT, &["-c1", "-W1"]).status.success()
        });
    }

    /// Sends packets in both directions until the result is dropped.
    pub fn load(&self) -> Load {
        self.load_of(56)
    }

    /// The same, with a number of bytes in each packet.
    pub fn load_of(&self, bytes: u32) -> Load {
        let mut ping = self.hosts[0].command("ping");
        let ping = ping.args(["-q", "-i", "0.002", "-s", &bytes.to_string(), RIGHT]);
        Load(ping.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

/// A running `ping`.
pub struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        // Not reaped yet, so no other process has this pid.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// Returns the last interval report.
pub fn report(running: &Running) -> Value {
    let line = running.forwarder.last_line(|line| line.contains(r#""type":"interval""#)).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[track_caller]
pub fn wait_for_report(running: &Running, condition: &str, holds: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds(&report(running)) {
        assert!(
            Instant::now() < deadline,
            "no report in which {condition}; the last: {:#}; stderr: {:#?}",
            report(running),
            running.forwarder.stderr()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Stops xdpfwd. Asserts that every frame is accounted for and none is out of use, and that the
/// port `wan` was lost `losses` times.
#[track_caller]
pub fn stop(running: Running, losses: u64) -> Value {
    // Frames whose packets the kernel was still sending return about a second later.
    wait_for_report(&running, "no frame is quarantined", |report| {
        report["frames"]["quarantined"] == 0
    });
    let log = running.forwarder.stderr();
    let (exit, final_report) = running.stop();
    let json = final_report.json;
    assert_eq!(exit.status.code(), Some(0), "{log:#?}");
    let frames = &json["frames"];
    assert_eq!((&frames["leaked"], &frames["quarantined"]), (&0.into(), &0.into()), "{frames}");
    let user_space = ["pool", "fill"].map(|key| frames[key].as_u64().unwrap());
    assert_eq!(user_space.iter().sum::<u64>(), frames["total"], "{frames}");
    assert_eq!(json["ports"][1]["losses"], losses, "{:#}\n{log:#?}", json["ports"]);
    assert_eq!(json["ports"][1]["state"], "up");
    assert_eq!(json["kernel"]["invalid_descriptors"], 0, "{json}");
    json
}
