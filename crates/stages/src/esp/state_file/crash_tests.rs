//! Tests that a crash or a failed write, at any operation on the disk, repeats no sequence number
//! or IV, and forgets the received packets of at most one second.

use std::sync::Arc;
use std::thread;

use proptest::prelude::*;
use xdpfwd_ipsec::{Epoch, Fingerprint};
use xdpfwd_xsk::clock;

use super::fake_disk::{Crash, FakeDisk};
use super::layout::{self, Content};
use super::numbers::{InboundProgress, MAX_UNWRITTEN, OutboundNumbers, STEP};
use super::shared::{Entry, Shared};
use super::slots::Slots;
use super::writer::{Snapshot, Writer};
use crate::esp::state::{Direction, SequenceState, State};

const OUT: (Direction, u32) = (Direction::Out, 300);
const IN: (Direction, u32) = (Direction::In, 400);

fn fingerprint() -> Fingerprint {
    "1".repeat(16).parse().unwrap()
}

fn empty_file() -> Vec<u8> {
    layout::file(&State { epoch: 7, sas: Vec::new() }, 1, 0).0
}

/// A run of xdpfwd whose writer runs only when the test calls it, at times that the test sets.
struct Run {
    disk: FakeDisk,
    shared: Arc<Shared>,
    writer: Writer<FakeDisk>,
    outbound: Arc<OutboundNumbers>,
    inbound: Arc<InboundProgress>,
}

impl Run {
    /// Returns `None` if the disk fails at the start.
    fn start(disk: &FakeDisk, content: Content) -> Option<Self> {
        let mut slots = Slots::new(disk.clone(), &content);
        let mut state = content.state;
        // The worst case: the clock is not later than the stored epoch.
        state.epoch += 1;
        slots.write(&state).ok()?;
        let (mut next, mut highest) = (1, None);
        for sa in &state.sas {
            match sa.sequence {
                SequenceState::Out { next: stored, .. } => next = stored,
                SequenceState::In { highest: stored } => highest = Some(stored),
            }
        }
        let epoch = Epoch::from_number(state.epoch);
        let shared = Arc::new(Shared::new("x".into(), state, epoch, slots.capacity()));
        let outbound = OutboundNumbers::new(next, 0, true, None, thread::current());
        let (outbound, inbound) = (Arc::new(outbound), Arc::new(InboundProgress::new(highest)));
        let mut entries = shared.lock();
        let key = |(direction, spi)| (direction, spi, fingerprint());
        entries.sas.insert(key(OUT), Entry::Out(Arc::clone(&outbound)));
        entries.sas.insert(key(IN), Entry::In(Arc::clone(&inbound)));
        drop(entries);
        let writer = Writer::new(Arc::clone(&shared), slots);
        Some(Self { disk: disk.clone(), shared, writer, outbound, inbound })
    }

    fn write(&mut self, now: u64, is_last: bool) -> bool {
        let mut snapshot = Snapshot::take(&self.shared, is_last);
        snapshot.taken_at = now;
        self.writer.write(&snapshot)
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Reserves outbound numbers.
    Send(u64),
    /// Receives a packet with a number higher by this much, if the SA does not refuse it.
    Receive(u64),
    Write,
    NextEpoch,
    /// Advances the time, in thousandths of [`MAX_UNWRITTEN`].
    Wait(u64),
    Fail {
        after: usize,
        for_ever: bool,
    },
    Repair,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..STEP).prop_map(Step::Send),
        4 => (1_u64..100).prop_map(Step::Receive),
        4 => Just(Step::Write),
        1 => Just(Step::NextEpoch),
        3 => (0_u64..700).prop_map(Step::Wait),
        1 => (0_usize..6, any::<bool>()).prop_map(|(after, for_ever)| Step::Fail { after, for_ever }),
        1 => Just(Step::Repair),
    ];
    prop::collection::vec(step, 0..25)
}

/// The end of a run: the number of operations of the last write that succeed before the crash, and
/// what the crash leaves of unsynced writes.
fn crashes() -> impl Strategy<Value = (usize, Crash)> {
    (0_usize..6, prop_oneof![Just(Crash::Kill), any::<u64>().prop_map(Crash::PowerLoss)])
}

