//! Checks of ports, paths and workers. On the fake machine, `multi1` and `multi2` have 8 queues,
//! `dual1` has 2 and `eth1` and `eth2` have 1; the properties of `opaque` and `opaque2` are
//! unknown. The cores are 0 to 3.

use super::{MINIMAL, diagnose, diagnose_cases, diagnose_cases_with, plan, plan_on};
use crate::config::FakeMachine;

/// Returns a configuration with the text `engine`, two ports with the additional lines `lan` and
/// `wan`, and a path between them.
fn two_ports(engine: &str, lan: &str, wan: &str) -> String {
    format!(
        "{engine}[[port]]\nname = \"lan\"\n{lan}\n[[port]]\nname = \"wan\"\n{wan}\n[[path]]\nfrom \
         = \"lan\"\nto = \"wan\""
    )
}

fn diagnose_strings(cases: &[String]) -> String {
    diagnose_cases(&cases.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn missing_ports_or_paths_are_errors() {
    assert_snapshot!(diagnose_cases(&[
        "[engine]",
        "port = []\npath = []",
        "[[port]]\nname = \"lan\"\ninterface = \"eth1\"",
        "[[path]]\nfrom = \"lan\"\nto = \"lan\"",
        "[[ports]]\nname = \"lan\"\n[[path]]\nfrom = \"lan\"\nto = \"lan\"",
    ]));
}

#[test]
fn duplicate_port_name_or_interface_is_error() {
    assert_snapshot!(diagnose_strings(&[
        two_ports("", "interface = \"eth1\"", "interface = \"eth1\""),
        two_ports("", "interface = \"eth1\"", "interface = \"eth1-alias\""),
        two_ports("", "interface = \"eth1\"", "interface = \"eth2\"").replace("wan", "lan"),
    ]));
}

#[test]
fn path_with_unknown_port_is_error() {
    assert_snapshot!(diagnose_cases_with(
        MINIMAL,
        &[
            "[[path]]\nfrom = \"wam\"\nto = \"Wan\"",
            "[[path]]\nfrom = \"wan\"\nto = \"route\"",
            "[[path]]\nfrom = \"\"\nto = \"\"\"\nnowhere\"\"\"",
            "[[path]]\nfrom = \"eth1\"\nto = \"a name that is longer than a message should \
             repeat\"",
        ]
    ));
}

#[test]
fn second_path_from_same_port_is_error() {
    assert_snapshot!(diagnose_cases_with(
        MINIMAL,
        &[
            "[[path]]\nfrom = \"lan\"\nto = \"lan\"",
            "[[path]]\nfrom = \"lan\"\nto = \"wan\"",
            "[[path]]\nfrom = \"wan\"\nto = \"lan\"\n[[path]]\nfrom = \"wan\"\nto = \"wan\"",
        ]
    ));
}

#[test]
fn path_with_undefined_stage_is_error() {
    let path = |stages: &str| format!("[[path]]\nfrom = \"wan\"\nto = \"wan\"\nstages = {stages}");
    assert_snapshot!(diagnose_cases_with(
        MINIMAL,
        &[
            &path("[\"edge\"]"),
            &(path("[\"edge\", \"tll\", \"TTL\"]") + "\n[stage.ttl]\nkind = \"ttl\""),
            &path("[\"\", \"a b\", \"a\\nb\", \"\\u001b[31m\"]"),
        ]
    ));
}

#[test]
fn unimplemented_features_are_rejected_as_unknown() {
    assert_snapshot!(diagnose_cases_with(
        MINIMAL,
        &[
            "[engine]\nmetrics = \"127.0.0.1:9184\"\nkeep = [\"arp\"]",
            "[[port]]\nname = \"third\"\ninterface = \"multi1\"\nqueues = 1\nio = \
             \"af_packet\"\nmetrics = true",
            "[[path]]\nfrom = \"wan\"\nto = \"route\"\nkeep = [\"arp\"]",
            "[stage.edge]\nkind = \"nat\"\nrules = []",
            "[stage.tunnel-out]\nkind = \"esp-seal\"\nspi = 1",
        ]
    ));
}

#[test]
fn one_mistake_is_reported_once() {
    // A path with an invalid port or stage causes no second error.
    assert_snapshot!(diagnose_cases(&[
        "[[port]]\nname = \"lan!\"\ninterface = \"eth1\"\n[[path]]\nfrom = \"lan!\"\nto = \"lan!\"",
        "[[port]]\nname = \"lan\"\ninterface = \"eth1\"\n[[path]]\nfrom = \"lan\"\nto = \
         \"lan\"\nstages = [\"edge\"]\n\
         [stage]\nedge = 1",
        // One of the two ports called `lan` may be the missing `wan`, so xdpfwd reports only the
        // duplicate name.
        "[[port]]\nname = \"lan\"\ninterface = \"eth1\"\n[[port]]\nname = \"lan\"\ninterface = \
         \"eth2\"\n[[path]]\n\
         from = \"lan\"\nto = \"wan\"",
        "[[port]]\nname = \"lan\"\ninterface = \"jumbo\"\n[[port]]\nname = \"wan\"\ninterface = \
         \"jumbo\"\n[[path]]\n\
         from = \"lan\"\nto = \"wan\"",
        "[stage]\nkind = \"set-mac\"\nsource = \"02:00:00:00:00:01\"\n[[port]]\nname = \
         \"lan\"\ninterface = \"eth1\"\n\
         [[path]]\nfrom = \"lan\"\nto = \"lan\"\nstages = [\"edge\"]",
        "[engine]\ncores = [0, \"1\"]\n[[port]]\nname = \"lan\"\ninterface = \"multi1\"\nqueues = \
         8\n[[path]]\n\
         from = \"lan\"\nto = \"lan\"",
    ]));
}

#[test]
fn all_errors_are_reported_in_file_order() {
    assert_snapshot!(diagnose_cases(&["\
[stage.edge]
kind = \"set-mac\"
source = \"02:00\"
[engine]
mode = \"fast\"
metrics = true
cores = [0, 0, 7]
[[port]]
name = \"lan\"
interface = \"eth1\"
queues = 0
[[path]]
from = \"lan\"
to = \"wan\"
stages = [\"edge\", \"nat\"]
[umem]
frames = 1"]));
}

#[test]
fn unavailable_or_duplicate_cores_are_errors() {
    assert_snapshot!(diagnose_cases_with(
        MINIMAL,
        &[
            "[engine]\ncores = []",
            "[engine]\ncores = [1, 7]",
            "[engine]\ncores = [2, 2]",
            "[engine]\ncores = [0, 0x1, 0b1, 8191]",
        ]
    ));
    let unknown_cores = FakeMachine { cores: Vec::new(), ..FakeMachine::new() };
    assert!(plan_on(&unknown_cores, &format!("[engine]\ncores = [99]{MINIMAL}")).is_ok());
}

#[test]
fn unequal_or_indivisible_queue_counts_are_errors() {
    let (lan, wan) = ("interface = \"multi1\"\nqueues = 4", "interface = \"multi2\"");
    assert_snapshot!(diagnose_strings(&[
        two_ports("", lan, wan),
        two_ports("", "interface = \"opaque\"\nqueues = 4", "interface = \"opaque2\"\nqueues = 2"),
        two_ports("[engine]\ncores = [0, 1]\n", lan, "interface = \"dual1\"\nqueues = 2"),
        two_ports("[engine]\ncores = [0, 1, 2]\n", lan, "interface = \"multi2\"\nqueues = 4"),
        two_ports(
            "[engine]\ncores = [0, 1]\n",
            "interface = \"opaque\"",
            "interface = \"opaque2\""
        ),
        two_ports("[engine]\ncores = [0, 1]\n", "interface = \"eth1\"", "interface = \"eth2\""),
    ]));
}

#[test]
fn queue_count_that_differs_from_interface_is_reported() {
    assert_snapshot!(diagnose_strings(&[
        two_ports("", "interface = \"eth1\"\nqueues = 2", "interface = \"dual1\"\nqueues = 2"),
        two_ports("", "interface = \"dual1\"", "interface = \"eth2\""),
    ]));
}

#[test]
fn too_few_or_too_short_frames_are_errors() {
    assert_snapshot!(diagnose_strings(&[
        two_ports(
            "[umem]\nframes = 1023\n",
            "interface = \"multi1\"\nqueues = 4",
            "interface = \"multi2\"\nqueues = 4"
        ),
        two_ports(
            "",
            "interface = \"opaque\"\nqueues = 65535",
            "interface = \"opaque2\"\nqueues = 65535"
        ),
        two_ports(
            "",
            "interface = \"opaque\"\nqueues = 64",
            "interface = \"opaque2\"\nqueues = 64"
        ),
        two_ports("", "interface = \"middle\"", "interface = \"eth2\""),
        two_ports("[umem]\nframe_size = 4096\n", "interface = \"middle\"", "interface = \"jumbo\""),
    ]));
    let enough = two_ports(
        "[umem]\nframes = 1024\n",
        "interface = \"multi1\"\nqueues = 4",
        "interface = \"multi2\"\nqueues = 4",
    );
    assert!(plan(&enough).is_ok());
    // The default of 16384 frames is enough for the maximum of 126 sockets on a UMEM.
    assert!(
        plan(&two_ports(
            "",
            "interface = \"opaque\"\nqueues = 63",
            "interface = \"opaque2\"\nqueues = 63"
        ))
        .is_ok()
    );
}

#[test]
fn insufficient_machine_memory_is_reported() {
    assert_snapshot!(diagnose_cases_with(
        MINIMAL,
        &[
            "[umem]\nframe_size = 4096\nframes = 1048576\nhuge_pages = \"on\"",
            "[umem]\nframe_size = 4096\nframes = 1048576",
            "[umem]\nframes = 4096\nhuge_pages = \"on\"",
            "[umem]\nframes = 4097\nhuge_pages = \"on\"",
        ]
    ));
    assert_snapshot!(diagnose_cases(&[&two_ports(
        "[engine]\ncores = [0, 1]\n[umem]\nframes = 1048576\nframe_size = 4096\n",
        "interface = \"dual1\"\nqueues = 2",
        "interface = \"opaque\"\nqueues = 2"
    )]));
}

#[test]
fn mtu_up_to_frame_capacity_is_accepted() {
    for (mtu, accepted) in [(1770, true), (1771, false)] {
        let mut machine = FakeMachine::new();
        machine.interfaces.get_mut("eth1").unwrap().mtu = Some(mtu);
        assert_eq!(plan_on(&machine, MINIMAL).is_ok(), accepted, "MTU {mtu}");
    }
}

#[test]
fn more_than_126_ports_are_error() {
    let port = |n: usize| format!("[[port]]\nname = \"p{n}\"\ninterface = \"i{n}\"\n");
    let path = |n: usize| format!("[[path]]\nfrom = \"p{n}\"\nto = \"p{n}\"\n");
    let text = |n| (0..n).map(|n| port(n) + &path(n)).collect::<String>();
    let (largest, _) = plan(&text(126)).unwrap();
    assert_eq!(largest.ports.len(), 126);
    let too_many = diagnose(&text(127));
    assert!(too_many.contains("more than 126 [[port]] tables"), "{too_many}");
}

#[test]
fn unused_port_or_stage_and_missing_interface_cause_warnings() {
    assert_snapshot!(diagnose_cases_with(
        MINIMAL,
        &["[[port]]\nname = \"spare\"\ninterface = \"eht2\"\n[stage.unused]\nkind = \"ttl\""]
    ));
}
