//! Forwards packets between two interfaces, with swapped MAC addresses, until Ctrl-C. Needs no
//! configuration file. Usage: `cross_connect IF0 IF1 [CORE]`.

#![forbid(unsafe_code)]

use std::env;
use std::error::Error;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use xdpfwd_engine::{
    Control, DataPlane, Event, Keep, KernelLedgerMode, Mode, PathPlan, Plan, PortLoss, PortPlan,
    StageOnPath,
};
use xdpfwd_pipeline::{Idle, PortId};
use xdpfwd_stages::MacSwap;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [lan, wan, core @ ..] = &arguments[..] else {
        return Err("usage: cross_connect IF0 IF1 [CORE]".into());
    };
    let core = core.first().map(|core| core.parse()).transpose()?;
    let port = |interface: &str| PortPlan {
        name: interface.into(),
        interface: interface.into(),
        io: xdpfwd_engine::Io::AfXdp,
        queues: 1,
        keep: Keep::new(),
        promiscuous: true,
        qdisc: xdpfwd_engine::Qdisc::Bypass,
    };
    let path = |from, to| PathPlan {
        from: PortId(from),
        to: PortId(to),
        stages: vec![StageOnPath {
            name: "swap".into(),
            plan: std::sync::Arc::new(MacSwap),
            in_kernel: false,
        }],
    };
    let plan = Plan {
        mode: Mode::Auto,
        workers: vec![core],
        busy_poll: false,
        idle: Idle::Poll,
        ledger: true,
        kernel_ledger: KernelLedgerMode::Off,
        on_port_loss: PortLoss::Wait,
        umem: xdpfwd_xsk::UmemConfig::default(),
        ports: vec![port(lan), port(wan)],
        paths: vec![path(0, 1), path(1, 0)],
        control: None,
    };
    let mut control = Control::new()?;
    let data_plane = DataPlane::start(plan, &control)?;
    let [lan_mode, wan_mode] = [0, 1].map(|port| data_plane.modes()[port].name());
    // Unlike `println!`, does not end the program if the reader of stdout is gone.
    let _ = writeln!(io::stdout(), "{lan} {lan_mode} <-> {wan} {wan_mode}");
    // Ignore other events; `HostChanged` matters only with `keep` rules.
    while !matches!(
        control.wait(Instant::now() + Duration::from_secs(3600))?,
        Event::Stop(_) | Event::Woken
    ) {}
    match writeln!(io::stdout(), "{:#?}", data_plane.stop()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
