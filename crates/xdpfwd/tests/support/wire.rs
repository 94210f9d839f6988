//! Sends frames on one side of the lab and captures them on the other, with packet sockets
//! (`wire.py`).

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, socket};
use xdpfwd_lab::{Chain, Namespace};

/// A network namespace and the name of an interface in it.
pub type Side<'a> = (&'a Namespace, &'a str);

/// Debian's Python, which has scapy; `PATH` may find another.
pub const PYTHON: &str = "/usr/bin/python3";
const WIRE_PY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/wire.py");

/// Returns how many marks wire.py adds. A mark is a frame of 60 bytes after each window of frames;
/// its arrival shows that no frame of the window is still in flight.
pub fn mark_count(frame_count: usize) -> usize {
    const WINDOW: usize = 32; // as in wire.py
    frame_count.div_ceil(WINDOW)
}

pub fn gen0(lab: &Chain) -> Side<'_> {
    (lab.gen_(), "gen0")
}

pub fn sink0(lab: &Chain) -> Side<'_> {
    (lab.sink(), "sink0")
}

/// Sends frames on one interface. Returns the frames that arrived at another interface, in order.
pub fn send_and_capture(from: Side<'_>, to: Side<'_>, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let output = run_wire_py(from, to, frames);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} -> {}: {stderr}", from.1, to.1);
    String::from_utf8(output.stdout).unwrap().lines().map(unhex).collect()
}

/// Runs wire.py. Returns its output even if it fails.
pub fn run_wire_py(from: Side<'_>, to: Side<'_>, frames: &[Vec<u8>]) -> Output {
    let mut python = Command::new(PYTHON);
    python.args([WIRE_PY, from.0.name(), from.1, to.0.name(), to.1]);
    let mut python =
        python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = frames.iter().map(|frame| hex(frame) + "\n").collect::<String>();
    // wire.py reads all input before it writes, so this cannot deadlock.
    python.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    python.wait_with_output().unwrap()
}

/// Returns an unbound packet socket and an interface's link-layer address. Without a `protocol`,
/// the socket receives nothing.
pub fn packet_socket(
    namespace: &Namespace,
    interface: &str,
    protocol: Option<SockProtocol>,
) -> (OwnedFd, LinkAddr) {
    let open = || {
        let address = getifaddrs().unwrap().find_map(|entry| {
            let address = entry.address.filter(|_| entry.interface_name == interface)?;
            address.as_link_addr().copied()
        });
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, protocol).unwrap();
        (socket, address.unwrap_or_else(|| panic!("no interface {interface}")))
    };
    namespace.run(open).unwrap()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

pub fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|start| u8::from_str_radix(&text[start..start + 2], 16).unwrap())
        .collect()
}
