//! The lab: the hosts' namespaces, the wire, and the key and state files of both sides.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xdpfwd_lab::{Chain, Namespace};
use xdpfwd_testkit::Folder;
use xdpfwd_testkit::lab::sh;
use xdpfwd_testkit::process::run;
use xdpfwd_testkit::random_filter::SplitMix64;

use super::setup::Setup;
use crate::support::wire::hex;
use crate::support::{Running, XDPFWD, build_lab, until};

/// IPv4 and IPv6 address of the host gen, and below of the host sink. Inner packets have these
/// addresses.
pub const GEN_ADDRESSES: [&str; 2] = ["10.77.0.1", "fd77::1"];
pub const SINK_ADDRESSES: [&str; 2] = ["10.77.0.2", "fd77::2"];

/// Returns an SA's key and salt in hexadecimal, equal in every run.
pub fn key(spi: u32, transform: &str) -> String {
    let bytes = if transform.contains("128") { 20 } else { 36 };
    let mut random = SplitMix64::new(spi.into());
    let key: Vec<u8> = std::iter::repeat_with(|| (random.draw() >> 32) as u8).take(bytes).collect();
    hex(&key)
}

pub struct Lab {
    pub namespaces: Chain,
    pub wire: Namespace,
    pub folder: Folder,
}

impl Lab {
    /// Creates a lab with one queue for each xdpfwd. The hosts have addresses of both IP versions.
    pub fn new() -> Self {
        Self::build(1, true)
    }

    /// Creates a lab with `queues` queues for xdpfwd 0 and one for xdpfwd 1. The hosts have no
    /// addresses and send nothing by themselves.
    pub fn with_silent_hosts(queues: u16) -> Self {
        Self::build(queues, false)
    }

    fn build(queues: u16, has_addresses: bool) -> Self {
        let builder = Chain::builder().queues(queues).addresses(has_addresses).ipv6(has_addresses);
        let namespaces = build_lab(builder);
        let wire = Namespace::create("wire").unwrap();
        for namespace in [namespaces.fwd(), &wire] {
            // Only packets from the hosts may be on the wire.
            sh(
                namespace,
                "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
            );
        }
        sh(
            &wire,
            "ip link add bridge type bridge stp_state 0 mcast_snooping 0 && ip link set bridge up",
        );
        // 5 to 8 are the last bytes of the MAC addresses.
        xdpfwd_lab::connect((namespaces.fwd(), "wan0", 5), (&wire, "tap0", 6), queues, 1500)
            .unwrap();
        xdpfwd_lab::connect((namespaces.fwd(), "wan1", 7), (&wire, "tap1", 8), 1, 1500).unwrap();
        let lab = Self { namespaces, wire, folder: Folder::new() };
        lab.connect_wire();
        lab
    }

    pub fn connect_wire(&self) {
        sh(&self.wire, "for tap in tap0 tap1; do ip link set $tap master bridge; done");
        for tap in ["tap0", "tap1"] {
            until(&format!("the bridge forwards from {tap}"), || {
                sh(&self.wire, &format!("bridge link show dev {tap}")).contains("state forwarding")
            });
        }
    }

    /// Stops forwarding between both xdpfwds. Each tap still receives the frames of its xdpfwd.
    pub fn separate_taps(&self) {
        sh(&self.wire, "for tap in tap0 tap1; do ip link set $tap nomaster; done");
    }

    /// Creates the key file if it is missing. Returns its path.
    pub fn key_file(&self, spi: u32, transform: &str) -> PathBuf {
        let path = self.folder.join(format!("{spi:x}-{transform}.key"));
        if !path.exists() {
            self.folder
                .secret(path.file_name().unwrap().to_str().unwrap(), &(key(spi, transform) + "\n"));
        }
        path
    }

    /// Creates the state file if it is missing. Returns its path.
    pub fn state_file(&self, side: usize) -> PathBuf {
        let path = self.folder.join(format!("{side}.state"));
        if !path.exists() {
            new_state(&path);
        }
        path
    }

    /// Removes the state files, so that sequence numbers restart, and flushes route caches.
    pub fn reset(&self) {
        for side in 0..2 {
            let _ = fs::remove_file(self.folder.join(format!("{side}.state")));
        }
        for host in [self.namespaces.gen_(), self.namespaces.sink()] {
            sh(host, "ip route flush cache; ip -6 route flush cache");
        }
    }

    pub fn start(&self, setup: &Setup) -> [Running; 2] {
        [0, 1].map(|side| self.start_one(setup, side))
    }

    #[track_caller]
    pub fn start_one(&self, setup: &Setup, side: usize) -> Running {
        Running::try_start_in(&[XDPFWD], self.namespaces.fwd(), &setup.config(self, side))
            .unwrap_or_else(|error| panic!("{error}"))
    }
}

#[track_caller]
pub fn new_state(path: &Path) {
    let mut command = Command::new(XDPFWD);
    command.args(["esp", "new-state"]).arg(path);
    run(&mut command);
}
