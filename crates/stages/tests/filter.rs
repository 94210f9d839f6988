//! Tests of the stages `filter` and `payload`, from TOML tables to transmitted frames and counters.

use std::path::Path;

use std::sync::Arc;

use xdpfwd_pipeline::testing::TestBench;
use xdpfwd_pipeline::{PlanCx, PlanError, PlanResult, Reason, StagePlan, WorkerReport};

const WORKERS: usize = 1;

fn plan(table: &str) -> PlanResult<toml::de::Error> {
    let cx = PlanCx::new(Path::new(env!("CARGO_TARGET_TMPDIR")), WORKERS);
    xdpfwd_testkit::plan("filter", table, &cx)
}

fn plan_error(table: &str) -> PlanError {
    match plan(table) {
        Err(xdpfwd_pipeline::StagePlanError::Plan(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("expected an error: {table}"),
    }
}

/// Sends one packet per batch. Returns the indices of the transmitted packets, and the report.
fn send_through(table: &str, packets: &[Vec<u8>]) -> (Vec<usize>, WorkerReport) {
    send_through_stage(plan(table).unwrap(), packets)
}

fn send_through_stage(plan: Arc<dyn StagePlan>, packets: &[Vec<u8>]) -> (Vec<usize>, WorkerReport) {
    let mut bench = TestBench::builder().plans("lan", "wan", [("stage", plan)]).build().unwrap();
    let mut passed = Vec::new();
    for (index, packet) in packets.iter().enumerate() {
        if bench.send("lan", packet).sent_frame().is_some() {
            passed.push(index);
        }
    }
    (passed, bench.report())
}

const UDP: u8 = 17;
const TCP: u8 = 6;
const ICMP: u8 = 1;

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02", &ethertype.to_be_bytes()[..], payload].concat()
}

/// `fragment` is the 16-bit field of flags and fragment offset.
fn ipv4(
    protocol: u8,
    source: [u8; 4],
    destination: [u8; 4],
    options: &[u8],
    fragment: u16,
    l4: &[u8],
) -> Vec<u8> {
    let header_len = 20 + options.len();
    let total_len = ((header_len + l4.len()) as u16).to_be_bytes();
    let version_and_ihl = 0x40 | (header_len / 4) as u8;
    let fixed_fields = [
        version_and_ihl,
        0,
        total_len[0],
        total_len[1],
        0,
        7,
        (fragment >> 8) as u8,
        fragment as u8,
        64,
        protocol,
        0,
        0,
    ];
    ethernet(0x0800, &[&fixed_fields[..], &source, &destination, options, l4].concat())
}

/// Returns UDP with 4 bytes of payload.
fn udp(source: u16, destination: u16) -> Vec<u8> {
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &12_u16.to_be_bytes(), &[0; 6]].concat()
}

fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &[0; 8], &[0x50, flags], &[0; 6]]
        .concat()
}

fn ipv4_from(source: [u8; 4], protocol: u8, l4: &[u8]) -> Vec<u8> {
    ipv4(protocol, source, [192, 0, 2, 1], &[], 0, l4)
}

fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut addresses = [0; 32];
    addresses[..4].copy_from_slice(b"\x20\x01\x0d\xb8");
    addresses[16..20].copy_from_slice(b"\x20\x01\x0d\xb8");
    (addresses[15], addresses[31]) = (1, 2);
    let length = (payload.len() as u16).to_be_bytes();
    ethernet(
        0x86dd,
        &[&[0x60, 0, 0, 0, length[0], length[1], next_header, 64][..], &addresses, payload]
            .concat(),
    )
}

const HOST_10: [u8; 4] = [10, 1, 2, 3];
const HOST_11: [u8; 4] = [11, 1, 2, 3];

