//! Tests what `bypass` does not pass: IKE that is not between the endpoints of SAs, and packets
//! from a source inside a selector.

use std::sync::Arc;

use xdpfwd_pipeline::StagePlan;

use super::support::*;

const LOCAL: [u8; 4] = [192, 0, 2, 2];
const PEER: [u8; 4] = [192, 0, 2, 1];
const STRANGER: [u8; 4] = [198, 51, 100, 9];
/// Inside the selectors of inbound SAs below, such as 10.1.0.0/16.
const INSIDE: [u8; 4] = SOURCE_V4;
const PASSED: bool = true;

/// Returns frames with IKE messages that `esp-open` passes: UDP to port 500, or to port 4500 with
/// the non-ESP marker.
fn ike_inbound(source: [u8; 4], destination: [u8; 4]) -> Vec<Vec<u8>> {
    ike(source, destination, [(500, 500), (1024, 500), (4500, 4500), (1024, 4500)])
}

/// Like [`ike_inbound`], for `esp-seal`: UDP from these ports.
fn ike_outbound(source: [u8; 4], destination: [u8; 4]) -> Vec<Vec<u8>> {
    ike(source, destination, [(500, 500), (500, 1024), (4500, 4500), (4500, 1024)])
}

/// `ports` are pairs of a source and a destination port.
fn ike(source: [u8; 4], destination: [u8; 4], ports: [(u16, u16); 4]) -> Vec<Vec<u8>> {
    let frame = |(from, to)| {
        let uses_marker = [from, to].contains(&4500);
        let marker = if uses_marker { &[0; 4][..] } else { &[] };
        let message = [marker, b"a message of IKE"].concat();
        ipv4(UDP, source, destination, 0, &udp(from, to, &message))
    };
    ports.map(frame).to_vec()
}

/// Checks that a frame passes unchanged, or is dropped as `reason`.
#[track_caller]
fn check(bench: &mut EspBench, frame: &[u8], passes: bool, reason: &'static str, name: &str) {
    let expected =
        if passes { Disposition::Passed(frame.to_vec()) } else { Disposition::Dropped(reason) };
    assert_eq!(bench.send_one(frame), expected, "{name}");
}

fn warnings(plan: &Arc<dyn StagePlan>) -> Vec<String> {
    plan.warnings().iter().map(|warning| warning.message.clone()).collect()
}

#[test]
fn open_passes_ike_only_to_endpoint_and_from_outside_of_selector() {
    let folder = Folder::new();
    let keys = ", bypass = ['ike']";
    let selector = "selector = ['10.1.0.0/16', '192.168.0.0/16']";
    // An SA, and whether each packet in `packets` passes.
    let cases = [
        // Without `source`, IKE passes from addresses outside of the selector.
        (format!("destination = '192.0.2.2', {selector}"), [PASSED, PASSED, false, false]),
        ("destination = '192.0.2.2'".to_owned(), [PASSED, PASSED, PASSED, false]),
        (
            format!("source = '192.0.2.1', destination = '192.0.2.2', {selector}"),
            [PASSED, false, false, false],
        ),
        ("source = '192.0.2.1'".to_owned(), [false; 4]),
        // The endpoints are inside the selector.
        ("destination = '192.0.2.2', selector = ['0.0.0.0/0']".to_owned(), [false; 4]),
    ];
    for (index, (sa, passes)) in cases.iter().enumerate() {
        let sa = format!("{OPEN}, {sa}");
        let table = table(&folder, &format!("{index}.state"), &[&sa], keys);
        let mut open = bench(&plan("esp-open", &table));
        let packets = [(PEER, LOCAL), (STRANGER, LOCAL), (INSIDE, LOCAL), (PEER, DESTINATION_V4)];
        for ((source, destination), passes) in packets.into_iter().zip(passes) {
            for frame in ike_inbound(source, destination) {
                check(&mut open, &frame, *passes, "unprotected", &sa);
            }
        }
        open.assert_balanced();
    }
}

