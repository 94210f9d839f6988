//! A million packets by lot against a thousand sets of rules by lot, in the XDP program: `BPF_PROG_TEST_RUN` comes to the verdict of
//! looking at each rule, and of the stage in user space; and counts what they count.

#[path = "../../pipeline/tests/support/random_filter.rs"]
mod random_filter;

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use engine::{Judgement, Keep, XdpProgram};
use nix::sched::{CloneFlags, unshare};
use pipeline::Reason;
use pipeline::stages::filter::{Filter, FilterPlan, look_at};
use pipeline::wire::Headers;
use random_filter::{Lot, RuleSet, packet};
use xsk::{HugePages, Opened, Port as _, UmemConfig, XskPort};

const SETS: usize = 1024;
const PACKETS: usize = 1024;
/// Rules without a verdict that the XDP program takes.
const MOST_GO_ON: usize = 16;

/// A socket for packets to be meant for: without one, they are not the filter's.
fn socket() -> Opened<XskPort> {
    // A loopback of its own, for this thread.
    unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| panic!("{error} (needs root: `make test`)"));
    let umem = UmemConfig { frames: 256, huge_pages: HugePages::Off, ..UmemConfig::default() };
    xsk::Builder::new(umem).mode(xsk::BindMode::Copy).queue("lo", 1, 0).open().unwrap()
}

#[test]
fn a_million_packets_are_judged_in_the_kernel_as_in_user_space() {
    let seed = random_filter::seed();
    let mut lot = Lot::new(seed);
    let opened = socket();
    let fd = opened.ports[0].fd().unwrap();
    let (mut cases, mut by_a_rule, mut mangled) = (0, 0, 0);
    for set in 0..SETS {
        let drawn = RuleSet::draw(&mut lot, MOST_GO_ON);
        let plan = drawn.plan("kernel");
        let kernel = &plan.for_kernel().unwrap().filter;
        let mut program = XdpProgram::load(1, &Keep::new(), Some(kernel)).unwrap();
        program.direct(0, fd).unwrap();
        let any: &dyn Any = &*plan;
        let mut stage = Filter::new(Arc::clone(any.downcast_ref::<FilterPlan>().unwrap().program()));
        let mut drops: HashMap<Reason, u64> = HashMap::new();
        for number in 0..PACKETS {
            let (frame, was_mangled) = packet(&mut lot);
            // The kernel runs nothing on less than an Ethernet header.
            if frame.len() < 14 {
                continue;
            }
            let expected = drawn.by_looking(&frame);
            let in_user_space = stage.judge(look_at(&frame, &Headers::parse(&frame)), frame.len(), 0);
            let in_kernel = program.judge(&frame).unwrap();
            let of_kernel = if expected.drop.is_some() { Judgement::Dropped } else { Judgement::ForStages };
            let what =
                || format!("FILTER_SEED={seed}, set {set}, packet {number}: {frame:02x?} by {:#?}", drawn.written);
            assert_eq!(in_user_space, expected, "{}", what());
            assert_eq!(in_kernel, of_kernel, "{expected:?}: {}", what());
            if let Some(reason) = expected.drop {
                *drops.entry(reason).or_default() += 1;
            }
            cases += 1;
            by_a_rule += usize::from(expected.rule.is_some());
            mangled += usize::from(was_mangled);
        }
        // Which rule it was is in the counters, and why it was dropped.
        let matched = program.matched().unwrap();
        assert_eq!(matched.rules, stage.hits(), "FILTER_SEED={seed}, set {set}: {:#?}", drawn.written);
        let counted: HashMap<Reason, u64> = program.counters().drops().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, drops, "FILTER_SEED={seed}, set {set}: {:#?}", drawn.written);
    }
    println!("{cases} packets, {by_a_rule} decided by a rule, {mangled} mangled");
    assert!(cases >= 1_000_000);
    assert!(by_a_rule * 100 >= cases * 30, "{by_a_rule} of {cases} decided by a rule");
    assert!(mangled * 100 >= cases * 20, "{mangled} of {cases} mangled");
}
