//! Compares decisions and counters of the filter in the XDP program (`BPF_PROG_TEST_RUN`) with
//! those of a linear search and of the filter stage in user space, for a million random packets and
//! a thousand random rule sets. Needs root.

use std::any::Any;
use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use xdpfwd_engine::{Keep, XdpDecision, XdpProgram};
use xdpfwd_pipeline::{Reason, Stage as _};
use xdpfwd_stages::filter::{Filter, FilterPlan, inspect};
use xdpfwd_testkit::random_filter::{RuleSet, SplitMix64, packet};
use xdpfwd_wire::Headers;
use xdpfwd_xsk::{HugePages, OpenPorts, Port as _, UmemConfig, XskPort};

const PACKETS_PER_SET: usize = 1024;
/// Number of queues; all packets are on queue 0.
const QUEUES: u16 = 1;
/// The current time in clock cycles, passed to the filter stage. Only rate limits use it.
const NOW: u64 = 0;
/// Maximum number of `continue` rules (without verdict) in a set.
const MAX_CONTINUE_RULES: usize = 16;

/// Opens a socket in a new network namespace. The XDP program filters only packets of queues with a
/// socket.
fn open_socket() -> OpenPorts<XskPort> {
    unshare(CloneFlags::CLONE_NEWNET)
        .unwrap_or_else(|error| panic!("{error} (needs root: `make test`)"));
    let (loopback_index, queue) = (1, 0);
    let umem = UmemConfig { frames: 256, huge_pages: HugePages::Off, ..UmemConfig::default() };
    xdpfwd_xsk::Builder::new(umem)
        .mode(xdpfwd_xsk::BindMode::Copy)
        .queue("lo", loopback_index, queue)
        .open()
        .unwrap()
}

#[derive(Default)]
struct PacketCounts {
    packets: usize,
    /// Packets whose verdict comes from a rule.
    by_rule: usize,
    /// Randomly changed packets.
    mangled: usize,
}

#[test]
fn kernel_and_user_space_filters_agree_on_million_packets() {
    compare_filters(1024);
}

#[test]
#[ignore = "long: make test-long"]
fn kernel_and_user_space_filters_agree_on_ten_million_packets() {
    compare_filters(10_240);
}

/// Uses several threads: the kernel's verifier takes most of the time, and checks each program on
/// one core.
fn compare_filters(sets: usize) {
    let seed = xdpfwd_testkit::random_filter::seed();
    let threads = thread::available_parallelism().map_or(1, usize::from).min(4);
    let thread_counts = thread::scope(|scope| {
        let spawn =
            |first| scope.spawn(move || compare_rule_sets(seed, (first..sets).step_by(threads)));
        let handles: Vec<_> = (0..threads).map(spawn).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect::<Vec<_>>()
    });
    let sum = |field: fn(&PacketCounts) -> usize| thread_counts.iter().map(field).sum::<usize>();
    let (packets, by_rule, mangled) =
        (sum(|counts| counts.packets), sum(|counts| counts.by_rule), sum(|counts| counts.mangled));
    println!("{packets} packets, {by_rule} decided by a rule, {mangled} mangled");
    assert!(packets >= sets * 1_000_000 / 1024, "only {packets} packets were tested");
    assert!(
        by_rule * 100 >= packets * 30,
        "a rule decided only {by_rule} of {packets} packets (expected at least 30 %)"
    );
    assert!(
        mangled * 100 >= packets * 20,
        "only {mangled} of {packets} packets were mangled (expected at least 20 %)"
    );
}