#[test]
fn seal_passes_ike_only_between_endpoints_outside_of_selector() {
    let folder = Folder::new();
    let keys = ", bypass = ['ike']";
    // The outbound SA has the reverse addresses: this end is 192.0.2.1.
    let (local, peer) = (PEER, LOCAL);
    let selected = format!("{SEAL}, selector = ['10.2.0.0/16']");
    let mut seal = bench(&plan_seal(&folder, &selected, keys));
    for frame in ike_outbound(local, peer) {
        check(&mut seal, &frame, PASSED, "", "between endpoints");
    }
    for (source, destination) in [(INSIDE, peer), (local, STRANGER), (peer, local)] {
        for frame in ike_outbound(source, destination) {
            check(&mut seal, &frame, false, "no_sa", "not between endpoints");
        }
    }
    // IKE to other addresses in the selector is encapsulated.
    for source in [INSIDE, local] {
        for frame in ike_outbound(source, DESTINATION_V4) {
            let Disposition::Passed(sealed) = seal.send_one(&frame) else {
                panic!("{:?}", seal.drops())
            };
            assert_eq!((sealed[23], spi(&sealed)), (50, SPI));
        }
    }
    // So is IKE between endpoints inside the selector: that of `all` contains all addresses.
    let all = table(&folder, "all.state", &[&format!("{SEAL}, selector = ['0.0.0.0/0']")], keys);
    let mut all = bench(&plan("esp-seal", &all));
    for frame in ike_outbound(local, peer) {
        let Disposition::Passed(sealed) = all.send_one(&frame) else { panic!("{:?}", all.drops()) };
        assert_eq!((sealed[23], spi(&sealed)), (50, SPI));
    }
    // IKE does not pass from an endpoint of one SA to an endpoint of another.
    let other = SEAL.replace("192.0.2", "203.0.113").replace("0x12345678", "4097");
    let sas = [&selected, &format!("{other}, selector = ['10.3.0.0/16']")[..]];
    let mut two = bench(&plan("esp-seal", &table(&folder, "two.state", &sas, keys)));
    for frame in ike_outbound(local, [203, 0, 113, 2]) {
        check(&mut two, &frame, false, "no_sa", "endpoints of two SAs");
    }
}

#[test]
fn ike_passes_only_with_ike_port_at_this_end() {
    let folder = Folder::new();
    let keys = ", bypass = ['ike']";
    let marked = [&[0; 4][..], b"payload"].concat();
    let mut open = bench(&plan_open(&folder, &format!("{OPEN}, destination = '192.0.2.2'"), keys));
    let mut seal = bench(&plan_seal(&folder, &format!("{SEAL}, selector = ['10.2.0.0/16']"), keys));
    // The peer's port is one of IKE, but the packet is for, or from, another service of this end.
    for (port_of_ike, service) in [(500, 53), (4500, 53), (500, 4500), (4500, 161), (500, 501)] {
        // Port 4500 with a marker is IKE, too.
        let payload = if service == 4500 { b"payload" } else { &marked[..] };
        let inbound = ipv4(UDP, PEER, LOCAL, 0, &udp(port_of_ike, service, payload));
        let name = format!("{port_of_ike} and {service}");
        check(&mut open, &inbound, false, "unprotected", &name);
        // `seal` is at the end with the address `PEER`.
        let outbound = ipv4(UDP, PEER, LOCAL, 0, &udp(service, port_of_ike, payload));
        check(&mut seal, &outbound, false, "no_sa", &name);
    }
}

#[test]
fn unmatched_passes_no_source_inside_selector() {
    let folder = Folder::new();
    let keys = ", bypass = ['unmatched']";
    let open_sa = format!("{OPEN}, selector = ['10.1.0.0/16', 'fd00:1::/32']");
    let mut open = bench(&plan_open(&folder, &open_sa, keys));
    let inside_v6 = u128::from_str_radix("fd000001000000000000000000000007", 16).unwrap();
    let payload = udp(1, 2, b"payload");
    let packets = [
        ("inside", ipv4(UDP, INSIDE, DESTINATION_V4, 0, &payload), false),
        ("outside", ipv4(UDP, STRANGER, DESTINATION_V4, 0, &payload), PASSED),
        ("fragment from inside", ipv4(UDP, INSIDE, DESTINATION_V4, 0x2000, &payload), false),
        ("later fragment from inside", ipv4(UDP, INSIDE, DESTINATION_V4, 5, &payload), false),
        ("IPv6 from inside", ipv6(UDP, inside_v6, 7, 64, &payload), false),
        ("IPv6 from outside", ipv6(UDP, 7, inside_v6, 64, &payload), PASSED),
    ];
    for (name, frame, passes) in &packets {
        for tags in 0..3 {
            check(&mut open, &tagged(frame, tags), *passes, "unprotected", name);
        }
    }
    for (source, passes) in [(INSIDE, false), (STRANGER, PASSED)] {
        let unknown_spi = ipv4(50, source, LOCAL, 0, &[9; 60]);
        check(&mut open, &unknown_spi, passes, "no_sa", "ESP with an unknown SPI");
    }
    let seal_sa = format!("{SEAL}, selector = ['10.2.0.0/16']");
    let mut seal = bench(&plan_seal(&folder, &seal_sa, keys));
    for (source, passes) in [(DESTINATION_V4, false), (INSIDE, PASSED)] {
        let frame = ipv4(UDP, source, STRANGER, 0, &payload);
        check(&mut seal, &frame, passes, "no_sa", "outbound, to outside of the selector");
    }
}

