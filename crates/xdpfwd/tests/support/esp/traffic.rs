//! Sends frames, and runs iperf3.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{LinkAddr, MsgFlags, sendto};
use serde_json::Value;
use xdpfwd_lab::{Namespace, Traffic};
use xdpfwd_testkit::lab::sh;

use super::lab::Lab;
use crate::support::wire::packet_socket;
use crate::support::{TIMEOUT, until};

/// Sends frames. Pauses after every 32 frames so that no queue overflows.
pub fn inject<'a>(
    namespace: &Namespace,
    interface: &str,
    frames: impl IntoIterator<Item = &'a Vec<u8>>,
) {
    let (socket, address) = packet_socket(namespace, interface, None);
    for (index, frame) in frames.into_iter().enumerate() {
        send(&socket, &address, frame);
        if index % 32 == 31 {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn send(socket: &OwnedFd, address: &LinkAddr, frame: &[u8]) {
    while let Err(error) = sendto(socket.as_raw_fd(), frame, address, MsgFlags::empty()) {
        match error {
            Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR => {
                thread::sleep(Duration::from_millis(1))
            }
            error => panic!("sendto: {error}"),
        }
    }
}

/// A thread that sends the lab's test frames through a packet socket. It sleeps between bursts to
/// leave CPU time to other tasks.
pub struct Sender {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Sender {
    /// Sends 100-byte frames in 16 flows, at `rate` packets per second, until `count` packets or
    /// [`stop`](Self::stop). `first_number` is the first sequence number; the sink expects
    /// ascending ones.
    pub fn start(
        namespace: &Namespace,
        interface: &str,
        rate: u64,
        first_number: u64,
        count: Option<u64>,
    ) -> Self {
        Self::start_traffic(
            &Traffic::new().size(100),
            namespace,
            interface,
            rate,
            first_number,
            count,
        )
    }

    fn start_traffic(
        traffic: &Traffic,
        namespace: &Namespace,
        interface: &str,
        rate: u64,
        first_number: u64,
        count: Option<u64>,
    ) -> Self {
        const FLOWS: u64 = 16;
        let (socket, address) = packet_socket(namespace, interface, None);
        let (stop, traffic) =
            (Arc::new(AtomicBool::new(false)), traffic.clone().flows(FLOWS as u32));
        let should_stop = Arc::clone(&stop);
        let work = move || {
            let start = Instant::now();
            let mut sent = 0;
            // Packets that should have been sent by now. After a long delay, this grows by only 64
            // per iteration, so that the backlog is not sent at once.
            let mut due = 0;
            while count.is_none_or(|count| sent < count) && !should_stop.load(Ordering::Relaxed) {
                let scheduled =
                    (start.elapsed().as_micros() as u64).saturating_mul(rate) / 1_000_000;
                due = scheduled.min(due + 64).max(due);
                let burst =
                    due.saturating_sub(sent).min(count.map_or(u64::MAX, |count| count - sent));
                for _ in 0..burst {
                    send(
                        &socket,
                        &address,
                        &traffic.frame((sent % FLOWS) as u32, first_number + sent).bytes(),
                    );
                    sent += 1;
                }
                thread::sleep(Duration::from_millis(3));
            }
            sent
        };
        Self { stop, thread: thread::spawn(work) }
    }

    /// Waits until the thread has sent `count` packets. Returns the number of sent packets.
    pub fn finish(self) -> u64 {
        self.thread.join().unwrap()
    }

    /// Returns the number of sent packets.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }
}

/// A process `iperf3 --server` on the receiving host (namespace sink), killed on drop.
pub struct Iperf3Server(Child);

impl Iperf3Server {
    pub fn start(lab: &Lab) -> Self {
        let mut server = lab.namespaces.sink().command("iperf3");
        server.args(["--server", "--port", "5301"]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(
            server
                .spawn()
                .unwrap_or_else(|error| panic!("iperf3: {error} (`make test` installs it)")),
        );
        until("iperf3 --server listens", || {
            sh(lab.namespaces.sink(), "ss -Htln").contains(":5301")
        });
        server
    }

    /// Runs `iperf3 --client` on the host gen. Returns the object `end` of its JSON output.
    #[track_caller]
    pub fn run_client(&self, lab: &Lab, address: &str, arguments: &[&str]) -> Value {
        let mut client = lab.namespaces.gen_().command("iperf3");
        client.args(["--client", address, "--port", "5301", "--json"]).args(arguments);
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let output = client.output().unwrap();
            let mut json: Value = serde_json::from_slice(&output.stdout).unwrap();
            let error = json["error"].as_str().unwrap_or_default();
            if error.is_empty() {
                return json["end"].take();
            }
            // The server may still be busy with the previous client.
            let is_busy = error.contains("server is busy") || error.contains("reset by peer");
            assert!(is_busy && Instant::now() < deadline, "{address} {arguments:?}: {error}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Iperf3Server {
    fn drop(&mut self) {
        // `ip netns exec` does not fork, so this is the pid of iperf3.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
