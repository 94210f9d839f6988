//! Tests which packets the stage `filter` matches against rules, and which it treats as packet
//! exceptions (packets that can mislead a filter): VLAN tags of every type, IPv6 extension headers,
//! packets other than IP.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use xdpfwd_pipeline::{Inspectable as _, PlanCx, Reason, Stage as _, StagePlan};
use xdpfwd_stages::filter::{Filter, FilterPlan, Outcome, PacketException};
use xdpfwd_wire::Headers;

fn plan(table: &str) -> Arc<dyn StagePlan> {
    let workers = 1;
    xdpfwd_testkit::plan("filter", table, &PlanCx::new(Path::new("."), workers))
        .unwrap_or_else(|error| panic!("{table}: {error}"))
}

fn filter(table: &str) -> Filter {
    let plan = plan(table);
    let plan: &dyn Any = &*plan;
    Filter::new(Arc::clone(plan.downcast_ref::<FilterPlan>().unwrap().program()))
}

fn decide(table: &str, frame: &[u8]) -> Outcome {
    let mut filter = filter(table);
    let plan = plan(table);
    let plan: &dyn Any = &*plan;
    let program = plan.downcast_ref::<FilterPlan>().unwrap().program();
    let now = 0;
    filter.decide(program.inspect(frame, &Headers::parse(frame)), frame.len(), now)
}

