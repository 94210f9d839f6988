//! Parses and classifies an arbitrary frame. A single lookup and a batch must find the same rule as
//! a linear search.
#![no_main]

use std::sync::LazyLock;

use xdpfwd_filter::{Classifier, Rule, parse};
use xdpfwd_stages::filter::{Inspection, inspect};
use xdpfwd_wire::Headers;

const RULES: &str = "drop src 10.0.0.0/8 proto tcp dport 22
continue fragment any
accept dst 2001:db8::/32 proto icmpv6 icmp-type 128
accept proto udp sport 1024-65535 dport 53
drop flags syn,!ack
accept vlan 7
drop inner-vlan 7
drop proto ah
accept proto 60
drop dscp 46
accept proto icmp icmp-code 0
drop dst 192.0.2.0/24
accept sport 80
drop fragment later
accept";

static RULE_SET: LazyLock<(Vec<Rule>, Classifier)> = LazyLock::new(|| {
    let rules: Vec<Rule> = parse(RULES).unwrap().into_iter().map(|(_, rule)| rule).collect();
    let hash_seed = 7;
    let classifier = Classifier::new(&rules, hash_seed);
    (rules, classifier)
});

libfuzzer_sys::fuzz_target!(|frame: &[u8]| {
    let headers = Headers::parse(frame);
    assert!(headers.l3_offset <= headers.l4_offset && headers.l4_offset <= headers.l3_end);
    assert!(usize::from(headers.l3_end) <= frame.len());
    let (rules, classifier) = &*RULE_SET;
    // The key has the header fields that rules match. Some unusual packets (`Exception`), such as
    // IPv4 with options, have a key too.
    if let Inspection::Key(key) | Inspection::Exception(_, Some(key)) = inspect(frame, &headers) {
        let expected =
            (0..).zip(rules).find(|(_, rule)| rule.matches(&key)).map(|(number, _)| number);
        let from_rule = 0;
        assert_eq!(classifier.first_match(&key, from_rule), expected);
        let mut found = [0; Classifier::BATCH];
        classifier.classify(&[key], &mut found);
        assert_eq!(found[0], expected.unwrap_or(Classifier::NONE));
    }
});