/// Compares the filters for each rule set. Its rules and packets come from its own random numbers.
fn compare_rule_sets(seed: u64, sets: impl Iterator<Item = usize>) -> PacketCounts {
    let opened = open_socket();
    let fd = opened.ports[0].fd().unwrap();
    let mut counts = PacketCounts::default();
    for set in sets {
        // Consecutive seeds would produce overlapping sequences: draw each seed.
        let mut random = SplitMix64::new(SplitMix64::new(seed.wrapping_add(set as u64)).draw());
        let drawn = RuleSet::draw(&mut random, MAX_CONTINUE_RULES);
        let plan = drawn.plan("kernel");
        let kernel = plan.as_xdp_offload().unwrap().image();
        let mut program = XdpProgram::load(QUEUES, &Keep::new(), Some(kernel)).unwrap();
        program.redirect(0, fd).unwrap();
        let plan_any: &dyn Any = &*plan;
        let mut stage =
            Filter::new(Arc::clone(plan_any.downcast_ref::<FilterPlan>().unwrap().program()));
        let mut drops: HashMap<Reason, u64> = HashMap::new();
        for number in 0..PACKETS_PER_SET {
            let (frame, was_mangled) = packet(&mut random);
            // The kernel runs no XDP program on frames shorter than an Ethernet header.
            if frame.len() < 14 {
                continue;
            }
            let expected = drawn.linear_outcome(&frame);
            let user_outcome =
                stage.decide(inspect(&frame, &Headers::parse(&frame)), frame.len(), NOW);
            let kernel_decision = program.test_run(&frame).unwrap();
            let expected_decision =
                if expected.drop.is_some() { XdpDecision::Dropped } else { XdpDecision::ForStages };
            let context = || {
                format!(
                    "FILTER_SEED={seed}, set {set}, packet {number}: {frame:02x?}, rules {:#?}",
                    drawn.rule_texts
                )
            };
            assert_eq!(user_outcome, expected, "{}", context());
            assert_eq!(kernel_decision, expected_decision, "{expected:?}: {}", context());
            if let Some(reason) = expected.drop {
                *drops.entry(reason).or_default() += 1;
            }
            counts.packets += 1;
            counts.by_rule += usize::from(expected.rule.is_some());
            counts.mangled += usize::from(was_mangled);
        }
        assert_eq!(
            program.row_counters().unwrap(),
            stage.row_counters(),
            "FILTER_SEED={seed}, set {set}: {:#?}",
            drawn.rule_texts
        );
        let counted: HashMap<Reason, u64> =
            program.counters().drops().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, drops, "FILTER_SEED={seed}, set {set}: {:#?}", drawn.rule_texts);
    }
    counts
}

