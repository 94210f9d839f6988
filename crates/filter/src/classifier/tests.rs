//! Compares the classifier with a linear search.

use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use super::*;
use crate::key::{ExtensionHeaders, Fragment, L4};
use crate::rule::{FragmentMatch, Match, TcpFlags, Verdict, Version};

/// Returns one of only 36 addresses, so that rules overlap and packets match.
fn address_v4() -> impl Strategy<Value = u32> {
    (0..4_u32, 0..3_u32, 0..3_u32).prop_map(|(a, b, c)| 10 << 24 | a << 22 | b << 9 | c)
}

fn address_v6() -> impl Strategy<Value = u128> {
    (0..4_u128, 0..3_u128, 0..3_u128)
        .prop_map(|(a, b, c)| 0x2001_0db8 << 96 | a << 94 | b << 60 | c)
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        Just(0),
        Just(53),
        Just(80),
        Just(443),
        Just(1023),
        Just(1024),
        Just(u16::MAX),
        any::<u16>()
    ]
}

fn range() -> impl Strategy<Value = RangeInclusive<u16>> {
    prop_oneof![
        port().prop_map(|port| port..=port),
        (port(), port()).prop_map(|(a, b)| a.min(b)..=a.max(b)),
        Just(0..=u16::MAX),
        Just(1024..=u16::MAX)
    ]
}

fn rarely<S: Strategy>(strategy: S) -> impl Strategy<Value = Option<S::Value>> {
    prop::option::weighted(0.2, strategy)
}

fn often<S: Strategy>(strategy: S) -> impl Strategy<Value = Option<S::Value>> {
    prop::option::weighted(0.7, strategy)
}

fn prefix(v4: bool) -> BoxedStrategy<IpNet> {
    if v4 {
        let lengths =
            prop_oneof![Just(0_u8), Just(8), Just(10), Just(23), Just(24), Just(32), 0..=32_u8];
        (address_v4(), lengths)
            .prop_map(|(address, length)| {
                Ipv4Net::new(address.into(), length).unwrap().trunc().into()
            })
            .boxed()
    } else {
        let lengths = prop_oneof![Just(0_u8), Just(32), Just(34), Just(64), Just(128), 0..=128_u8];
        (address_v6(), lengths)
            .prop_map(|(address, length)| {
                Ipv6Net::new(address.into(), length).unwrap().trunc().into()
            })
            .boxed()
    }
}

fn protocol() -> impl Strategy<Value = u8> {
    // 60 and 51 are IPv6 extension headers.
    prop_oneof![Just(6), Just(17), Just(1), Just(58), Just(132), Just(50), Just(51), Just(60)]
}

