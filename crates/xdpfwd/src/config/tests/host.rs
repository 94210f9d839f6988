//! Checks of the plan against the host.

use xdpfwd_engine::{LinkUser, TooFewDescriptors};

use super::{MINIMAL, plan_on};
use crate::config::FakeMachine;

/// Returns the errors, or the warnings, of [`MINIMAL`] on the machine.
fn diagnose(machine: &FakeMachine) -> String {
    match plan_on(machine, MINIMAL) {
        Ok((_, warnings)) => warnings.to_string(),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn interface_without_ethernet_is_error_for_every_io() {
    for number in [772, 65534, 768, 776, 778, 512, 280] {
        let mut machine = FakeMachine::new();
        machine.interfaces.get_mut("eth2").unwrap().hardware_type = Some(number.into());
        for io in ["af_xdp", "xsk-rs", "packet", "packet-mmsg", "packet-mmap"] {
            let text = MINIMAL.replace("interface", &format!("io = \"{io}\"\ninterface"));
            let errors = plan_on(&machine, &text).unwrap_err().to_string();
            let expected =
                format!("interface \"eth2\" carries no Ethernet frames (hardware type {number} ");
            assert!(errors.contains(&expected) && errors.lines().count() == 1, "{errors}");
        }
    }
}

#[test]
fn impossible_check_is_warning_with_reason() {
    let mut machine = FakeMachine::new();
    let interface = machine.interfaces.get_mut("eth1").unwrap();
    interface.unchecked = vec!["the hardware type and the MTU: no netlink".to_owned()];
    assert_eq!(
        diagnose(&machine),
        "x.toml:4:13: warning: cannot check the hardware type and the MTU: no netlink (interface \
         \"eth1\")\n"
    );
}

#[test]
fn path_to_smaller_mtu_is_warning_at_the_path() {
    let mut machine = FakeMachine::new();
    machine.interfaces.get_mut("eth2").unwrap().mtu = Some(1400);
    let text = diagnose(&machine);
    assert!(text.starts_with("x.toml:8:1: warning: port lan (eth1) has MTU 1500, "), "{text}");
    machine.interfaces.get_mut("eth1").unwrap().mtu = Some(1280);
    assert_eq!(diagnose(&machine), "");
}

#[test]
fn other_user_of_interface_is_warning_at_the_interface() {
    let mut machine = FakeMachine::new();
    let bond = LinkUser::Controller { name: "bond0".into(), kind: "bond".into() };
    // No path starts at eth2, so only eth1 causes a warning.
    for name in ["eth1", "eth2"] {
        machine.interfaces.get_mut(name).unwrap().users = vec![bond.clone()];
    }
    let text = diagnose(&machine);
    assert!(text.starts_with("x.toml:4:13: warning: eth1 is a port of the bond bond0"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn too_few_descriptors_are_warning() {
    let too_few = TooFewDescriptors { needed: 700, hard: 512 };
    let machine = FakeMachine { too_few_descriptors: Some(too_few), ..FakeMachine::new() };
    assert!(diagnose(&machine).contains("needs 700 file descriptors"));
}

#[test]
fn packet_memory_of_xsk_rs_must_be_multiple_of_huge_page() {
    let check = |frames: u32, io: &str, huge_pages: &str| {
        let umem = format!("[umem]\nframes = {frames}\nhuge_pages = \"{huge_pages}\"\n");
        let ports = MINIMAL.replace("interface", &format!("io = \"{io}\"\ninterface"));
        plan_on(&FakeMachine::new(), &(umem + &ports)).err().map(|errors| errors.to_string())
    };
    let error = check(1536, "xsk-rs", "on").unwrap();
    assert!(error.contains("a multiple of 2 MiB; set frames to a multiple of 1024"), "{error}");
    for (frames, io, huge_pages) in
        [(2048, "xsk-rs", "on"), (1536, "xsk-rs", "auto"), (1536, "af_xdp", "on")]
    {
        assert_eq!(check(frames, io, huge_pages), None);
    }
}
