//! Tests the gate on the test bench, without root and without interfaces.

use own_appliance::app;
use xdpfwd_pipeline::testing::TestBench;
use xdpfwd_wire::{HeaderStack, ethernet, ipv4, udp};

/// Returns a test bench. `keys` are added to the gate's table.
fn bench(keys: &str) -> Result<TestBench, String> {
    let config = include_str!("../appliance.toml");
    app().test_bench(&format!("{config}{keys}\n"))
}

/// Returns a frame with a UDP packet from `source`.
fn packet(source: [u8; 4]) -> Vec<u8> {
    let ip = ipv4::Repr::new(source.into(), [10, 77, 0, 254].into());
    let udp = udp::Repr::new(4000, 53);
    let headers = [ethernet::Repr::default().into(), ip.into(), udp.into()];
    HeaderStack(&headers).packet(&[0; 18]).unwrap()
}

#[test]
fn gate_passes_known_and_drops_unknown_subscribers() {
    let mut bench = bench("").unwrap();
    let known = packet([10, 77, 0, 1]);
    assert_eq!(bench.send("lan", &known).expect_sent("wan"), known);
    let unknown = bench.send("lan", &packet([10, 77, 0, 9]));
    assert_eq!(unknown.drop_reason(), Some("no_subscriber"));
}

#[test]
fn gate_sends_unknown_subscribers_to_the_configured_port() {
    let mut bench = bench("unknown_port = \"lan\"").unwrap();
    let unknown = packet([10, 77, 0, 9]);
    assert_eq!(bench.send("lan", &unknown).expect_sent("lan"), unknown);
    assert_eq!(bench.table("subscribers").rows[0][1..], [0_u64, 0].map(Into::into));
}

#[test]
fn unknown_port_is_an_error_with_line_and_column() {
    let error = bench("unknown_port = \"dmz\"").err().unwrap();
    assert!(error.contains(":26:16: no port is called \"dmz\""), "{error}");
}

#[test]
fn gate_does_not_allocate() {
    let packets = vec![packet([10, 77, 0, 1]); 640];
    assert_eq!(bench("").unwrap().assert_no_allocation("lan", packets), 640);
}

#[test]
fn gate_with_random_bytes_does_not_panic() {
    let mut bench = bench("").unwrap();
    let mut seed = 1_u32;
    for length in (14..400).chain(14..400) {
        let mut frame: Vec<u8> = (0..length)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .collect();
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        bench.send("lan", &frame);
    }
}
