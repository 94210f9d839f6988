//! Runs a data plane in the test process, in a lab with generator and sink.

#![allow(dead_code, unreachable_pub, reason = "each test file uses only some of these items")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use xdpfwd_engine::{
    Control, DataPlane, Event, Mode, PathPlan, Plan, PortPlan, Report, StageOnPath,
};
use xdpfwd_pipeline::{Idle, PortId, StagePlan};
pub use xdpfwd_testkit::lab::chain;
pub use xdpfwd_testkit::process::TIMEOUT;

/// Returns a plan that connects fwd0 and fwd1 in both directions, with one queue per worker.
/// `stage` is on the path from fwd0 to fwd1.
pub fn cross_connect(workers: u16, stage: Option<Arc<dyn StagePlan>>) -> Plan {
    let port = |name: &str, interface: &str| PortPlan {
        name: name.into(),
        interface: interface.into(),
        io: xdpfwd_engine::Io::AfXdp,
        queues: workers,
        keep: xdpfwd_engine::Keep::new(),
        promiscuous: true,
        qdisc: xdpfwd_engine::Qdisc::Bypass,
    };
    let stages = stage
        .into_iter()
        .map(|plan| StageOnPath { name: "tested".into(), plan, in_kernel: false })
        .collect();
    Plan {
        ledger: true,
        kernel_ledger: xdpfwd_engine::KernelLedgerMode::Off,
        on_port_loss: xdpfwd_engine::PortLoss::Wait,
        mode: Mode::Auto,
        workers: vec![None; workers.into()],
        busy_poll: false,
        idle: Idle::Poll,
        umem: xdpfwd_xsk::UmemConfig { frames: 4096, ..xdpfwd_xsk::UmemConfig::default() },
        ports: vec![port("lan", "fwd0"), port("wan", "fwd1")],
        control: None,
        paths: vec![
            PathPlan { from: PortId(0), to: PortId(1), stages },
            PathPlan { from: PortId(1), to: PortId(0), stages: vec![] },
        ],
    }
}

/// Waits until the condition is true. Discards control events meanwhile; a signal fails the test.
#[track_caller]
pub fn wait_until(control: &mut Control, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "the condition was not met within {TIMEOUT:?}");
        let event = control.wait(Instant::now() + Duration::from_millis(5)).unwrap();
        assert!(!matches!(event, Event::Stop(_)), "a signal interrupted the test");
    }
}

/// Stops a data plane and checks that its report accounts for each frame and each received packet.
#[track_caller]
pub fn stop(data_plane: DataPlane) -> Report {
    let report = data_plane.stop();
    let frames = &report.frames;
    let located_frames =
        frames.pool + frames.fill + frames.rx + frames.in_flight + frames.tx + frames.completion;
    assert_eq!(
        located_frames as i64 + frames.leaked,
        frames.total as i64,
        "located and leaked frames are not all frames: {frames:?}"
    );
    assert_eq!(
        (frames.rx, frames.in_flight, frames.tx, frames.completion),
        (0, 0, 0, 0),
        "frames remain after the drain: {frames:?}"
    );
    let received: u64 = report.ports.iter().map(|port| port.rx_packets).sum();
    let sent: u64 = report.ports.iter().map(|port| port.tx_packets).sum();
    let dropped: u64 = report.drops.values().sum();
    assert_eq!(
        received as i64,
        (sent + dropped) as i64 + frames.leaked,
        "some received packets were not transmitted, dropped or leaked: {report:?}"
    );
    for port in &report.ports {
        // In copy mode, the kernel delivers each redirected packet or counts it as lost.
        let received_or_lost = port.rx_packets + port.kernel.rx_ring_full + port.kernel.rx_dropped;
        assert_eq!(
            port.xdp_redirected, received_or_lost,
            "some redirected packets were neither received nor counted as lost: {port:?}"
        );
    }
    report
}
