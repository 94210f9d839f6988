//! TCP through xdpfwd with iperf3, in a lab with [addresses](xdpfwd_lab::ChainBuilder::addresses).

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use xdpfwd_lab::{Chain, Namespace};

use super::TIMEOUT;

pub const GEN_ADDRESS: &str = "10.77.0.1";
pub const SINK_ADDRESS: &str = "10.77.0.2";

/// Runs iperf3 in both directions, one after the other, with four connections, for an amount such
/// as `["--time", "2"]`. Returns the received bytes.
pub fn transfer_both_ways(lab: &Chain, amount: [&str; 2]) -> [u64; 2] {
    let mut server = lab.sink().command("iperf3");
    let server = server
        .args(["--server", "--port", "5301"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server(server);
    wait_for_server(lab.gen_());
    [&[][..], &["--reverse"]].map(|direction| {
        let mut client = lab.gen_().command("iperf3");
        client
            .args(["--client", SINK_ADDRESS, "--port", "5301"])
            .args(amount)
            .args(["--parallel", "4", "--json"])
            .args(direction);
        let output = client.output().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(json.get("error").is_none(), "{json}");
        json["end"]["sum_received"]["bytes"].as_u64().unwrap()
    })
}

/// The server, which ends on drop, also if the test fails.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // `ip netns exec` does not fork, so this is the pid of iperf3.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for_server(from: &Namespace) {
    let address: SocketAddr = format!("{SINK_ADDRESS}:5301").parse().unwrap();
    let deadline = Instant::now() + TIMEOUT;
    // This connection does not end the server: iperf3 ignores one that closes without data.
    while from
        .run(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err())
        .unwrap()
    {
        assert!(Instant::now() < deadline, "iperf3 --server does not listen");
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(Duration::from_millis(200));
}