/// Returns the drop reason with `default = "accept"` and `settings`.
fn drop_by(settings: &str, frame: &[u8]) -> Option<Reason> {
    decide(&format!(r#"{{ default = "accept", {settings} }}"#), frame).drop
}

fn is_dropped_by_rule(rule: &str, frame: &[u8]) -> bool {
    let Outcome { drop, rule: by, .. } =
        decide(&format!(r#"{{ default = "accept", rules = ["{rule}"] }}"#), frame);
    assert_eq!(drop.is_some(), by.is_some(), "{rule}: {drop:?}");
    drop == Some(Reason::POLICY)
}

const TCP_PORT_22: [u8; 20] = [4, 0, 0, 22, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0];

/// Returns an Ethernet frame. `types_and_tags` is everything between the MAC addresses and the IP
/// header.
fn frame(types_and_tags: &[u8], l3: &[u8]) -> Vec<u8> {
    [b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01", types_and_tags, l3].concat()
}

/// Returns an IPv4 packet with TCP to port 22.
fn ipv4() -> Vec<u8> {
    let header = [0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    [&header[..], &TCP_PORT_22].concat()
}

/// Returns an IPv6 packet with TCP to port 22 after extension headers. Each has a type, and the
/// bytes after its next-header field.
fn ipv6(extensions: &[(u8, &[u8])]) -> Vec<u8> {
    let next = |index: usize| extensions.get(index).map_or(6, |(kind, _)| *kind);
    let chain: Vec<u8> = extensions
        .iter()
        .enumerate()
        .flat_map(|(index, (_, content))| [&[next(index + 1)], *content].concat())
        .collect();
    let length = ((chain.len() + TCP_PORT_22.len()) as u16).to_be_bytes();
    let mut addresses = [0; 32];
    (addresses[0], addresses[15], addresses[16], addresses[31]) = (0x20, 1, 0x20, 2);
    let fixed = [0x60, 0, 0, 0, length[0], length[1], next(0), 64];
    [&fixed[..], &addresses, &chain, &TCP_PORT_22].concat()
}

fn ipv6_frame(extensions: &[(u8, &[u8])]) -> Vec<u8> {
    frame(&[0x86, 0xdd], &ipv6(extensions))
}

// Extension headers without the next-header field.
const OPTIONS: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
const AH: &[u8] = &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const FIRST_FRAGMENT: &[u8] = &[0, 0, 1, 0, 0, 0, 9];

/// Returns a routing header without the next-header field.
fn routing(kind: u8, segments_left: u8) -> [u8; 7] {
    [0, kind, segments_left, 0, 0, 0, 0]
}

const TAG_TYPES: [[u8; 2]; 5] =
    [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00], [0x92, 0x00], [0x93, 0x00]];

#[test]
fn rules_match_ip_after_tags_of_every_type() {
    for tpid in TAG_TYPES {
        let [a, b] = tpid;
        let single = frame(&[a, b, 0, 10, 8, 0], &ipv4());
        let double = frame(&[a, b, 0, 7, a, b, 0, 10, 8, 0], &ipv4());
        for tagged in [&single, &double] {
            assert!(is_dropped_by_rule("drop proto tcp dport 22", tagged), "{tpid:02x?}");
        }
        assert!(is_dropped_by_rule("drop vlan 10", &single));
        assert!(!is_dropped_by_rule("drop vlan 10", &double));
        assert!(!is_dropped_by_rule("drop inner-vlan 10", &single));
        assert!(is_dropped_by_rule("drop inner-vlan 10", &double));
        assert!(is_dropped_by_rule("drop vlan 7 inner-vlan 10", &double));
        assert!(!is_dropped_by_rule("drop vlan 10 inner-vlan 7", &double));
        let triple = frame(&[a, b, 0, 7, 0x81, 0, 0, 8, 0x88, 0xa8, 0, 9, 8, 0], &ipv4());
        assert_eq!(drop_by("rules = []", &triple), Some(Reason::VLAN_STACK));
    }
}

#[test]
fn vlan_rule_skips_priority_tags() {
    for [a, b] in TAG_TYPES {
        // VLANs of the two tags: 0 (with priority 7) and 10; 10 and 0; 0 and 0.
        let hidden = frame(&[a, b, 0xe0, 0, 0x81, 0, 0, 10, 8, 0], &ipv4());
        let followed = frame(&[0x81, 0, 0, 10, a, b, 0, 0, 8, 0], &ipv4());
        let none = frame(&[a, b, 0, 0, 0x81, 0, 0, 0, 8, 0], &ipv4());
        assert!(is_dropped_by_rule("drop vlan 10", &hidden));
        assert!(is_dropped_by_rule("drop vlan 10", &followed));
        for packet in [&hidden, &followed, &none] {
            assert!(!is_dropped_by_rule("drop inner-vlan 10", packet));
        }
        assert!(!is_dropped_by_rule("drop vlan 10", &none));
        assert!(is_dropped_by_rule("drop dport 22", &none));
    }
}

#[test]
fn routing_header_with_segments_left_has_its_own_key_and_reason() {
    // Types 0 (source route), 2 (mobile IPv6), 4 (SRv6) and an unknown one.
    for kind in [0, 2, 4, 77] {
        let [done, left] = [0, 1].map(|segments_left| {
            ipv6_frame(&[(60, OPTIONS), (43, &routing(kind, segments_left)), (44, FIRST_FRAGMENT)])
        });
        assert_eq!(drop_by("rules = []", &done), None);
        assert_eq!(drop_by("rules = []", &left), Some(Reason::ROUTING_HEADER));
        assert!(is_dropped_by_rule("drop dport 22", &done));
        let judged = r#"routing_header = "judge", rules = ["drop dport 22"]"#;
        assert_eq!(drop_by(judged, &left), Some(Reason::POLICY));
        let accepted = r#"routing_header = "accept", rules = ["drop"]"#;
        assert_eq!(drop_by(accepted, &left), None);
        // `routing_header` also applies if no upper header follows (next header 59).
        let last = frame(&[0x86, 0xdd], &{
            let mut packet = ipv6(&[(43, &routing(kind, 255))]);
            packet[40] = 59;
            packet
        });
        assert_eq!(drop_by("rules = []", &last), Some(Reason::ROUTING_HEADER));
    }
    let two = ipv6_frame(&[(43, &routing(0, 0)), (60, OPTIONS), (43, &routing(4, 3))]);
    assert_eq!(drop_by("rules = []", &two), Some(Reason::ROUTING_HEADER));
}

#[test]
fn routing_header_inside_gtpu_is_found() {
    let inner = ipv6(&[(43, &routing(4, 1))]);
    let length = (inner.len() as u16).to_be_bytes();
    let gtpu = [&[0x30, 255, length[0], length[1], 0, 0, 0, 7][..], &inner].concat();
    let udp_length = (gtpu.len() as u16 + 8).to_be_bytes();
    let udp = [&[8, 0x68, 8, 0x68, udp_length[0], udp_length[1], 0, 0][..], &gtpu].concat();
    let total = (udp.len() as u16 + 20).to_be_bytes();
    let outer = [0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let packet = frame(&[0x91, 0, 0, 7, 0x81, 0, 0, 8, 8, 0], &[&outer[..], &udp].concat());
    let no_rule = r#"gtpu = "inner", rules = []"#;
    assert_eq!(drop_by(no_rule, &packet), Some(Reason::ROUTING_HEADER));
    let rule = r#"gtpu = "inner", routing_header = "judge",
                  rules = ["drop vlan 7 inner-vlan 8 ipv6 proto 43 "]"#;
    assert_eq!(drop_by(rule, &packet), Some(Reason::POLICY));
    assert_eq!(drop_by("rules = []", &packet), None);
}

/// The first fragment has only a part of the user packet. A sender must not get this part through
/// the filter by adding options.
#[test]
fn first_fragment_of_gtpu_counts_as_later_fragment_despite_options_or_routing_header() {
    let udp = [8, 0x68, 8, 0x68, 0, 20, 0, 0, 0x30, 255, 0, 4, 0, 0, 0, 7, 0x45, 0, 0, 40];
    let v4 = |options: &[u8], flags: u8| {
        let words = 5 + options.len() as u8 / 4;
        let length = 4 * words + udp.len() as u8;
        let header = [
            &[0x40 | words, 0, 0, length, 0, 0, flags, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2],
            options,
        ]
        .concat();
        frame(&[8, 0], &[&header[..], &udp].concat())
    };
    let routed = {
        let routing = [&[44][..], &routing(0, 1)].concat();
        let fragment = [17, 0, 0, 1, 0, 0, 0, 9];
        let chain = [&routing[..], &fragment, &udp].concat();
        let mut header = vec![0x60, 0, 0, 0, 0, chain.len() as u8, 43, 64];
        header.extend([0x20; 32]);
        frame(&[0x86, 0xdd], &[&header[..], &chain].concat())
    };
    let options = [1, 1, 1, 0];
    let packets = [
        (v4(&[], 0x20), "later_fragments", Reason::LATER_FRAGMENT),
        (v4(&options, 0x20), "ip_options", Reason::IP_OPTIONS),
        (routed, "routing_header", Reason::ROUTING_HEADER),
    ];
    let outcome = |settings: &str, packet: &[u8]| {
        let rule = r#"rules = ["accept proto udp dport 2152"], gtpu = "inner""#;
        decide(&format!(r#"{{ default = "accept", {rule}{settings} }}"#), packet)
    };
    let by = |drop, exception| Outcome { drop, rule: None, exception: Some(exception) };
    for (packet, key, reason) in &packets {
        let dropped = by(Some(Reason::LATER_FRAGMENT), PacketException::LaterFragment);
        let judge = r#", ip_options = "judge", routing_header = "judge""#;
        assert_eq!(outcome("", packet).drop, Some(*reason), "{key}");
        assert_eq!(outcome(judge, packet), dropped, "{key}");
        for (action, expected) in [
            ("judge", dropped),
            ("drop", dropped),
            ("accept", by(None, PacketException::LaterFragment)),
        ] {
            let settings = format!(r#"{judge}, later_fragments = "{action}""#);
            assert_eq!(outcome(&settings, packet), expected, "{key}, {action}");
        }
        // `ip_options` and `routing_header` precede `later_fragments`.
        if *key != "later_fragments" {
            let accept = format!(r#", {key} = "accept", later_fragments = "drop""#);
            assert_eq!(outcome(&accept, packet).drop, None, "{key}");
        }
    }
    // If a GTP-U packet with options is whole, rules match the outer packet.
    let whole = outcome(r#", ip_options = "judge""#, &v4(&options, 0));
    assert_eq!(whole, Outcome { drop: None, rule: Some(0), exception: None });
}

#[test]
fn protocol_of_extension_header_matches_any_header_of_ipv6() {
    let all: [(u8, &[u8]); 8] = [
        (0, OPTIONS),
        (60, OPTIONS),
        (43, &[0, 0, 0, 0, 0, 0, 0]),
        (44, FIRST_FRAGMENT),
        (51, AH),
        (135, OPTIONS),
        (139, OPTIONS),
        (140, OPTIONS),
    ];
    for (kind, content) in all {
        let names = if kind == 51 { vec!["51", "ah"] } else { vec![] };
        for name in [&*kind.to_string()].into_iter().chain(names) {
            let rule = format!("drop proto {name}");
            assert!(is_dropped_by_rule(&rule, &ipv6_frame(&[(kind, content)])), "{rule}");
            assert!(is_dropped_by_rule(&rule, &ipv6_frame(&all)), "{rule}");
            assert!(!is_dropped_by_rule(&rule, &ipv6_frame(&[])), "{rule}");
            let others: Vec<_> = all.into_iter().filter(|(other, _)| *other != kind).collect();
            assert!(!is_dropped_by_rule(&rule, &ipv6_frame(&others)), "{rule}");
            assert!(!is_dropped_by_rule(&rule, &frame(&[8, 0], &ipv4())), "{rule}");
            // In IPv4, the rule compares only the protocol field.
            let mut packet = ipv4();
            packet[9] = kind;
            assert!(is_dropped_by_rule(&rule, &frame(&[8, 0], &packet)), "{rule}");
        }
        // The upper protocol is found after each header.
        let packet = ipv6_frame(&[(kind, content)]);
        assert!(is_dropped_by_rule("drop proto tcp dport 22", &packet), "{kind}");
        assert!(is_dropped_by_rule("drop ipv6 flags syn", &packet), "{kind}");
    }
    // In a later fragment, the fragment header names a header that only the first fragment has.
    let later = ipv6_frame(&[(44, &[0, 0, 8, 0, 0, 0, 9])]);
    let mut named = later.clone();
    named[54] = 51;
    let judge = |rule: &str| format!(r#"later_fragments = "judge", rules = ["{rule}"]"#);
    assert_eq!(drop_by(&judge("drop proto ah"), &named), Some(Reason::POLICY));
    assert_eq!(drop_by(&judge("drop proto ah"), &later), None);
}

#[test]
fn default_drop_accepts_arp_but_no_other_packet_that_is_not_ip() {
    let arp = frame(&[8, 6], &[0; 28]);
    let tagged_arp = frame(&[0x93, 0, 0, 7, 8, 6], &[0; 28]);
    let pppoe = frame(&[0x88, 0x64, 0x11, 0, 0, 1, 0, 42, 0, 0x21], &ipv4());
    let mpls = frame(&[0x88, 0x47, 0, 1, 1, 64], &ipv4());
    let llc = frame(&[0, 38], &[0x42; 38]);
    let rarp = frame(&[0x80, 0x35], &[0; 28]);
    let outcome = |settings: &str, packet: &[u8]| decide(&format!("{{ {settings} }}"), packet);
    let by_exception = |drop, exception| Outcome { drop, rule: None, exception: Some(exception) };
    for settings in [
        r#"default = "drop", rules = []"#,
        r#"default = "drop", rules = ["accept"]"#,
        r#"default = "accept", rules = [], not_ip = "arp""#,
    ] {
        for packet in [&arp, &tagged_arp] {
            let expected = by_exception(None, PacketException::Arp);
            assert_eq!(outcome(settings, packet), expected);
        }
        for packet in [&pppoe, &mpls, &llc, &rarp] {
            let expected = by_exception(Some(Reason::NOT_IP), PacketException::NotIp);
            assert_eq!(outcome(settings, packet), expected, "{packet:02x?}");
        }
    }
    for packet in [&arp, &pppoe] {
        let drop = outcome(r#"default = "accept", rules = [], not_ip = "drop""#, packet).drop;
        assert_eq!(drop, Some(Reason::NOT_IP));
        for accept in [
            r#"default = "accept", rules = ["drop"]"#,
            r#"default = "drop", rules = [], not_ip = "accept""#,
        ] {
            assert_eq!(outcome(accept, packet).drop, None);
        }
    }
    // An ordinary packet is no exception.
    let accepted = outcome(r#"default = "accept", rules = []"#, &frame(&[8, 0], &ipv4()));
    assert_eq!(accepted, Outcome { drop: None, rule: None, exception: None });
}

#[test]
fn default_drop_warns_of_each_exception_that_accepts() {
    let warnings = |settings: &str| -> Vec<String> {
        let table = format!("{{ rules = [], {settings} }}");
        plan(&table).warnings().iter().map(|warning| warning.message.clone()).collect()
    };
    for exception in PacketException::WITH_KEY {
        let key = exception.key();
        let found = warnings(&format!(r#"default = "drop", {key} = "accept""#));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&format!(r#"{key} = "accept" lets "#)), "{found:?}");
        assert!(found[0].contains("without a rule, although the default is to drop"), "{found:?}");
        assert_eq!(warnings(&format!(r#"default = "drop", {key} = "drop""#)), [""; 0]);
        assert_eq!(warnings(&format!(r#"default = "accept", {key} = "accept""#)), [""; 0]);
    }
    assert_eq!(warnings(r#"default = "drop", not_ip = "arp", ip_options = "judge""#), [""; 0]);
}

#[test]
fn plan_shows_settings_and_counts_packets_of_each_exception() {
    let table = r#"{ default = "drop", rules = ["accept proto tcp"], ip_options = "judge" }"#;
    let settings = plan(table).settings();
    assert_eq!(
        settings,
        [
            ("not_ip", "arp"),
            ("malformed", "drop"),
            ("vlan_stack", "drop"),
            ("extension_chain", "drop"),
            ("ip_options", "judge"),
            ("routing_header", "drop"),
            ("later_fragments", "drop"),
        ]
    );
    assert_eq!(plan(r#"{ default = "accept", rules = [] }"#).settings()[0], ("not_ip", "accept"));
    let plan = plan(table);
    let plan: &dyn Any = &*plan;
    let plan = plan.downcast_ref::<FilterPlan>().unwrap();
    let mut filter = Filter::new(Arc::clone(plan.program()));
    for packet in [
        frame(&[8, 6], &[0; 28]),
        frame(&[8, 6], &[0; 28]),
        frame(&[0x88, 0x47, 0, 1, 1, 64], &ipv4()),
        ipv6_frame(&[(43, &routing(0, 1))]),
        frame(&[8, 0], &ipv4()),
    ] {
        filter.decide(plan.program().inspect(&packet, &Headers::parse(&packet)), packet.len(), 0);
    }
    let [rules, exceptions] = plan.tables(&filter.row_counters()).try_into().unwrap();
    assert_eq!(plan.counter_keys().len(), filter.row_counters().len());
    assert_eq!((rules.name, exceptions.name), ("rules", "exceptions"));
    let rows = |table: &xdpfwd_pipeline::Table| -> Vec<String> {
        let text = |row: &Vec<xdpfwd_pipeline::Cell>| {
            row.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        table.rows.iter().map(text).collect()
    };
    assert_eq!(rows(&rules), ["0 1 accept proto tcp", "- 0 (default)"]);
    assert_eq!(
        rows(&exceptions),
        [
            "not_ip 2 1",
            "malformed 0 0",
            "vlan_stack 0 0",
            "extension_chain 0 0",
            "ip_options 0 0",
            "routing_header 0 1",
            "later_fragment 0 0",
        ]
    );
}

#[test]
fn plan_needs_vlan_tags_if_a_rule_compares_them() {
    for (rules, needs) in [
        (r#"["drop vlan 7"]"#, true),
        (r#"["accept", "drop inner-vlan 7"]"#, true),
        (r#"["drop proto tcp"]"#, false),
    ] {
        let table = format!(r#"{{ default = "accept", rules = {rules} }}"#);
        assert_eq!(plan(&table).needs_vlan_tags(), needs, "{rules}");
    }
}