#[test]
fn frames_that_can_carry_ip_are_not_bypassed_if_sa_has_selector() {
    let folder = Folder::new();
    let packet = &ipv4(UDP, INSIDE, DESTINATION_V4, 0, &udp(1, 2, b"payload"))[14..];
    let llc = |head: &[u8]| ethernet((head.len() + packet.len()) as u16, &[head, packet].concat());
    let frames = [
        ("MPLS", ethernet(0x8847, &[&[0, 1, 1, 64], packet].concat()), false),
        ("MPLS multicast", ethernet(0x8848, &[&[0, 1, 1, 64], packet].concat()), false),
        ("PPPoE", ethernet(0x8864, &[&[0x11, 0, 0, 1, 0, 50, 0, 0x21], packet].concat()), false),
        ("Ethernet in Ethernet", ethernet(0x6558, &ethernet(0x0800, packet)), false),
        ("PBB", ethernet(0x88e7, &[&[0; 4], &ethernet(0x0800, packet)[..]].concat()), false),
        ("NSH", ethernet(0x894f, &[&[0; 8], packet].concat()), false),
        ("PPP", ethernet(0x880b, packet), false),
        ("E-tag", ethernet(0x893f, &[&[0; 6][..], &[8, 0], packet].concat()), false),
        ("VN-tag", ethernet(0x8926, &[&[0; 4][..], &[8, 0], packet].concat()), false),
        ("redundancy tag", ethernet(0xf1c1, &[&[0; 4][..], &[8, 0], packet].concat()), false),
        ("MACsec", ethernet(0x88e5, &[&[0; 6][..], &[8, 0], packet].concat()), false),
        (
            "batman-adv",
            ethernet(0x4305, &[&[0; 10], &ethernet(0x0800, packet)[..]].concat()),
            false,
        ),
        ("FabricPath", ethernet(0x8903, &ethernet(0x0800, packet)), false),
        (
            "labelled TRILL",
            ethernet(0x893b, &[&[0; 6], &ethernet(0x800, packet)[..]].concat()),
            false,
        ),
        ("frame relay", ethernet(0x6559, packet), false),
        ("6LoWPAN", ethernet(0xa0ed, packet), false),
        ("GeoNetworking", ethernet(0x8947, packet), false),
        ("SNAP with another source SAP", llc(&[0xaa, 0x42, 3, 0, 0, 0, 8, 0]), false),
        ("SNAP with a response bit", llc(&[0xaa, 0xab, 3, 0, 0, 0, 8, 0]), false),
        ("SNAP to a group", llc(&[0xab, 0xaa, 3, 0, 0, 0, 8, 0]), false),
        ("SNAP with poll bit", llc(&[0xaa, 0xaa, 0x13, 0, 0, 0, 8, 0]), false),
        ("SNAP with numbered LLC", llc(&[0xaa, 0xaa, 0, 0, 0, 0, 0, 8, 0]), false),
        ("SNAP with a bridged frame", llc(&[0xaa, 0xaa, 3, 0, 0x80, 0xc2, 0, 7]), false),
        ("SNAP with MACsec", llc(&[0xaa, 0xaa, 3, 0, 0, 0, 0x88, 0xe5]), false),
        ("LLC with IP to a group", llc(&[7, 6, 3]), false),
        ("SNAP", llc(&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]), false),
        ("SNAP with MPLS", llc(&[0xaa, 0xaa, 3, 0, 0, 0, 0x88, 0x47]), false),
        ("LLC with IP", llc(&[6, 6, 3]), false),
        ("spanning tree", llc(&[0x42, 0x42, 3]), PASSED),
        ("SNAP with another protocol", llc(&[0xaa, 0xaa, 3, 0, 0, 12, 0x20, 0]), PASSED),
        ("LLDP", ethernet(0x88cc, &[0; 46]), PASSED),
        ("ARP", ethernet(0x0806, &[0; 46]), PASSED),
        ("EAPOL", ethernet(0x888e, &[0; 46]), PASSED),
        ("PTP", ethernet(0x88f7, &[0; 46]), PASSED),
        ("LACP", ethernet(0x8809, &[0; 46]), PASSED),
        ("another type", ethernet(0x88b5, packet), PASSED),
    ];
    for bypass in ["not-ip", "unmatched"] {
        let keys = format!(", bypass = ['{bypass}']");
        let open_sa = format!("{OPEN}, selector = ['10.1.0.0/16']");
        let seal_sa = format!("{SEAL}, selector = ['10.2.0.0/16']");
        let mut open = bench(&plan_open(&folder, &open_sa, &keys));
        let mut seal = bench(&plan_seal(&folder, &seal_sa, &keys));
        for (name, frame, passes) in &frames {
            check(&mut open, frame, *passes, "unprotected", name);
            check(&mut seal, frame, *passes, "no_sa", name);
        }
        // An SA without a selector requires encryption of no address.
        let table = table(&folder, "all.state", &[OPEN], &keys);
        let mut open = bench(&plan("esp-open", &table));
        check(&mut open, &frames[0].1, PASSED, "", "MPLS without a selector");
    }
}