/// Unlike small rule sets, 4000 rules give the classifier dozens of tuples (combinations of prefix
/// lengths), second-level address tables (`parts_v4`, `parts_v6`; the first level has 16 bits), and
/// overflowed groups of four hash tags (`tags_v4`).
#[test]
fn kernel_and_user_space_filters_agree_with_4000_rules() {
    let seed = xdpfwd_testkit::random_filter::seed();
    let mut random = SplitMix64::new(seed);
    let opened = open_socket();
    let v4 = |address: u64, length: u32| {
        let address = address as u32 & u32::MAX.checked_shl(32 - length).unwrap_or(0);
        format!("{}/{length}", std::net::Ipv4Addr::from_bits(address))
    };
    let v6 = |address: u64, length: u32| {
        let address = u128::from(address) << 64 & u128::MAX.checked_shl(128 - length).unwrap_or(0);
        format!("{}/{length}", std::net::Ipv6Addr::from_bits(address))
    };
    let mut rule_addresses = Vec::new();
    let rule_texts: Vec<String> = (0..4000)
        .map(|_| {
            let (source, destination, is_v4) = (random.draw(), random.draw(), random.one_in(2));
            let verdict = random.choose(&["accept", "drop"]);
            let ports = if random.one_in(2) { " proto udp dport 0-1023" } else { " proto udp" };
            let (source_len, destination_len) =
                (8 + random.below(25) as u32, 1 + random.below(32) as u32);
            rule_addresses.push((source, destination, is_v4));
            if is_v4 {
                format!(
                    "{verdict} src {} dst {}{ports}",
                    v4(source, source_len),
                    v4(destination, destination_len)
                )
            } else {
                format!(
                    "{verdict} src {} dst {}{ports}",
                    v6(source, 2 * source_len),
                    v6(destination, 2 * destination_len)
                )
            }
        })
        .collect();
    let drawn = RuleSet::from_rules(rule_texts, &mut random, MAX_CONTINUE_RULES);
    let in_user_space = drawn.plan("user");
    // Each plan has its own hash seed. Create plans until one has an overflowed tag group: a full
    // group whose further entries are in other groups. The top bit of an overflowed group is 1.
    let has_overflowed_group = |plan: &Arc<dyn xdpfwd_pipeline::StagePlan>| {
        let image = plan.as_xdp_offload().unwrap().image();
        let tags = &image.tables.arrays.iter().find(|array| array.map == "tags_v4").unwrap().bytes;
        tags.as_chunks().0.iter().any(|tags| u64::from_ne_bytes(*tags) >> 63 == 1)
    };
    let in_kernel = std::iter::repeat_with(|| drawn.plan("kernel"))
        .take(50)
        .find(has_overflowed_group)
        .expect("none of 50 plans has an overflowed tag group");
    let kernel = in_kernel.as_xdp_offload().unwrap().image();
    // A map's number of values.
    let values =
        |map: &str| kernel.tables.arrays.iter().find(|array| array.map == map).unwrap().values;
    assert!(
        values("parts_v4") > 100 && values("parts_v6") > 100,
        "too few second-level address tables"
    );
    let mut program = XdpProgram::load(QUEUES, &Keep::new(), Some(kernel)).unwrap();
    program.redirect(0, opened.ports[0].fd().unwrap()).unwrap();
    let plan_any: &dyn Any = &*in_user_space;
    let mut stage =
        Filter::new(Arc::clone(plan_any.downcast_ref::<FilterPlan>().unwrap().program()));
    for number in 0..40_000 {
        // The packet has the source of a rule, sometimes modified, and the destination of the same
        // or another rule.
        let ((source, _, is_v4), (_, destination, _)) =
            (random.choose(&rule_addresses), random.choose(&rule_addresses));
        let (use_other_rule, same_rule) = (
            random.one_in(3),
            rule_addresses.iter().find(|addresses| addresses.0 == source).unwrap(),
        );
        let destination = if use_other_rule { destination } else { same_rule.1 };
        let source = if random.one_in(3) { source ^ 1 << random.below(32) } else { source };
        let mut frame = b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01".to_vec();
        let udp = [4, 0, random.choose(&[0, 3, 4]), 53, 0, 8, 0, 0];
        if is_v4 {
            frame.extend([8, 0, 0x45, 0, 0, 28, 0, 7, 0x40, 0, 64, 17, 0, 0]);
            frame.extend((source as u32).to_be_bytes());
            frame.extend((destination as u32).to_be_bytes());
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
            frame.extend((u128::from(source) << 64).to_be_bytes());
            frame.extend((u128::from(destination) << 64).to_be_bytes());
        }
        frame.extend(udp);
        let outcome = stage.decide(inspect(&frame, &Headers::parse(&frame)), frame.len(), NOW);
        let expected =
            if outcome.drop.is_some() { XdpDecision::Dropped } else { XdpDecision::ForStages };
        assert_eq!(
            program.test_run(&frame).unwrap(),
            expected,
            "FILTER_SEED={seed}, packet {number}: {outcome:?} {frame:02x?}"
        );
        if number % 50 == 0 {
            assert_eq!(
                drawn.linear_outcome(&frame),
                outcome,
                "FILTER_SEED={seed}, packet {number}"
            );
        }
    }
    assert_eq!(program.row_counters().unwrap(), stage.row_counters());
    let matched_rules = stage.hits().iter().filter(|packets| **packets > 0).count();
    assert!(matched_rules > 1000, "packets matched only {matched_rules} of 4000 rules");
}

#[test]
fn kept_packet_bypasses_kernel_filter() {
    let keep: Keep = ["arp".parse().unwrap()].into();
    let drop_all = RuleSet::from_rules(vec!["drop".into()], &mut SplitMix64::new(1), 0);
    let plan = drop_all.plan("kernel");
    let opened = open_socket();
    let mut program =
        XdpProgram::load(QUEUES, &keep, Some(plan.as_xdp_offload().unwrap().image())).unwrap();
    program.redirect(0, opened.ports[0].fd().unwrap()).unwrap();
    let all_uses = xdpfwd_engine::AddressUse { destination: true, target: true };
    let own = xdpfwd_engine::OwnAddresses {
        ipv4: [("192.0.2.1".parse().unwrap(), all_uses)].into(),
        ..Default::default()
    };
    program.update_addresses(&own).unwrap();
    let arp_request = |target: u8| {
        let mut frame = vec![0xff; 6];
        frame.extend(
            b"\x02\0\0\0\0\x01\x08\x06\0\x01\x08\0\x06\x04\0\x01\x02\0\0\0\0\x01\xc0\0\x02\x09\0\0\0\0\0\0\xc0\0\x02",
        );
        frame.push(target);
        frame
    };
    assert_eq!(program.test_run(&arp_request(1)).unwrap(), XdpDecision::Kept);
    let ipv4_packet = [
        &arp_request(1)[..12],
        &[8, 0, 0x45, 0, 0, 20, 0, 7, 0x40, 0, 64, 59, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2],
    ]
    .concat();
    assert_eq!(program.test_run(&ipv4_packet).unwrap(), XdpDecision::Dropped);
}
