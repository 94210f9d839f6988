//! Valid configurations and their plans.

use std::sync::Arc;

use xdpfwd_engine::{Io, Keep, KernelLedgerMode, Mode, Plan, PortLoss, PortPlan, Qdisc};
use xdpfwd_pipeline::{Idle, PortId};
use xdpfwd_xsk::HugePages;

use super::{MINIMAL, plan};

#[test]
fn missing_keys_have_defaults_in_plan() {
    let (plan, warnings) = plan(MINIMAL).unwrap();
    assert_eq!(warnings.to_string(), "");
    let Plan {
        mode,
        workers,
        busy_poll,
        idle,
        ledger,
        kernel_ledger,
        on_port_loss,
        umem,
        ports,
        paths,
        control,
    } = plan;
    assert_eq!((kernel_ledger, on_port_loss), (KernelLedgerMode::Off, PortLoss::Wait));
    assert_eq!(control, None);
    assert_eq!(
        (mode, workers, busy_poll, idle, ledger),
        (Mode::Auto, vec![None], false, Idle::Poll, true)
    );
    assert_eq!((umem.frame_size, umem.frames, umem.huge_pages), (2048, 16384, HugePages::Auto));
    let port = |name: &str, interface: &str| PortPlan {
        name: name.into(),
        interface: interface.into(),
        io: Io::AfXdp,
        queues: 1,
        keep: Keep::new(),
        promiscuous: true,
        qdisc: Qdisc::Bypass,
    };
    assert_eq!(ports, [port("lan", "eth1"), port("wan", "eth2")]);
    let [path] = paths.as_slice() else { panic!("{paths:?}") };
    assert_eq!((path.from, path.to, path.stages.len()), (PortId(0), PortId(1), 0));
}

#[test]
fn configured_values_are_in_plan() {
    let text = r#"
        [engine]
        mode = "skb"
        cores = [3, 1]
        busy_poll = true
        idle = "spin"
        ledger = false
        kernel_ledger = "exact"
        on_port_loss = "exit"
        control = "/run/xdpfwd/a.sock"
        [umem]
        frame_size = 0x1000
        frames = 1_024
        huge_pages = "off"
        [[port]]
        name = "a"
        interface = "multi1"
        queues = 8
        io = "af_xdp"
        keep = ["nd", "arp", "tcp/22", "vlan/4094", "udp/1"]
        [[port]]
        name = "b-2_B"
        interface = "multi2"
        queues = 8
        io = "packet-mmsg"
        [[path]]
        from = "b-2_B"
        to = "a"
        stages = ["swap", "hop", "swap"]
        [[path]]
        from = "a"
        to = "a"
        stages = ["swap"]
        [stage.swap]
        kind = "mac-swap"
        [stage.hop]
        kind = "set-mac"
        source = "02:00:00:00:00:01"
    "#;
    let (plan, warnings) = plan(text).unwrap();
    assert_eq!(warnings.to_string(), "");
    assert_eq!(
        (plan.mode, plan.workers, plan.busy_poll),
        (Mode::Skb, vec![Some(3), Some(1)], true)
    );
    assert!(!plan.ledger);
    assert_eq!((plan.kernel_ledger, plan.on_port_loss), (KernelLedgerMode::Exact, PortLoss::Exit));
    assert_eq!(plan.control, Some("/run/xdpfwd/a.sock".into()));
    assert_eq!((plan.idle, plan.umem.frame_size, plan.umem.frames), (Idle::Spin, 4096, 1024));
    assert_eq!(plan.umem.huge_pages, HugePages::Off);
    assert_eq!(plan.ports.iter().map(|port| port.queues).collect::<Vec<_>>(), [8, 8]);
    assert_eq!(
        plan.ports.iter().map(|port| port.io).collect::<Vec<_>>(),
        [Io::AfXdp, Io::PacketMmsg]
    );
    let keep =
        |port: usize| plan.ports[port].keep.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        (keep(0).join(" "), keep(1).join(" ")),
        ("arp nd tcp/22 udp/1 vlan/4094".into(), String::new())
    );
    let [b_to_a, a_to_a] = plan.paths.as_slice() else { panic!("{:?}", plan.paths) };
    assert_eq!(
        ((b_to_a.from, b_to_a.to), (a_to_a.from, a_to_a.to)),
        ((PortId(1), PortId(0)), (PortId(0), PortId(0)))
    );
    let names: Vec<_> = b_to_a.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["swap", "hop", "swap"]);
    assert_eq!(b_to_a.stages[1].plan.summary(), "sets MAC source 02:00:00:00:00:01");
    assert!(
        Arc::ptr_eq(&b_to_a.stages[0].plan, &a_to_a.stages[0].plan),
        "both paths share the plan of the stage `swap`"
    );
}