pub(crate) fn matches() -> impl Strategy<Value = Match> {
    let addresses = any::<bool>().prop_flat_map(|v4| {
        (
            rarely(Just(if v4 { Version::V4 } else { Version::V6 })),
            often(prefix(v4)),
            often(prefix(v4)),
        )
    });
    let protocol_and_ports = (often(protocol()), rarely(range()), often(range()));
    let flags = any::<(u8, u8)>().prop_map(|(mask, value)| TcpFlags { mask, value: value & mask });
    let fragment = prop_oneof![
        Just(FragmentMatch::First),
        Just(FragmentMatch::Later),
        Just(FragmentMatch::Any)
    ];
    let other_fields = (
        rarely(flags),
        rarely(0..3_u8),
        rarely(0..3_u8),
        rarely(1..3_u16),
        rarely(1..3_u16),
        rarely(fragment),
        rarely(0..3_u8),
    );
    (addresses, protocol_and_ports, other_fields).prop_map(
        |(
            (version, source, destination),
            (protocol, source_port, destination_port),
            other_fields,
        )| {
            let (flags, icmp_type, icmp_code, vlan, inner_vlan, fragment, dscp) = other_fields;
            Match {
                version,
                source,
                destination,
                protocol,
                source_port,
                destination_port,
                flags,
                icmp_type,
                icmp_code,
                vlan,
                inner_vlan,
                fragment,
                dscp,
            }
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let verdict = prop_oneof![Just(Some(Verdict::Accept)), Just(Some(Verdict::Drop)), Just(None)];
    (matches(), verdict).prop_map(|(matches, verdict)| Rule { matches, verdict, ..Rule::default() })
}

fn key() -> impl Strategy<Value = Key> {
    let addresses = prop_oneof![
        (address_v4(), address_v4())
            .prop_map(|(source, destination)| Addresses::V4 { source, destination }),
        (address_v6(), address_v6())
            .prop_map(|(source, destination)| Addresses::V6 { source, destination })
    ];
    let l4 = prop_oneof![
        Just(L4::None),
        (port(), port()).prop_map(|(source, destination)| L4::Ports { source, destination }),
        (port(), port(), any::<u8>()).prop_map(|(source, destination, flags)| L4::Tcp {
            source,
            destination,
            flags
        }),
        (0..3_u8, 0..3_u8).prop_map(|(kind, code)| L4::Icmp { kind, code })
    ];
    let fragment = prop_oneof![
        3 => Just(Fragment::No),
        1 => Just(Fragment::First),
        1 => Just(Fragment::Later),
    ];
    let vlan = || prop_oneof![2 => Just(None), 1 => (0..3_u16).prop_map(Some)];
    let extensions = prop_oneof![Just(0), any::<u8>()].prop_map(ExtensionHeaders::from_bits);
    (addresses, protocol(), extensions, l4, fragment, 0..3_u8, vlan(), vlan()).prop_map(
        |(addresses, protocol, extensions, l4, fragment, dscp, vlan, inner_vlan)| Key {
            addresses,
            protocol,
            extensions,
            l4,
            fragment,
            dscp,
            vlan,
            inner_vlan,
        },
    )
}

fn linear_search(rules: &[Rule], key: &Key, from: u32) -> Option<u32> {
    (0..)
        .zip(rules)
        .find(|(number, rule)| *number >= from && rule.matches(key))
        .map(|(number, _)| number)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn classifier_and_flow_cache_find_same_rules_as_linear_search(
        rules in prop::collection::vec(rule(), 0..120),
        keys in prop::collection::vec(key(), 1..=64),
        seed: u64,
        from in 0..130_u32,
    ) {
        let classifier = Classifier::new(&rules, seed);
        let mut found = [0; Classifier::BATCH];
        classifier.classify(&keys, &mut found);
        for (key, found) in keys.iter().zip(found) {
            let expected = linear_search(&rules, key, 0);
            prop_assert_eq!(found, expected.unwrap_or(Classifier::NONE), "{:?}", key);
            prop_assert_eq!(classifier.first_match(key, 0), expected);
            prop_assert_eq!(classifier.first_match(key, from), linear_search(&rules, key, from));
            let all: Vec<u32> = classifier.matches(key, from).collect();
            let expected: Vec<u32> = (from..)
                .zip(rules.iter().skip(from as usize))
                .filter(|(_, rule)| rule.matches(key))
                .map(|(number, _)| number)
                .collect();
            prop_assert_eq!(all, expected, "{:?}", key);
        }
        // The cache has only 64 slots, so flows replace each other. The second pass finds cached
        // flows.
        let mut cache = FlowCache::new(0, seed);
        for _ in 0..2 {
            for keys in keys.chunks(40) {
                classifier.classify_cached(keys, &mut found, &mut cache);
                for (key, found) in keys.iter().zip(found) {
                    let expected = linear_search(&rules, key, 0).unwrap_or(Classifier::NONE);
                    prop_assert_eq!(found, expected, "{:?}", key);
                }
            }
        }
        let (hits, misses) = cache.hits_and_misses();
        prop_assert!(hits + misses <= 2 * keys.len() as u64);
        let shape = classifier.shape();
        let v4_rule_count =
            rules.iter().filter(|rule| rule.matches.version() != Some(Version::V6)).count();
        if v4_rule_count > 8 {
            prop_assert_eq!(shape.v4.iter().map(|tuple| tuple.rules).sum::<usize>(), v4_rule_count);
        }
    }

    #[test]
    fn shadowing_rule_is_earlier_and_matches_all_packets_of_shadowed_rule(
        rules in prop::collection::vec(rule(), 0..60),
        keys in prop::collection::vec(key(), 64),
    ) {
        let classifier = Classifier::new(&rules, 0);
        for shadowed in crate::shadowed(&rules, &classifier) {
            prop_assert!(shadowed.by < shadowed.rule);
            prop_assert!(rules[shadowed.by as usize].verdict.is_some());
            for key in &keys {
                if rules[shadowed.rule as usize].matches(key) {
                    let matches = rules[shadowed.by as usize].matches(key);
                    prop_assert!(matches, "{:?} {:?}", shadowed, key);
                }
            }
        }
    }
}

#[test]
fn flow_cache_hits_repeated_flows() {
    let rules: Vec<Rule> = (10..30)
        .map(|net| crate::parse_rule(&format!("drop dst {net}.0.0.0/8")).unwrap().unwrap())
        .collect();
    let (classifier, mut cache) = (Classifier::new(&rules, 1), FlowCache::new(1 << 16, 2));
    // The first key is all zeros, like an unused cache slot.
    let key = |n: u32| Key::new(Addresses::V4 { source: 0, destination: n }, 0, L4::None);
    let keys: Vec<Key> = (0..64).map(key).collect();
    let mut found = [7; Classifier::BATCH];
    for round in 0..10 {
        classifier.classify_cached(&keys, &mut found, &mut cache);
        assert_eq!(found, [Classifier::NONE; 64]);
        // Up to eight flows may miss in each round, because they share slots.
        let (hits, misses) = cache.hits_and_misses();
        assert!(hits >= round * 56 && misses >= 64, "{hits} {misses}");
    }
    let matching_key =
        Key { addresses: Addresses::V4 { source: 0, destination: 10 << 24 }, ..keys[0] };
    classifier.classify_cached(&[matching_key], &mut found, &mut cache);
    assert_eq!(found[0], 0);
}

#[test]
fn rule_after_wider_rule_with_verdict_is_shadowed() {
    let rules: Vec<Rule> = "continue\n\
         accept src 10.0.0.0/8 proto tcp dport 80-90\n\
         drop src 10.1.0.0/16 proto tcp dport 85\n\
         drop src 10.1.0.0/16 proto tcp dport 91\n\
         drop src 10.1.0.0/16 proto tcp\n\
         accept sport 0-65535\n\
         accept flags syn\n\
         accept proto 50"
        .lines()
        .map(|line| crate::parse_rule(line).unwrap().unwrap())
        .collect();
    let found: Vec<_> = crate::shadowed(&rules, &Classifier::new(&rules, 7))
        .iter()
        .map(|shadowed| (shadowed.rule, shadowed.by))
        .collect();
    // Rule 6 implies TCP, so its packets have ports.
    assert_eq!(found, [(2, 1), (6, 5)]);
}

#[test]
fn similar_rules_share_few_tuples_with_short_buckets() {
    let mut rules: Vec<Rule> = (0..2000_u32)
        .map(|host| {
            format!(
                "accept src 10.0.{}.{} proto tcp dport {}",
                host >> 8,
                host & 255,
                80 + host % 7
            )
        })
        .chain((0..200).map(|net| format!("drop dst 172.16.{net}.0/24")))
        .map(|line| crate::parse_rule(&line).unwrap().unwrap())
        .collect();
    rules.push(crate::parse_rule("drop").unwrap().unwrap());
    let shape = Classifier::new(&rules, 1).shape();
    assert!(shape.v4.len() <= 4, "{shape:?}");
    assert!(shape.v4.iter().all(|tuple| tuple.longest_bucket <= 8), "{shape:?}");
}

/// Tries the rules of crates/xdpfwd/tests/root_reload.rs. With a few seeds, their tables exceed a
/// limit of the XDP program; the filter stage then draws another seed.
#[test]
fn image_fits_xdp_program_with_most_seeds() {
    let rules = (0..2000_u32)
        .map(|n| format!("drop src 198.18.{}.0/24 proto tcp dport {}", n % 256, 1 + n / 256));
    let rules: Vec<Rule> = rules.map(|line| crate::parse_rule(&line).unwrap().unwrap()).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let rejected = (0..400).filter(|_| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        Classifier::new(&rules, state ^ state >> 29).image(&rules).is_err()
    });
    let rejected = rejected.count();
    println!("{rejected} of 400 seeds do not fit the XDP program");
    assert!(rejected < 40, "{rejected} of 400 seeds do not fit the XDP program");
}

/// The tables that select tuples (prune.rs) have a maximum number of tuples, tuple sets and parts.
/// Beyond it, the classifier searches more tuples than necessary, but finds the same rules.
#[test]
fn rules_beyond_table_limits_are_still_found() {
    let mut state = 7_u64;
    let mut draw = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 32) as u32
    };
    for v4 in [true, false] {
        let mut rules = Vec::new();
        for _ in 0..3000 {
            let (source, destination) = (draw(), draw());
            // The source prefixes need more than `MAX_PARTS` parts.
            let prefix = |address: u32, length: u8| -> IpNet {
                match v4 {
                    true => Ipv4Net::new(address.into(), length).unwrap().trunc().into(),
                    false => Ipv6Net::new((u128::from(address) << 96).into(), length)
                        .unwrap()
                        .trunc()
                        .into(),
                }
            };
            let (source_length, destination_length) =
                (20 + (draw() % 13) as u8, 1 + (draw() % 32) as u8);
            let matches = Match {
                source: Some(prefix(source, source_length)),
                destination: Some(prefix(destination, destination_length)),
                destination_port: draw().is_multiple_of(2).then(|| (draw() % 60000) as u16..=60000),
                protocol: draw().is_multiple_of(2).then_some(17),
                ..Match::default()
            };
            rules.push(Rule { matches, verdict: Some(Verdict::Accept), ..Rule::default() });
        }
        // 500 rules that match every packet share a bucket.
        rules.extend((0..500).map(|_| Rule { verdict: Some(Verdict::Drop), ..Rule::default() }));
        let classifier = Classifier::new(&rules, 3);
        for number in 0..600 {
            let rule = &rules[(draw() % 3000) as usize].matches;
            let address_in = |prefix: Option<IpNet>, host_bits: u32| match prefix.unwrap() {
                IpNet::V4(prefix) => {
                    u128::from(prefix.network().to_bits() | host_bits & !prefix.netmask().to_bits())
                }
                IpNet::V6(prefix) => prefix.network().to_bits() | u128::from(host_bits),
            };
            let (source, destination) =
                (address_in(rule.source, draw()), address_in(rule.destination, draw()));
            let addresses = match v4 {
                true => Addresses::V4 { source: source as u32, destination: destination as u32 },
                false => Addresses::V6 { source, destination },
            };
            let l4 = L4::Ports { source: draw() as u16, destination: draw() as u16 };
            let key = Key::new(addresses, 17, l4);
            assert_eq!(
                classifier.first_match(&key, 0),
                linear_search(&rules, &key, 0),
                "{number}: {key:?}"
            );
            let mut found = [0; Classifier::BATCH];
            classifier.classify(&[key], &mut found);
            assert_eq!(Some(found[0]), linear_search(&rules, &key, 0), "{number}: {key:?}");
        }
    }
}