#[test]
fn first_matching_rule_with_verdict_decides() {
    let rules = r#"{ default = "drop", rules = [
        "continue proto udp",
        "drop src 10.1.0.0/16 proto tcp dport 22",
        "accept src 10.0.0.0/8",
        "drop src 10.1.0.0/16 proto tcp dport 80",
        "accept dst 2001:db8::2 proto tcp flags syn,!ack",
        "accept proto icmp icmp-type 8",
    ] }"#;
    let packets = [
        ipv4_from(HOST_10, TCP, &tcp(1, 22, 2)),
        ipv4_from(HOST_10, TCP, &tcp(1, 80, 2)),
        ipv4_from(HOST_10, UDP, &udp(1, 53)),
        ipv4_from(HOST_11, UDP, &udp(1, 53)),
        ipv4_from(HOST_11, ICMP, &[8, 0, 0, 0, 0, 0, 0, 0]),
        ipv4_from(HOST_11, ICMP, &[0, 0, 0, 0, 0, 0, 0, 0]),
        ipv6(TCP, &tcp(1, 2, 0x02)),
        ipv6(TCP, &tcp(1, 2, 0x12)),
        ethernet(0x0806, &[0; 28]),
    ];
    let (passed, report) = send_through(rules, &packets);
    assert_eq!(passed, [1, 2, 4, 6, 8]);
    assert_eq!(report.drops[Reason::POLICY], 4);
    let counters: Vec<_> = report
        .paths
        .iter()
        .flat_map(|path| &path.stages)
        .flat_map(|stage| &stage.counters)
        .collect();
    assert!(
        counters.contains(&&("accepted", 5)) && counters.contains(&&("default", 3)),
        "{counters:?}"
    );
}