#[test]
fn nd_passes_only_directly_after_ipv6_header() {
    let folder = Folder::new();
    let open_sa = format!("{OPEN}, selector = ['::/0']");
    let mut open = bench(&plan_open(&folder, &open_sa, ", bypass = ['nd']"));
    let solicitation = [&[135, 0, 0, 0][..], &[0; 20]].concat();
    let with_code = [&[135, 1, 0, 0][..], &[0; 20]].concat();
    let after = |header: &[u8]| [header, &solicitation].concat();
    // A routing header with a segment left.
    let routing = after(&[&[58, 2, 4, 1, 0, 0, 0, 0][..], &[7; 16]].concat());
    // Hop-by-hop or destination options.
    let options = after(&[58, 0, 1, 4, 0, 0, 0, 0]);
    let packets = [
        ("solicitation", 58, &solicitation, PASSED),
        ("with a code", 58, &with_code, false),
        ("after a routing header", 43, &routing, false),
        ("after hop-by-hop options", 0, &options, false),
        ("after destination options", 60, &options, false),
    ];
    for (name, next_header, payload, passes) in packets {
        let frame = ipv6(next_header, SOURCE_V6, DESTINATION_V6, 255, payload);
        check(&mut open, &frame, passes, "unprotected", name);
    }
}

#[test]
fn plan_warns_of_state_file_with_failed_write() {
    let folder = Folder::new();
    drop(plan_open(&folder, OPEN, ""));
    let text = folder.read("open.state");
    let marked = text.replacen("write_failed = false\n", "write_failed = true\n\n", 1);
    std::fs::write(folder.join("open.state"), marked).unwrap();
    let table = table(&folder, "open.state", &[OPEN], ", bypass = ['arp']");
    let plan = plan_for("esp-open", &table, 1).unwrap();
    let [warning] = &warnings(&plan)[..] else { panic!("{:?}", warnings(&plan)) };
    assert!(warning.contains("records a failed write"), "{warning}");
    assert!(warning.contains("xdpfwd esp accept-state "), "{warning}");
    let error = acquire(&plan, &[]).unwrap_err().to_string();
    assert!(error.contains("records a failed write"), "{error}");
}

#[test]
fn plan_warns_if_ike_cannot_pass() {
    let folder = Folder::new();
    let ike = ", bypass = ['arp', 'ike']";
    for (kind, sa, expected) in [
        ("esp-open", OPEN.to_owned(), Some("no SA has an outer `destination`")),
        ("esp-open", format!("{OPEN}, destination = '192.0.2.2'"), None),
        (
            "esp-open",
            format!("{OPEN}, destination = '192.0.2.2', selector = ['0.0.0.0/0']"),
            Some("192.0.2.2, an endpoint of an SA, is inside the `selector`"),
        ),
        ("esp-seal", SEAL.to_owned(), None),
        (
            "esp-seal",
            format!("{SEAL}, selector = ['192.0.2.1']"),
            Some("192.0.2.1, an endpoint of an SA, is inside the `selector`"),
        ),
        (
            "esp-seal",
            "spi = 4096, transform = 'aes-128-gcm', mode = 'transport'".to_owned(),
            Some("no SA has an outer `destination`"),
        ),
    ] {
        let plan = plan_for(kind, &table(&folder, "a.state", &[&sa], ike), 1).unwrap();
        match (&warnings(&plan)[..], expected) {
            ([], None) => {}
            ([warning], Some(expected)) => assert!(warning.contains(expected), "{warning}"),
            (warnings, _) => panic!("{sa}: {warnings:?}"),
        }
        let without = plan_for(kind, &table(&folder, "a.state", &[&sa], ""), 1).unwrap();
        assert!(!warnings(&without).iter().any(|warning| warning.contains("ike")));
    }
}
