//! Ports, paths and workers against each other and against the machine.

use super::{REST, answers, answers_with, plan, plan_on, said};
use crate::config::Imagined;

/// Two ports with a path between them.
fn two(engine: &str, lan: &str, wan: &str) -> String {
    format!(
        "{engine}[[port]]\nname = \"lan\"\n{lan}\n[[port]]\nname = \"wan\"\n{wan}\n[[path]]\nfrom = \"lan\"\nto = \"wan\""
    )
}

fn answers_to(cases: &[String]) -> String {
    answers(&cases.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn ports_and_paths_are_needed() {
    assert_reads!(answers(&[
        "[engine]",
        "port = []\npath = []",
        "[[port]]\nname = \"lan\"\ninterface = \"eth1\"",
        "[[path]]\nfrom = \"lan\"\nto = \"lan\"",
        "[[ports]]\nname = \"lan\"\n[[path]]\nfrom = \"lan\"\nto = \"lan\"",
    ]));
}

#[test]
fn each_port_is_one_of_its_own() {
    assert_reads!(answers_to(&[
        two("", "interface = \"eth1\"", "interface = \"eth1\""),
        two("", "interface = \"eth1\"", "interface = \"eth1-alias\""),
        two("", "interface = \"eth1\"", "interface = \"eth2\"").replace("wan", "lan"),
    ]));
}

#[test]
fn paths_lead_between_ports_that_are_there() {
    assert_reads!(answers_with(
        REST,
        &[
            "[[path]]\nfrom = \"wam\"\nto = \"Wan\"",
            "[[path]]\nfrom = \"wan\"\nto = \"route\"",
            "[[path]]\nfrom = \"\"\nto = \"\"\"\nnowhere\"\"\"",
            "[[path]]\nfrom = \"eth1\"\nto = \"a name that is longer than a message should repeat\"",
        ]
    ));
}

#[test]
fn one_path_begins_at_a_port() {
    assert_reads!(answers_with(
        REST,
        &[
            "[[path]]\nfrom = \"lan\"\nto = \"lan\"",
            "[[path]]\nfrom = \"lan\"\nto = \"wan\"",
            "[[path]]\nfrom = \"wan\"\nto = \"lan\"\n[[path]]\nfrom = \"wan\"\nto = \"wan\"",
        ]
    ));
}

#[test]
fn stages_on_a_path_are_defined() {
    let path = |stages: &str| format!("[[path]]\nfrom = \"wan\"\nto = \"wan\"\nstages = {stages}");
    assert_reads!(answers_with(
        REST,
        &[
            &path("[\"edge\"]"),
            &(path("[\"edge\", \"tll\", \"TTL\"]") + "\n[stage.ttl]\nkind = \"ttl\""),
            &path("[\"\", \"a b\", \"a\\nb\", \"\\u001b[31m\"]"),
        ]
    ));
}

#[test]
fn what_is_not_built_is_refused_like_what_is_not_known() {
    assert_reads!(answers_with(
        REST,
        &[
            "[engine]\nmetrics = \"127.0.0.1:9184\"\nkeep = [\"arp\"]",
            "[[port]]\nname = \"third\"\ninterface = \"multi1\"\nqueues = 1\nio = \"packet-mmap\"\nmetrics = true",
            "[[path]]\nfrom = \"wan\"\nto = \"route\"\nkeep = [\"arp\"]",
            "[stage.edge]\nkind = \"nat\"\nrules = []",
            "[stage.tunnel-out]\nkind = \"esp-seal\"\nspi = 1",
        ]
    ));
}

#[test]
fn one_mistake_is_reported_once() {
    // Paths do not repeat the errors of the ports and stages that they name.
    assert_reads!(answers(&[
        "[[port]]\nname = \"lan!\"\ninterface = \"eth1\"\n[[path]]\nfrom = \"lan!\"\nto = \"lan!\"",
        "[[port]]\nname = \"lan\"\ninterface = \"eth1\"\n[[path]]\nfrom = \"lan\"\nto = \"lan\"\nstages = [\"edge\"]\n\
         [stage]\nedge = 1",
        // One of the duplicate names was meant for the other port.
        "[[port]]\nname = \"lan\"\ninterface = \"eth1\"\n[[port]]\nname = \"lan\"\ninterface = \"eth2\"\n[[path]]\n\
         from = \"lan\"\nto = \"wan\"",
        "[[port]]\nname = \"lan\"\ninterface = \"jumbo\"\n[[port]]\nname = \"wan\"\ninterface = \"jumbo\"\n[[path]]\n\
         from = \"lan\"\nto = \"wan\"",
        "[stage]\nkind = \"set-mac\"\nsource = \"02:00:00:00:00:01\"\n[[port]]\nname = \"lan\"\ninterface = \"eth1\"\n\
         [[path]]\nfrom = \"lan\"\nto = \"lan\"\nstages = [\"edge\"]",
        "[engine]\ncores = [0, \"1\"]\n[[port]]\nname = \"lan\"\ninterface = \"multi1\"\nqueues = 8\n[[path]]\n\
         from = \"lan\"\nto = \"lan\"",
    ]));
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_file() {
    assert_reads!(answers(&["\
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
fn cores_are_there_and_different() {
    assert_reads!(answers_with(
        REST,
        &[
            "[engine]\ncores = []",
            "[engine]\ncores = [1, 7]",
            "[engine]\ncores = [2, 2]",
            "[engine]\ncores = [0, 0x1, 0b1, 8191]",
        ]
    ));
    let nothing_known = Imagined { cores: Vec::new(), ..Imagined::usual() };
    assert!(plan_on(&nothing_known, &format!("[engine]\ncores = [99]{REST}")).is_ok());
}

#[test]
fn queues_are_shared_out_evenly() {
    let (lan, wan) = ("interface = \"multi1\"\nqueues = 4", "interface = \"multi2\"");
    assert_reads!(answers_to(&[
        two("", lan, wan),
        two("", "interface = \"opaque\"\nqueues = 4", "interface = \"opaque2\"\nqueues = 2"),
        two("[engine]\ncores = [0, 1]\n", lan, "interface = \"dual1\"\nqueues = 2"),
        two("[engine]\ncores = [0, 1, 2]\n", lan, "interface = \"multi2\"\nqueues = 4"),
        two("[engine]\ncores = [0, 1]\n", "interface = \"opaque\"", "interface = \"opaque2\""),
        two("[engine]\ncores = [0, 1]\n", "interface = \"eth1\"", "interface = \"eth2\""),
    ]));
}

#[test]
fn queues_are_those_of_the_interface() {
    assert_reads!(answers_to(&[
        two("", "interface = \"eth1\"\nqueues = 2", "interface = \"dual1\"\nqueues = 2"),
        two("", "interface = \"dual1\"", "interface = \"eth2\""),
    ]));
}

#[test]
fn frames_suffice_and_are_long_enough() {
    assert_reads!(answers_to(&[
        two(
            "[umem]\nframes = 1023\n",
            "interface = \"multi1\"\nqueues = 4",
            "interface = \"multi2\"\nqueues = 4"
        ),
        two(
            "",
            "interface = \"opaque\"\nqueues = 65535",
            "interface = \"opaque2\"\nqueues = 65535"
        ),
        two("", "interface = \"opaque\"\nqueues = 64", "interface = \"opaque2\"\nqueues = 64"),
        two("", "interface = \"middle\"", "interface = \"eth2\""),
        two("[umem]\nframe_size = 4096\n", "interface = \"middle\"", "interface = \"jumbo\""),
    ]));
    let enough = two(
        "[umem]\nframes = 1024\n",
        "interface = \"multi1\"\nqueues = 4",
        "interface = \"multi2\"\nqueues = 4",
    );
    assert!(plan(&enough).is_ok());
    // 16384 frames, the default, are enough for as many queues as a UMEM can serve.
    assert!(
        plan(&two(
            "",
            "interface = \"opaque\"\nqueues = 63",
            "interface = \"opaque2\"\nqueues = 63"
        ))
        .is_ok()
    );
}

#[test]
fn memory_is_there() {
    assert_reads!(answers_with(
        REST,
        &[
            "[umem]\nframe_size = 4096\nframes = 1048576\nhuge_pages = \"on\"",
            "[umem]\nframe_size = 4096\nframes = 1048576",
            "[umem]\nframes = 4096\nhuge_pages = \"on\"",
            "[umem]\nframes = 4097\nhuge_pages = \"on\"",
        ]
    ));
    assert_reads!(answers(&[&two(
        "[engine]\ncores = [0, 1]\n[umem]\nframes = 1048576\nframe_size = 4096\n",
        "interface = \"dual1\"\nqueues = 2",
        "interface = \"opaque\"\nqueues = 2"
    )]));
}

#[test]
fn the_longest_packet_that_fits_is_accepted() {
    for (mtu, accepted) in [(1770, true), (1771, false)] {
        let mut machine = Imagined::usual();
        machine.interfaces.get_mut("eth1").unwrap().mtu = Some(mtu);
        assert_eq!(plan_on(&machine, REST).is_ok(), accepted, "MTU {mtu}");
    }
}

#[test]
fn there_is_a_limit_to_ports_and_paths() {
    let port = |n: usize| format!("[[port]]\nname = \"p{n}\"\ninterface = \"i{n}\"\n");
    let path = |n: usize| format!("[[path]]\nfrom = \"p{n}\"\nto = \"p{n}\"\n");
    let text = |n| (0..n).map(|n| port(n) + &path(n)).collect::<String>();
    let (most, _) = plan(&text(126)).unwrap();
    assert_eq!(most.ports.len(), 126);
    let beyond = said(&text(127));
    assert!(beyond.contains("more than 126 [[port]] tables"), "{beyond}");
}

#[test]
fn what_looks_wrong_but_works_is_a_warning() {
    assert_reads!(answers_with(
        REST,
        &["[[port]]\nname = \"spare\"\ninterface = \"eht2\"\n[stage.unused]\nkind = \"ttl\""]
    ));
}