/// A new lookup after each match would make the number of comparisons quadratic.
#[test]
fn matches_of_overlapping_rules_compare_each_rule_once() {
    for count in [8_u32, 100, 400, 1600] {
        let rules: Vec<Rule> = (0..count)
            .map(|n| crate::parse_rule(&format!("continue proto udp dport {}-90", n % 80)))
            .map(|rule| rule.unwrap().unwrap())
            .collect();
        let classifier = Classifier::new(&rules, 1);
        let udp = 17;
        let key = Key::new(
            Addresses::V4 { source: 1, destination: 2 },
            udp,
            L4::Ports { source: 1, destination: 85 },
        );
        let before = space::COMPARISONS.get();
        let found: Vec<u32> = classifier.matches(&key, 0).collect();
        let comparisons = space::COMPARISONS.get() - before;
        assert!(found.iter().copied().eq(0..count), "{found:?}");
        assert!(comparisons <= 2 * count as usize, "{count} rules, {comparisons} comparisons");
    }
}

#[test]
fn candidate_tuples_depend_on_addresses_that_rules_cover() {
    // Up to eight rules have no tuples.
    let rules = (0..20).map(|n| format!("drop src 10.0.{n}.0/24 proto udp dport {}", 1000 + n));
    let rules: Vec<Rule> = rules.map(|line| crate::parse_rule(&line).unwrap().unwrap()).collect();
    let candidates = |rules: &[Rule], source, dport| {
        let addresses = Addresses::V4 { source, destination: 1 };
        let ports = L4::Ports { source: 1, destination: dport };
        Classifier::new(rules, 1).candidate_tuples(&Key::new(addresses, 17, ports))
    };
    assert!(candidates(&rules, 10 << 24 | 3 << 8, 1003) >= 1);
    // No rule for this port matches, but rules of the same tuple have the port or the address.
    assert!(candidates(&rules, 10 << 24 | 3 << 8, 1004) >= 1);
    assert_eq!(candidates(&rules, 10 << 24 | 25 << 8, 1003), 0, "no rule has this source");
    assert_eq!(candidates(&rules, 10 << 24 | 3 << 8, 9), 0, "no rule has this port");
    assert_eq!(candidates(&rules[..2], 192 << 24, 9), 1, "compared one by one");
}