fn check_runs(runs: Vec<(Vec<Step>, (usize, Crash))>) -> Result<(), TestCaseError> {
    let mut bytes = empty_file();
    let mut now = clock::cycles();
    let bound = (clock::cycles_per_second() * MAX_UNWRITTEN.as_secs_f64()) as u64;
    let (mut highest_sent, mut highest_epoch) = (0, 0);
    // Received numbers with their times.
    let mut received: Vec<(u64, u64)> = Vec::new();
    for (steps, (operations, crash)) in runs {
        let content = match layout::parse(&bytes) {
            Ok(content) => content,
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let disk = FakeDisk::new(bytes.clone());
        let Some(mut run) = Run::start(&disk, content) else { continue };
        // Received numbers that the file lacks, by time.
        let forgotten = received.drain(..).filter(|(number, _)| *number > run.inbound.highest());
        let forgotten: Vec<_> = forgotten.collect();
        if let (Some((_, first)), Some((_, last))) = (forgotten.first(), forgotten.last()) {
            prop_assert!(
                last - first <= bound,
                "forgotten, in {} cycles: {forgotten:?}",
                last - first
            );
        }
        prop_assert!(run.shared.epoch().number() > highest_epoch);
        for step in steps {
            match step {
                Step::Send(count) => {
                    if let Ok(range) = run.outbound.reserve(count) {
                        prop_assert!(range.start > highest_sent, "{range:?}");
                        highest_sent = range.end - 1;
                    }
                    highest_epoch = run.shared.epoch().number();
                }
                Step::Receive(step) if !run.inbound.is_overdue(now) => {
                    let number = run.inbound.highest() + step;
                    run.inbound.set_highest(number, now);
                    received.push((number, now));
                }
                Step::Receive(_) => {}
                Step::Write => {
                    let succeeded = run.write(now, false);
                    prop_assert_eq!(run.shared.fault().is_none(), succeeded);
                    let content = layout::parse(&disk.content_after(Crash::Kill)).unwrap();
                    let could_mark = run.shared.lock().mark_failure.is_none();
                    prop_assert!(succeeded != content.has_failed || !could_mark);
                }
                Step::NextEpoch => {
                    let next = run.shared.epoch().number() + 1;
                    run.shared.epoch_wanted.store(next, std::sync::atomic::Ordering::Relaxed);
                }
                Step::Wait(thousandths) => now += bound / 1000 * thousandths,
                Step::Fail { after, for_ever } => disk.fail_after(after, for_ever),
                Step::Repair => disk.repair(),
            }
        }
        run.disk.fail_after(operations, true);
        run.write(now, false);
        bytes = disk.content_after(crash);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn crash_at_any_operation_repeats_nothing_and_forgets_at_most_a_second(
        runs in prop::collection::vec((steps(), crashes()), 1..6)
    ) {
        check_runs(runs)?;
    }
}

/// Returns a run that has written twice, so that both slots have the SAs.
fn running() -> (FakeDisk, Run) {
    let disk = FakeDisk::new(empty_file());
    let mut run = Run::start(&disk, layout::parse(&empty_file()).unwrap()).unwrap();
    let now = clock::cycles();
    assert!(run.write(now, false) && run.write(now, false));
    (disk, run)
}

#[test]
fn failed_write_is_marked_until_a_write_succeeds() {
    // First, writing the slot fails; then, syncing it.
    for operation in 0..2 {
        let (disk, mut run) = running();
        let is_marked =
            || layout::parse(&disk.content_after(Crash::PowerLoss(0))).unwrap().has_failed;
        let now = clock::cycles();
        run.inbound.set_highest(20, now);
        disk.fail_after(operation, false);
        assert!(!run.write(now, false) && is_marked(), "operation {operation}");
        let fault = run.shared.fault().unwrap();
        assert!(fault.contains("inbound packets are dropped as state_file"), "{fault}");
        assert!(run.write(now, false) && !is_marked());
        assert_eq!(run.shared.fault(), None);
    }
}

#[test]
fn fault_reports_that_failure_cannot_be_marked() {
    let (disk, mut run) = running();
    disk.fail_after(0, true);
    assert!(!run.write(clock::cycles(), false));
    run.shared.stopping.store(true, std::sync::atomic::Ordering::Release);
    let fault = run.shared.fault().unwrap();
    assert!(fault.contains("cannot record this failure either (no storage space)"), "{fault}");
    assert!(fault.contains("create new keys and a new state file before"), "{fault}");
    // The next failed write tries again to set the mark.
    disk.fail_after(0, false);
    assert!(!run.write(clock::cycles(), true));
    let fault = run.shared.fault().unwrap();
    assert!(fault.contains("the next start refuses the file"), "{fault}");
}

#[test]
fn write_without_room_on_disk_succeeds_and_growth_fails_without_mark() {
    let (disk, mut run) = running();
    disk.set_room(false);
    let now = clock::cycles();
    run.inbound.set_highest(20, now);
    assert!(run.write(now, false));
    let many = State { epoch: 9, sas: Vec::new() };
    assert!(run.writer.grow(&many, 1000).is_err());
    assert!(run.write(now, true));
    let content = layout::parse(&disk.content_after(Crash::PowerLoss(0))).unwrap();
    assert!(!content.has_failed);
    assert!(content.state.sas.iter().any(|sa| sa.sequence == SequenceState::In { highest: 20 }));
}

#[test]
fn inbound_sa_is_overdue_only_while_old_numbers_are_unwritten() {
    let (disk, mut run) = running();
    let second = (clock::cycles_per_second() * MAX_UNWRITTEN.as_secs_f64()) as u64;
    let start = clock::cycles();
    // However long an SA was idle, it accepts packets when traffic starts.
    let traffic = start + 100 * second;
    assert!(!run.inbound.is_overdue(traffic));
    run.inbound.set_highest(1, traffic);
    assert!(!run.inbound.is_overdue(traffic + second / 2));
    assert!(run.inbound.is_overdue(traffic + second + 1));
    // After a write, numbers that were received before its start are not overdue.
    let written_at = traffic + second / 2;
    run.write(written_at, false);
    assert!(!run.inbound.is_overdue(traffic + 10 * second));
    run.inbound.set_highest(2, written_at + 1);
    run.inbound.set_highest(9, written_at + second / 2);
    disk.fail_after(0, true);
    assert!(!run.write(written_at + second / 2, false));
    assert!(!run.inbound.is_overdue(written_at + second));
    assert!(run.inbound.is_overdue(written_at + second + 2));
    disk.repair();
    // With constant traffic, some number always waits for the next write, but none for a second.
    for quarter in 0..20 {
        let now = written_at + 2 * second + quarter * second / 4;
        assert!(run.write(now, false));
        run.inbound.set_highest(10 + quarter, now + 1);
        assert!(!run.inbound.is_overdue(now + second / 4));
    }
}

#[test]
fn damaged_slot_leaves_the_other_with_skipped_numbers() {
    let (disk, mut run) = running();
    let now = clock::cycles();
    run.inbound.set_highest(20, now);
    assert!(run.write(now, false));
    let bytes = disk.content_after(Crash::Kill);
    let whole = layout::parse(&bytes).unwrap();
    let position = whole.slots.unwrap();
    for slot in 0..2 {
        for offset in [0, 20, 100] {
            let mut bytes = bytes.clone();
            bytes[position.slot_offset(slot) + offset] ^= 1;
            let content = layout::parse(&bytes).unwrap();
            assert_eq!(content.slots.unwrap().newest, 1 - slot);
            assert!(content.state.epoch > whole.state.epoch);
            let next = |state: &State| {
                state.sas.iter().find_map(|sa| match sa.sequence {
                    SequenceState::Out { next, .. } => Some(next),
                    SequenceState::In { .. } => None,
                })
            };
            assert_eq!(next(&content.state), next(&whole.state).map(|next| next + STEP));
        }
    }
    let mut both = bytes.clone();
    both[position.slot_offset(0)] ^= 1;
    both[position.slot_offset(1)] ^= 1;
    assert_eq!(
        layout::parse(&both).unwrap_err().to_string(),
        "both copies of the state are damaged"
    );
    for len in [0, 1, 100, layout::HEADER_LEN, bytes.len() / 2, bytes.len() - 1] {
        assert!(layout::parse(&bytes[..len]).is_err(), "{len} bytes");
    }
    let text = String::from_utf8(bytes).unwrap();
    assert!(layout::parse(text.replace("= false", "= maybe").as_bytes()).is_err());
}

#[test]
fn slot_has_room_for_the_longest_text_of_its_capacity() {
    let longest = |spi| crate::esp::state::SaState {
        spi: u32::MAX - spi,
        fingerprint: fingerprint(),
        sequence: SequenceState::Out { next: u64::MAX, bytes: u64::MAX },
    };
    for sas in [0, 1, 24, 25, 500, State::MAX_SAS] {
        let state = State { epoch: u32::MAX, sas: (0..sas as u32).map(longest).collect() };
        let slot_len = layout::slot_len_for(sas);
        assert!(layout::capacity(slot_len) >= sas);
        assert!(layout::slot(&state, u64::MAX).len() <= slot_len, "{sas} SAs");
    }
    let (bytes, position) =
        layout::file(&State { epoch: 1, sas: (0..30).map(longest).collect() }, 5, 0);
    let content = layout::parse(&bytes).unwrap();
    assert_eq!((content.state.sas.len(), content.slots), (30, Some(position)));
}
