//! Names of ports and stages.

use xdpfwd_pipeline::testing::{Disposition, TestBench, TestBenchBuilder};

use crate::{DropOdd, frame, panic_message};

#[test]
fn unknown_name_panics_and_lists_existing_names() {
    let mut bench = TestBench::new(DropOdd::default());
    let expected = "no port is called \"dmz\"; the ports are: \"lan\", \"wan\"";
    assert_eq!(panic_message(|| bench.send("dmz", &frame(1))), expected);
    assert_eq!(panic_message(|| bench.take_sent("dmz")), expected);
    assert_eq!(panic_message(|| bench.reload_path("dmz", ())), expected);
    let expected = "no stage is called \"dropodd\"; the stages are: \"DropOdd\"";
    assert_eq!(panic_message(|| bench.counters("dropodd")), expected);
    let mut bench = TestBench::builder().path("lan", "wan", ()).build().unwrap();
    assert_eq!(panic_message(|| bench.send("wan", &frame(1))), "no path starts from port \"wan\"");
}

#[test]
fn builder_rejects_unknown_and_duplicate_names_and_too_many_ports() {
    let error = |builder: TestBenchBuilder| builder.build().unwrap_err().to_string();
    assert_eq!(
        error(TestBench::builder().port("a").path("a", "b", ())),
        "no port is called \"b\"; the ports are: \"a\""
    );
    assert_eq!(
        error(TestBench::builder().port("a").port("a")),
        "two ports are called \"a\"; give each port a unique name"
    );
    assert_eq!(
        error(TestBench::builder().path("lan", "wan", ()).path("lan", "lan", ())),
        "two paths start from port \"lan\"; a port has at most one"
    );
    let too_many = (0..127).fold(TestBench::builder(), |builder, n| builder.port(n.to_string()));
    assert_eq!(error(too_many), "127 ports are too many for a test bench; the limit is 126");
    let maximum = (0..126).fold(TestBench::builder(), |builder, n| builder.port(n.to_string()));
    let mut bench = maximum.path("0", "125", ()).build().unwrap();
    assert_eq!(bench.send("0", &frame(1)), Disposition::sent("125", frame(1)));
}