#[test]
fn packet_exceptions_have_separate_drop_reasons_and_verdicts() {
    let whole = ipv4_from(HOST_10, UDP, &udp(1, 53));
    let mut wrong_length = whole.clone();
    wrong_length[17] = 200; // total length
    let later_bytes = [8; 8]; // of a fragmented datagram
    // `count` headers of the type `kind`, then UDP. `last` is the last next-header field.
    let extensions = |kind: u8, count: usize, last: u8| -> Vec<u8> {
        let header =
            |index: usize| [if index + 1 == count { last } else { kind }, 0, 1, 4, 0, 0, 0, 0];
        (0..count).flat_map(header).chain(udp(1, 53)).collect()
    };
    let tagged = |tags: usize| {
        let mut bytes: Vec<u8> = std::iter::repeat_n([0, 7, 0x81, 0], tags).flatten().collect();
        bytes.splice(tags * 4 - 2.., [8, 0]);
        ethernet(0x8100, &[&bytes[..], &whole[14..]].concat())
    };
    // Packets, default drop reason, configuration key, and whether the key can be `judge`.
    let cases = [
        (
            vec![whole[..20].to_vec(), wrong_length, whole[..40].to_vec()],
            Reason::MALFORMED,
            "malformed",
            false,
        ),
        (vec![tagged(3)], Reason::VLAN_STACK, "vlan_stack", false),
        (
            vec![ipv6(60, &extensions(60, 9, UDP))],
            Reason::EXTENSION_CHAIN,
            "extension_chain",
            false,
        ),
        (
            vec![ipv4(UDP, HOST_10, HOST_10, &[1, 1, 1, 0], 0, &udp(1, 53))],
            Reason::IP_OPTIONS,
            "ip_options",
            true,
        ),
        (
            vec![
                ipv4(UDP, HOST_10, HOST_10, &[], 5, &[0; 16]),
                ipv6(44, &[&[UDP, 0, 1, 0, 0, 0, 0, 9][..], &later_bytes].concat()),
            ],
            Reason::LATER_FRAGMENT,
            "later_fragments",
            true,
        ),
    ];
    for (packets, reason, key, accepts_judge) in cases {
        let count = packets.len();
        let (passed, report) = send_through(r#"{ default = "accept", rules = [] }"#, &packets);
        assert_eq!((passed.len(), report.drops[reason]), (0, count as u64), "{key}");
        let accept_table = format!(r#"{{ default = "drop", rules = [], {key} = "accept" }}"#);
        assert_eq!(send_through(&accept_table, &packets).0.len(), count, "{key}");
        let judge_table =
            |rule: &str| format!(r#"{{ default = "drop", rules = ["{rule}"], {key} = "judge" }}"#);
        if accepts_judge {
            assert_eq!(
                send_through(&judge_table("accept proto udp"), &packets).0.len(),
                count,
                "{key}"
            );
            // A rule with ports matches IPv4 options, but not later fragments.
            let accepted_by_port = send_through(&judge_table("accept dport 53"), &packets).0.len();
            assert_eq!(accepted_by_port, if key == "ip_options" { count } else { 0 }, "{key}");
        } else {
            assert!(
                plan(&judge_table("accept"))
                    .unwrap_err()
                    .to_string()
                    .contains(r#"expected "accept" or "drop""#),
                "{key}"
            );
        }
    }
    assert_eq!(
        send_through(
            r#"{ default = "accept", rules = ["drop vlan 7"] }"#,
            &[tagged(1), tagged(2), whole]
        )
        .0,
        [2]
    );
    let arp = [ethernet(0x0806, &[0; 28])];
    let (passed, report) =
        send_through(r#"{ default = "accept", rules = [], not_ip = "drop" }"#, &arp);
    assert_eq!((passed.len(), report.drops[Reason::NOT_IP]), (0, 1));
}

#[test]
fn rate_limit_drops_excess_and_leaves_rest_to_next_rule() {
    let packets: Vec<_> = (0..20)
        .map(|n| ipv4_from(if n % 2 == 0 { HOST_10 } else { HOST_11 }, UDP, &udp(1, 53)))
        .collect();
    // The bucket earns no token during the test.
    let (passed, report) = send_through(
        r#"{ default = "drop", rules = ["continue proto udp limit 1pps burst 7", "accept src 10.0.0.0/8"] }"#,
        &packets,
    );
    assert_eq!(passed, [0, 2, 4, 6]);
    assert_eq!((report.drops[Reason::RATE_LIMIT], report.drops[Reason::POLICY]), (13, 3));
    let (passed, report) = send_through(
        r#"{ default = "drop", rules = ["accept proto udp limit 1pps burst 2 per src/8"] }"#,
        &packets,
    );
    assert_eq!((passed, report.drops[Reason::RATE_LIMIT]), (vec![0, 1, 2, 3], 16));
}

#[test]
fn error_names_location_and_cause_of_invalid_rules() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wrong.rules");
    std::fs::write(&file, "# comment\naccept proto tcp\n\ndrop dport 80-\naccept vlan 9999\n")
        .unwrap();
    let error = plan_error(r#"{ default = "drop", rules = "wrong.rules" }"#).to_string();
    let name = file.display();
    assert!(error.contains(&format!("{name}:4:12: invalid ports `80-`")), "{error}");
    assert!(error.contains(&format!("{name}:5:13: invalid vlan `9999`")), "{error}");
    let error = plan_error(r#"{ default = "drop", rules = "/dev/zero" }"#).to_string();
    assert!(error.contains("cannot read /dev/zero: not a regular file"), "{error}");
    let per_source = vec!["accept limit 1pps per src/24"; 65];
    let error =
        plan_error(&format!(r#"{{ default = "drop", rules = {per_source:?} }}"#)).to_string();
    assert!(
        error.contains("65 limits per source prefix") && error.contains("at most 64"),
        "{error}"
    );
    let error = plan_error(r#"{ default = "drop", rules = "missing.rules" }"#).to_string();
    assert!(error.contains("cannot read") && error.contains("missing.rules"), "{error}");
    let error = plan_error(r#"{ default = "drop", rules = "wrong.rules", format = "classbench" }"#)
        .to_string();
    assert!(error.contains(r#"add action = "accept" or "drop""#), "{error}");
    let error =
        plan_error(r#"{ default = "drop", rules = ["accept"], action = "drop" }"#).to_string();
    assert!(error.contains("each rule begins with its own verdict"), "{error}");
}

#[test]
fn classbench_rules_have_verdict_that_action_configures() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("some.classbench");
    std::fs::write(
        &file,
        "@10.0.0.0/8\t192.0.2.0/24\t0 : 65535\t53 : 53\t0x11/0xFF\t0x0000/0x0000\t\n",
    )
    .unwrap();
    let table = r#"{ default = "drop", rules = "some.classbench", format = "classbench", action = "accept" }"#;
    let packets = [
        ipv4_from(HOST_10, UDP, &udp(1, 53)),
        ipv4_from(HOST_10, UDP, &udp(1, 54)),
        ipv4_from(HOST_11, UDP, &udp(1, 53)),
    ];
    assert_eq!(send_through(table, &packets).0, [0]);
    let warnings: Vec<_> =
        plan(table).unwrap().warnings().iter().map(ToString::to_string).collect();
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("the flags column of 1 rules"),
        "{warnings:?}"
    );
}

#[test]
fn warnings_name_rules_that_never_decide() {
    let table = r#"{ default = "drop", rules = ["accept src 10.0.0.0/8", "drop src 10.1.0.0/16 proto udp", "drop fragment later"] }"#;
    let warnings: Vec<_> =
        plan(table).unwrap().warnings().iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains("rule 1 never decides: rule 0 (")
            && warnings[0].contains("`accept src 10.0.0.0/8`"),
        "{warnings:?}"
    );
    assert!(warnings[1].contains(r#"set later_fragments = "judge""#), "{warnings:?}");
}

fn payload_plan(table: &str) -> PlanResult<toml::de::Error> {
    let cx = PlanCx::new(Path::new(env!("CARGO_TARGET_TMPDIR")), WORKERS);
    xdpfwd_testkit::plan("payload", table, &cx)
}

fn send_through_payload(table: &str, packets: &[Vec<u8>]) -> (Vec<usize>, WorkerReport) {
    send_through_stage(payload_plan(table).unwrap(), packets)
}

#[test]
fn signature_matches_only_payload_of_packets_that_its_rule_matches() {
    let over_tcp = |port: u16, payload: &[u8]| {
        ipv4_from(HOST_10, TCP, &[&tcp(1, port, 0x18)[..], payload].concat())
    };
    let over_udp = |payload: &[u8]| {
        let length = (8 + payload.len() as u16).to_be_bytes();
        ipv4_from(HOST_10, UDP, &[&[0, 1, 0, 80][..], &length, &[0, 0], payload].concat())
    };
    let packets = [
        over_tcp(80, b"GET /admin HTTP/1.1"),
        over_tcp(81, b"GET /admin HTTP/1.1"),
        over_tcp(80, b"xxGET /admin"),
        over_tcp(80, b"get /ADMIN"),
        over_udp(b"\xde\xad\xbe\xef"),
        over_udp(b"...\xde\xad\xbe\xef"),
        // The pattern is in Ethernet padding; in the next packet, in an IP header.
        [over_udp(b"...."), b"\xde\xad\xbe\xef".to_vec()].concat(),
        ipv4_from([0xde, 0xad, 0xbe, 0xef], UDP, &udp(1, 53)),
        // The pattern is beyond the UDP length.
        ipv4_from(
            HOST_10,
            UDP,
            &[&[0, 1, 0, 80, 0, 12, 0, 0][..], b"....\xde\xad\xbe\xef"].concat(),
        ),
        // Last, a later fragment and a packet that is not IP.
        ipv4(UDP, HOST_10, HOST_10, &[], 5, b"\xde\xad\xbe\xef...."),
        ethernet(0x0806, b"\xde\xad\xbe\xef"),
    ];
    let table = r#"{ signatures = [
        'drop proto tcp dport 80 text "GET /admin" depth 10',
        'drop proto udp hex "de ad be ef" offset 2',
    ] }"#;
    let (passed, report) = send_through_payload(table, &packets);
    assert_eq!(passed, [1, 2, 3, 4, 6, 7, 8, 9, 10]);
    assert_eq!(report.drops[Reason::SIGNATURE], 2);
    let counters: Vec<_> = report
        .paths
        .iter()
        .flat_map(|path| &path.stages)
        .flat_map(|stage| &stage.counters)
        .collect();
    assert!(
        [("scanned", 9), ("matched", 2), ("unread", 2)]
            .iter()
            .all(|counter| counters.contains(&counter)),
        "{counters:?}"
    );
    let no_case = r#"{ default = "drop", signatures = ['accept text "get /admin" nocase', 'accept hex "dead"'] }"#;
    assert_eq!(send_through_payload(no_case, &packets).0, [0, 1, 2, 3, 4, 5]);
    let limited =
        r#"{ signatures = ['continue text "GET" limit 1pps burst 2', 'drop text "xx"'] }"#;
    let (passed, report) = send_through_payload(limited, &packets);
    assert_eq!(
        (passed, report.drops[Reason::RATE_LIMIT]),
        (vec![0, 1, 3, 4, 5, 6, 7, 8, 9, 10], 1)
    );
}

/// The patterns `a`, `aa`, … each occur often in a packet, but count the packet once.
#[test]
fn each_nested_signature_counts_packet_with_many_matches_once() {
    let over_udp = |payload: &[u8]| {
        let length = (8 + payload.len() as u16).to_be_bytes();
        ipv4_from(HOST_10, UDP, &[&[0, 1, 0, 80][..], &length, &[0, 0], payload].concat())
    };
    let signatures: String =
        (1..=200).map(|n| format!("'continue text \"{}\"',", "a".repeat(n))).collect();
    let table = format!("{{ signatures = [{signatures} 'drop text \"aa\" offset 990'] }}");
    let packets = [over_udp(&[b'a'; 1000]), over_udp(&[b'a'; 990]), over_udp(&[b'b'; 1000])];
    let (passed, report) = send_through_payload(&table, &packets);
    assert_eq!((passed, report.drops[Reason::SIGNATURE]), (vec![1, 2], 1));
    let stages = report.paths.iter().flat_map(|path| &path.stages);
    let counters: Vec<_> = stages.flat_map(|stage| &stage.counters).collect();
    assert!(counters.contains(&&("matched", 401)), "{counters:?}");
}

#[test]
fn signatures_and_rules_that_overlap_too_much_are_rejected() {
    let signatures = "'continue dport 80 text \"attack\"',".repeat(600);
    let error = payload_plan(&format!("{{ signatures = [{signatures}] }}")).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("cannot compile 600 signatures: the signatures overlap so much")
            && error.contains("at most 512 are possible")
            && error.contains("the pattern text \"attack\""),
        "{error}"
    );
    let rules = r#""drop dscp 1","#.repeat(4097);
    let error = plan(&format!("{{ default = \"drop\", rules = [{rules}] }}")).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("4097 rules overlap so much"), "{error}");
    assert!(error.contains("at most 4096 are possible"), "{error}");
}

#[test]
fn error_names_file_line_and_column_of_invalid_signature() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wrong.signatures");
    std::fs::write(&file, "drop text \"fine\"\ndrop text bare\n").unwrap();
    let error = payload_plan(r#"{ signatures = "wrong.signatures" }"#).unwrap_err().to_string();
    assert!(
        error.contains(
            "wrong.signatures:2:11: invalid pattern `bare`: expected a text in double quotes"
        ),
        "{error}"
    );
}

#[test]
fn signatures_with_too_many_overlapping_conditions_are_rejected() {
    let plan = |count: usize| {
        let signatures: Vec<String> = (1..=count)
            .map(|n| format!(r#"'drop proto udp dport {n}-65535 hex "{n:06x}"'"#))
            .collect();
        payload_plan(&format!("{{ signatures = [{}] }}", signatures.join(", ")))
    };
    assert!(plan(512).is_ok());
    let error = plan(513).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("cannot compile 513 signatures: one packet could be compared with 513"),
        "{error}"
    );
}

#[test]
fn gtpu_inner_applies_rules_to_user_packets() {
    // A user packet, without Ethernet.
    let user_packet = |port: u16| ipv4_from(HOST_10, UDP, &udp(1, port))[14..].to_vec();
    let message = |flags: u8, kind: u8, extension: &[u8], inner: &[u8]| {
        let length = ((extension.len() + inner.len()) as u16).to_be_bytes();
        [&[flags, kind, length[0], length[1], 0, 0, 0, 7], extension, inner].concat()
    };
    let in_udp = |message: &[u8]| {
        let length = (8 + message.len() as u16).to_be_bytes();
        ipv4_from(HOST_11, UDP, &[&[8, 0x68, 8, 0x68][..], &length, &[0, 0], message].concat())
    };
    let pdu_session_container = [0, 0, 0, 0x85, 1, 0x10, 9, 0];
    let packets = [
        in_udp(&message(0x30, 255, &[], &user_packet(53))),
        in_udp(&message(0x34, 255, &pdu_session_container, &user_packet(53))),
        in_udp(&message(0x34, 255, &pdu_session_container, &user_packet(54))),
        in_udp(&message(0x34, 255, &pdu_session_container, &ipv6(UDP, &udp(1, 53))[14..])),
        // A GTP-U echo request, Ethernet in GTP-U, bytes that are not GTP-U, a truncated user
        // packet, and a UDP packet to another port.
        in_udp(&message(0x32, 1, &[0, 1, 0, 0], &[])),
        in_udp(&message(0x30, 255, &[], b"\x02\0\0\0\0\x01")),
        in_udp(b"hello, world"),
        in_udp(&message(0x30, 255, &[], &user_packet(53)[..24])),
        ipv4_from(HOST_10, UDP, &udp(1, 53)),
        // The last two carry GTP-U: an outer packet with IP options, and a first fragment.
        ipv4(
            UDP,
            HOST_11,
            HOST_10,
            &[1, 1, 1, 0],
            0,
            &in_udp(&message(0x30, 255, &[], &user_packet(53)))[34..],
        ),
        ipv4(
            UDP,
            HOST_11,
            HOST_10,
            &[],
            0x2000,
            &in_udp(&message(0x30, 255, &[], &user_packet(53)))[34..],
        ),
    ];
    let rules = r#"rules = ["accept src 10.0.0.0/8 proto udp dport 53", "accept src 11.0.0.0/8 dport 2152"]"#;
    let (passed, report) =
        send_through(&format!(r#"{{ default = "drop", {rules}, gtpu = "inner" }}"#), &packets);
    assert_eq!(passed, [0, 1, 4, 8]);
    assert_eq!((report.drops[Reason::POLICY], report.drops[Reason::MALFORMED]), (2, 2));
    assert_eq!(report.drops[Reason::NOT_IP], 1);
    assert_eq!((report.drops[Reason::IP_OPTIONS], report.drops[Reason::LATER_FRAGMENT]), (1, 1));
    assert_eq!(
        send_through(&format!(r#"{{ default = "drop", {rules} }}"#), &packets).0,
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]
    );
}

#[test]
fn filter_that_kernel_cannot_run_is_rejected_or_runs_in_user_space() {
    let repeated = |rule: &str, count: usize| vec![rule.to_owned(); count].join("\", \"");
    // Rules that differ only in port ranges share a bucket of the classifier.
    let overlapping: Vec<String> =
        (0..300).map(|n| format!("drop proto udp dport {n}-60000")).collect();
    let cases = [
        (
            r#"rules = ["drop limit 1kpps"]"#.to_owned(),
            "`drop limit 1kpps",
            "the XDP program does not support rate limits",
        ),
        (
            r#"rules = ["accept", "drop log 1/10"]"#.to_owned(),
            "`drop log 1/10`",
            "the XDP program does not support logging",
        ),
        (r#"rules = [], gtpu = "inner""#.to_owned(), "gtpu", "does not parse GTP-U"),
        (
            format!(r#"rules = ["{}"]"#, repeated("continue", 17)),
            "17 rules begin with `continue`",
            "supports at most 16",
        ),
        (format!("rules = {overlapping:?}"), "300 rules are so similar", "compares at most 256"),
    ];
    for (rules, subject, reason) in cases {
        let table =
            |place: &str| format!(r#"{{ default = "accept", place = "{place}", {rules} }}"#);
        let error = plan_error(&table("kernel")).to_string();
        assert!(error.contains("place = \"kernel\" is not possible"), "{error}");
        assert!(error.contains(subject) && error.contains(reason), "{error}");
        let fallback = plan(&table("auto")).unwrap();
        assert!(fallback.as_xdp_offload().is_none());
        assert!(
            fallback.summary().contains("not in the kernel: ")
                && fallback.summary().contains(reason)
        );
        assert!(!plan(&table("user")).unwrap().summary().contains("not in the kernel"));
    }
    let supported = r#"{ default = "accept", place = "auto", rules = ["drop proto udp"] }"#;
    assert!(!plan(supported).unwrap().as_xdp_offload().unwrap().is_required());
    assert!(
        plan(&supported.replace("auto", "kernel")).unwrap().as_xdp_offload().unwrap().is_required()
    );
    let error =
        plan_error(r#"{ default = "accept", rules = [], flow_cache = 1, place = "kernel" }"#)
            .to_string();
    assert!(error.contains("flow_cache works only in user space"), "{error}");
    for flows in ["-1", "1048577", "\"many\""] {
        let table = format!(r#"{{ default = "accept", rules = [], flow_cache = {flows} }}"#);
        let error = plan(&table).unwrap_err().to_string();
        assert!(error.contains("a number of flows, 0 to 1048576"), "{error}");
    }
}

#[test]
fn flow_cache_changes_no_verdict() {
    let mut rules: Vec<String> =
        (0..40).map(|n| format!("drop src 10.0.{n}.0/24 proto udp dport {}", 100 + n)).collect();
    rules.insert(0, "continue proto udp dport 101".into());
    let packets: Vec<Vec<u8>> = (0..200)
        .map(|n: u16| ipv4_from([10, 0, (n % 50) as u8, 1], UDP, &udp(1, 100 + n % 50)))
        .collect();
    let table = |cache: &str| format!(r#"{{ default = "accept", rules = {rules:?}{cache} }}"#);
    let (uncached_passed, uncached) = send_through(&table(""), &packets);
    let (cached_passed, cached) = send_through(&table(", flow_cache = 65536"), &packets);
    assert_eq!(uncached_passed, cached_passed);
    let counter = |report: &WorkerReport, name: &str| {
        let counters = &report.paths[0].stages[0].counters;
        counters.iter().find(|(counter, _)| *counter == name).map(|(_, count)| *count)
    };
    assert_eq!(counter(&uncached, "flow_cache_hits"), None);
    assert_eq!(counter(&uncached, "accepted"), counter(&cached, "accepted"));
    let (hits, misses) = (
        counter(&cached, "flow_cache_hits").unwrap(),
        counter(&cached, "flow_cache_misses").unwrap(),
    );
    assert_eq!(hits + misses, 200);
    assert!(hits >= 120, "only {hits} of 200 packets hit the flow cache");
}

#[test]
fn row_counters_of_a_range_equal_that_part_of_all() {
    use xdpfwd_pipeline::Stage as _;
    use xdpfwd_stages::filter::{Filter, FilterPlan};

    let plan =
        plan("{ default = \"drop\", rules = [\"continue\", \"accept proto udp\"] }").unwrap();
    let plan: &dyn std::any::Any = &*plan;
    let program = plan.downcast_ref::<FilterPlan>().unwrap().program();
    let mut filter = Filter::for_dry_run(Arc::clone(program));
    let ports = [0, 7, 0, 9, 0, 8, 0, 0];
    for protocol in [UDP, UDP, ICMP] {
        let packet = ipv4(protocol, [10, 0, 0, 1], [10, 0, 0, 2], &[], 0, &ports);
        let inspection = program.inspect(&packet, &xdpfwd_wire::Headers::parse(&packet));
        filter.decide(inspection, packet.len(), 0);
    }
    let counters = filter.row_counters();
    assert_eq!(counters[..3], [3, 2, 1]);
    // The counters from index 3 on count packet exceptions.
    assert!(counters.len() > 9 && counters[3..].iter().all(|counter| *counter == 0));
    for rows in [0..3, 1..2, 2..9, 3..9, 0..0, 4..5, 99..100, 1..usize::MAX] {
        let expected: Vec<u64> =
            counters.iter().copied().skip(rows.start).take(rows.len()).collect();
        assert_eq!(filter.row_counters_in(rows.clone()), expected, "{rows:?}");
    }
}
