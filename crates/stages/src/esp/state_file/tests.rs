use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use xdpfwd_ipsec::{Epoch, Exhausted, Fingerprint, Ivs};
use xdpfwd_testkit::Folder;
use xdpfwd_xsk::clock;

use super::disk::{Disk, lock};
use super::epoch::now;
use super::error::WriteFailure;
use super::fake_disk::FakeDisk;
use super::layout::{self, Content};
use super::numbers::STEP;
use super::shared::Entry;
use super::slots::{Condition, Slots, Storage};
use super::writer::INBOUND_INTERVAL;
use super::*;
use crate::esp::private_file::effective_user;
use crate::esp::state::{Direction, SaState, SequenceState, State};

/// The argument `extended`: extended sequence numbers.
const ESN: bool = true;

/// Returns a fingerprint of one repeated digit.
fn fingerprint(digit: &str) -> Fingerprint {
    digit.repeat(16).parse().unwrap()
}

fn create_state(folder: &Folder) -> PathBuf {
    let path = folder.join("wan.state");
    StateFile::create(&path).unwrap();
    path
}

fn read_content(path: &Path) -> Content {
    layout::parse(&fs::read(path).unwrap()).unwrap()
}

fn read_state(path: &Path) -> State {
    read_content(path).state
}

fn sequence_of(path: &Path, direction: Direction, spi: u32) -> Option<SequenceState> {
    let is_wanted = |sa: &&SaState| (sa.direction(), sa.spi) == (direction, spi);
    read_state(path).sas.iter().find(is_wanted).map(|sa| sa.sequence)
}

/// Returns the error of `open`, which must name the path.
fn open_error(path: &Path) -> String {
    let text = StateFile::open(path).unwrap_err().to_string();
    assert!(text.starts_with(&format!("state file {}: ", path.display())), "{text}");
    text
}

fn write_state(path: &Path, epoch: u64) {
    fs::write(path, State { epoch: epoch as u32, sas: Vec::new() }.to_text()).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

#[track_caller]
fn wait_until(description: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "timeout after 30 s; expected: {description}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Reserves all available sequence numbers and returns their count, or `None` if it exceeds `max`.
fn drain(outbound: &OutboundNumbers, max: u64) -> Option<u64> {
    let mut count = 0;
    loop {
        match outbound.reserve(64) {
            Ok(range) => count += range.end - range.start,
            Err(Exhausted::NotStored) => return Some(count),
            Err(Exhausted::Limit) => panic!("reached the limit of the SA"),
        }
        if count > max {
            return None;
        }
    }
}

#[test]
fn created_file_is_private_and_never_overwritten_by_create() {
    let folder = Folder::new();
    let before = now();
    let path = create_state(&folder);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let state = read_state(&path);
    assert!((before - 1..=now()).contains(&u64::from(state.epoch)), "{state:?}");
    let error = StateFile::create(&path).unwrap_err().to_string();
    assert!(
        error.contains("exists and was not changed") && error.contains("remove it first: rm "),
        "{error}"
    );
    assert_eq!(read_state(&path), state);

    let file = StateFile::open(&path).unwrap();
    assert!(read_state(&path).epoch > state.epoch, "`open` did not write a later epoch");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert!(file.is_at(&folder.join("../").join(folder.file_name().unwrap()).join("wan.state")));
    assert!(!file.is_at(&folder.join("lan.state")));
    assert_eq!(file.path(), path.canonicalize().unwrap());
    let file_count = fs::read_dir(&*folder).unwrap().count();
    assert_eq!(file_count, 1, "expected only the state file in its folder");
}

#[test]
fn open_error_names_cause_and_remedy() {
    let folder = Folder::new();
    let path = folder.join("wan.state");
    let new_state = format!("xdpfwd esp new-state {}", path.display());
    assert!(open_error(&path).contains(&new_state));
    StateFile::create(&path).unwrap();

    symlink(&path, folder.join("link")).unwrap();
    assert!(open_error(&folder.join("link")).contains("is a symbolic link"));
    assert!(open_error(&folder).contains("is not a regular file"));

    fs::set_permissions(&path, Permissions::from_mode(0o620)).unwrap();
    let text = open_error(&path);
    assert!(text.contains("(mode 0620)") && text.contains("run: chmod 600 "), "{text}");
    write_state(&path, 7);
    if effective_user() == 0 {
        chown(&path, Some(4321), None).unwrap();
        assert!(open_error(&path).contains("belongs to user 4321, but xdpfwd runs as user 0"));
        let text = StateFile::accept(&path).unwrap_err().to_string();
        let command = format!("sudo -u '#4321' xdpfwd esp accept-state {}", path.display());
        assert!(text.contains(&command) && !text.contains("chown"), "{text}");
        chown(&path, Some(0), None).unwrap();
    }

    let valid = fs::read(&path).unwrap();
    fs::write(&path, &valid[..valid.len() - 4]).unwrap();
    let text = open_error(&path);
    assert!(text.contains("is incomplete") && text.contains("\"# end\", is missing"), "{text}");
    assert!(text.contains("(xdpfwd esp new-key)") && text.contains(&new_state), "{text}");
    fs::write(&path, vec![b'#'; State::MAX_LEN + 10]).unwrap();
    assert!(open_error(&path).contains("exceed the maximum of 16777216"));
    assert_eq!(
        fs::metadata(&path).unwrap().len(),
        State::MAX_LEN as u64 + 10,
        "`open` changed the invalid file"
    );
}

#[test]
fn open_waits_only_if_clock_is_slightly_behind_last_epoch() {
    let folder = Folder::new();
    let path = folder.join("wan.state");
    write_state(&path, now() + 100);
    let text = open_error(&path);
    assert!(text.contains("behind the last used epoch") && text.contains("(date)"), "{text}");
    write_state(&path, u64::from(u32::MAX));
    open_error(&path);

    let ahead = now() + 3;
    write_state(&path, ahead);
    drop(StateFile::open(&path).unwrap());
    assert!(now() >= ahead, "`open` did not wait until the clock reached the last epoch");
    assert_eq!(u64::from(read_state(&path).epoch), ahead + 1);
}

#[test]
fn open_rejects_file_that_is_locked_elsewhere() {
    let folder = Folder::new();
    let path = create_state(&folder);
    let file = StateFile::open(&path).unwrap();
    assert!(open_error(&path).contains("is in use"));
    // After a write, the file is still locked.
    file.outbound(300, fingerprint("1"), ESN, None).unwrap();
    assert!(open_error(&path).contains("is in use"));
    let can_other_process_lock =
        || Command::new("flock").arg("-n").arg(&path).arg("true").status().unwrap().success();
    assert!(!can_other_process_lock());
    drop(file);
    assert!(can_other_process_lock());

    let mut locker = Command::new("flock")
        .arg(&path)
        .args(["cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the other process locks the file", || !can_other_process_lock());
    assert!(open_error(&path).contains("is in use"));
    drop(locker.stdin.take());
    locker.wait().unwrap();
    StateFile::open(&path).unwrap();
}

#[test]
fn replaced_file_cannot_be_locked() {
    let folder = Folder::new();
    let path = folder.join("wan.state");
    write_state(&path, 7);
    let reopen = || OpenOptions::new().read(true).open(&path).unwrap();
    let (old, file) = (reopen(), StateFile::open(&path).unwrap());
    // `StateFile::open` has replaced the file `old`, of version 1. No process has locked `old`.
    assert!(lock(old, &path, &path).unwrap().is_none());
    assert!(lock(reopen(), &path, &path).unwrap_err().to_string().contains("in use"));
    drop(file);
    assert!(lock(reopen(), &path, &path).unwrap().is_some());

    // Every attempt to open the file fails while another thread repeatedly replaces it.
    let file = StateFile::open(&path).unwrap();
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100 {
                // Change the length, so that the writer replaces the file.
                OpenOptions::new().append(true).open(&path).unwrap().write_all(b"\n").unwrap();
                file.write_and_wait().unwrap();
            }
            has_ended.store(true, Ordering::Relaxed);
        });
        let mut attempts = 0;
        while !has_ended.load(Ordering::Relaxed) {
            assert!(open_error(&path).contains("in use"));
            attempts += 1;
        }
        assert!(attempts > 20, "only {attempts} attempts to open the file");
    });
}

#[test]
fn write_changes_neither_inode_nor_length() {
    let folder = Folder::new();
    let path = create_state(&folder);
    let shape = || {
        let metadata = fs::metadata(&path).unwrap();
        (metadata.ino(), metadata.len(), metadata.blocks(), fs::read_dir(&*folder).unwrap().count())
    };
    let before = shape();
    let file = StateFile::open(&path).unwrap();
    file.outbound(300, fingerprint("1"), ESN, None).unwrap();
    file.inbound(400, fingerprint("2")).unwrap().set_highest(4711, clock::cycles());
    for _ in 0..5 {
        assert!(file.write_and_wait().unwrap().is_none());
    }
    drop(file);
    assert_eq!(shape(), before);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\nversion = 2\nwrite_failed = false\n"), "{text}");
}

#[test]
fn file_grows_for_many_sas_and_keeps_them() {
    let folder = Folder::new();
    let path = create_state(&folder);
    let file = StateFile::open(&path).unwrap();
    for spi in 300..500 {
        file.outbound(spi, fingerprint("1"), ESN, None).unwrap();
        file.inbound(spi, fingerprint("2")).unwrap().set_highest(spi.into(), clock::cycles());
    }
    drop(file);
    let state = read_state(&path);
    assert_eq!(state.sas.len(), 400);
    for spi in 300..500 {
        let highest = sequence_of(&path, Direction::In, spi);
        assert_eq!(highest, Some(SequenceState::In { highest: spi.into() }));
    }
    assert_eq!(fs::read_dir(&*folder).unwrap().count(), 1);
}

#[test]
fn file_of_version_1_is_converted_with_its_numbers() {
    let folder = Folder::new();
    let path = folder.join("wan.state");
    let sas = [SequenceState::Out { next: 77, bytes: 5 }, SequenceState::In { highest: 4711 }]
        .map(|sequence| SaState { spi: 300, fingerprint: fingerprint("1"), sequence });
    fs::write(&path, State { epoch: 7, sas: sas.to_vec() }.to_text()).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let file = StateFile::open(&path).unwrap();
    assert!(read_content(&path).slots.is_some());
    let outbound = file.outbound(300, fingerprint("1"), ESN, None).unwrap();
    assert_eq!((outbound.reserve(1), outbound.bytes()), (Ok(77..78), 5));
    assert_eq!(file.inbound(300, fingerprint("1")).unwrap().highest(), 4711);
}

#[test]
fn truncated_or_overwritten_file_is_restored_by_next_write() {
    let folder = Folder::new();
    let path = create_state(&folder);
    let old = fs::read(&path).unwrap();
    let file = StateFile::open(&path).unwrap();
    let inbound = file.inbound(400, fingerprint("2")).unwrap();
    for (highest, content) in [(5, &b""[..]), (6, b"other"), (7, &old)] {
        // Overwrite the same file (inode), as `cp` does.
        fs::write(&path, content).unwrap();
        inbound.set_highest(highest, clock::cycles());
        assert!(file.write_and_wait().unwrap().is_none());
        assert_eq!(sequence_of(&path, Direction::In, 400), Some(SequenceState::In { highest }));
        assert!(open_error(&path).contains("is in use"));
    }
}

#[test]
fn marked_file_is_rejected_until_it_is_accepted() {
    let folder = Folder::new();
    let path = create_state(&folder);
    assert!(!StateFile::accept(&path).unwrap());
    let text = fs::read_to_string(&path).unwrap();
    // The new text has the original length.
    fs::write(&path, text.replacen("write_failed = false\n", "write_failed = true\n\n", 1))
        .unwrap();
    let error = open_error(&path);
    let command = format!("xdpfwd esp accept-state {}", path.display());
    assert!(error.contains("records a failed write") && error.contains(&command), "{error}");
    assert!(open_error(&path).contains("esp new-key"), "the first error has changed the file");
    assert!(StateFile::accept(&path).unwrap());
    let file = StateFile::open(&path).unwrap();
    assert!(StateFile::accept(&path).unwrap_err().to_string().contains("is in use"));
    assert_eq!(file.fault(), None);
}

#[test]
fn iv_ranges_of_workers_and_runs_are_disjoint() {
    let folder = Folder::new();
    let path = create_state(&folder);
    let file = StateFile::open(&path).unwrap();
    let mut ranges: Vec<IvRange> = std::iter::from_fn(|| file.iv_range()).collect();
    assert_eq!(ranges.len(), usize::from(Ivs::WORKERS));
    let mut seen = BTreeSet::new();
    for ivs in &mut ranges {
        seen.extend(ivs.reserve(3).unwrap());
    }
    assert_eq!(seen.len(), 3 * ranges.len());
    // A range that is taken again continues after its last IV.
    drop(ranges.remove(5));
    let mut again = file.iv_range().unwrap();
    assert!(file.iv_range().is_none());
    for iv in again.reserve(3).unwrap() {
        assert!(seen.insert(iv), "{iv:x}");
    }
    drop((ranges, again, file));
    let file = StateFile::open(&path).unwrap();
    let first = file.iv_range().unwrap().reserve(1).unwrap().start;
    assert!(first > *seen.last().unwrap());
}

#[test]
fn close_writes_next_unused_sequence_numbers() {
    let folder = Folder::new();
    let path = create_state(&folder);
    let file = StateFile::open(&path).unwrap();
    let outbound = file.outbound(300, fingerprint("1"), ESN, None).unwrap();
    let inbound = file.inbound(400, fingerprint("2")).unwrap();
    let unused = file.inbound(401, fingerprint("2")).unwrap();
    assert_eq!(
        sequence_of(&path, Direction::Out, 300),
        Some(SequenceState::Out { next: STEP + 1, bytes: 0 })
    );
    assert_eq!(
        (outbound.reserve(64).unwrap(), outbound.add_bytes(100), outbound.add_bytes(50)),
        (1..65, 100, 150)
    );
    assert_eq!((inbound.highest(), unused.highest()), (0, 0));
    inbound.set_highest(4711, clock::cycles());
    drop(file);
    assert_eq!(
        sequence_of(&path, Direction::Out, 300),
        Some(SequenceState::Out { next: 65, bytes: 150 })
    );
    assert_eq!(sequence_of(&path, Direction::In, 400), Some(SequenceState::In { highest: 4711 }));
    assert_eq!(sequence_of(&path, Direction::In, 401), Some(SequenceState::In { highest: 0 }));
    // After closing, `reserve` returns no numbers: a later run may use them, because the file
    // states that they are unused.
    assert_eq!(outbound.reserve(1), Err(Exhausted::Limit));

    // The same SPI with another key is another SA. The entries of unused SAs remain in the file.
    let file = StateFile::open(&path).unwrap();
    assert_eq!(file.outbound(300, fingerprint("3"), ESN, None).unwrap().reserve(1), Ok(1..2));
    drop(file);
    assert_eq!(read_state(&path).sas.len(), 4);
    let file = StateFile::open(&path).unwrap();
    let outbound = file.outbound(300, fingerprint("1"), ESN, None).unwrap();
    assert_eq!((outbound.next(), outbound.bytes()), (65, 150));
    assert_eq!(outbound.reserve(2), Ok(65..67));
    assert_eq!(file.inbound(400, fingerprint("2")).unwrap().highest(), 4711);
}

/// Reserves numbers, once a write makes some available.
fn reserve_when_written(
    outbound: &OutboundNumbers,
    count: u64,
) -> Result<std::ops::Range<u64>, Exhausted> {
    for _ in 0..1000 {
        match outbound.reserve(count) {
            Err(Exhausted::NotStored) => std::thread::sleep(std::time::Duration::from_millis(10)),
            result => return result,
        }
    }
    Err(Exhausted::NotStored)
}

#[test]
fn new_limit_of_shared_numbers_applies_only_after_call_of_limit() {
    let folder = Folder::new();
    let path = create_state(&folder);
    let file = StateFile::open(&path).unwrap();
    let outbound = file.outbound(300, fingerprint("1"), ESN, Some(10)).unwrap();
    assert_eq!(
        sequence_of(&path, Direction::Out, 300),
        Some(SequenceState::Out { next: 11, bytes: 0 }),
        "expected a file that reserves only numbers up to the limit"
    );
    assert_eq!(outbound.reserve(64), Ok(1..11));
    assert_eq!(outbound.reserve(1), Err(Exhausted::Limit));
    let again = file.outbound(300, fingerprint("1"), ESN, Some(12)).unwrap();
    assert!(Arc::ptr_eq(&outbound, &again));
    assert_eq!(
        outbound.reserve(1),
        Err(Exhausted::Limit),
        "expected the old limit until `limit` is called"
    );
    again.limit(ESN, Some(12));
    // Numbers are available only after the writer has reserved them in the file.
    assert_eq!(reserve_when_written(&outbound, 64), Ok(11..13));
    assert!(!Arc::ptr_eq(&outbound, &file.outbound(301, fingerprint("1"), ESN, None).unwrap()));
    again.limit(ESN, Some(5));
    assert_eq!(outbound.reserve(64), Err(Exhausted::Limit));
    again.limit(!ESN, None);
    assert_eq!(reserve_when_written(&outbound, 1), Ok(13..14));
    let first = file.inbound(300, fingerprint("1")).unwrap();
    let second = file.inbound(300, fingerprint("1")).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
}

#[test]
fn inbound_progress_is_written_only_after_change() {
    let folder = Folder::new();
    let path = create_state(&folder);
    let file = StateFile::open(&path).unwrap();
    let inbound = file.inbound(400, fingerprint("2")).unwrap();
    for highest in [5, 9] {
        inbound.set_highest(highest, clock::cycles());
        let is_written =
            || sequence_of(&path, Direction::In, 400) == Some(SequenceState::In { highest });
        wait_until("`highest` is written", is_written);
    }
    let before = read_content(&path);
    thread::sleep(INBOUND_INTERVAL * 3 / 2);
    assert_eq!(read_content(&path), before, "the file was written without a change");
}

/// Sets the flag on drop, so that other threads stop also after a failed assertion.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Copies the file as a crash at this moment would leave it.
fn copy_as_after_crash(path: &Path, folder: &Folder, number: usize) -> PathBuf {
    let copy = folder.join(format!("copy-{number}"));
    fs::copy(path, &copy).unwrap();
    copy
}

#[test]
fn no_sequence_number_is_reused_after_crash() {
    let folder = Folder::new();
    let path = create_state(&folder);
    let file = StateFile::open(&path).unwrap();
    let outbound = file.outbound(300, fingerprint("1"), ESN, None).unwrap();
    let (highest, has_ended) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !has_ended.load(Ordering::Relaxed) {
                    match outbound.reserve(4096) {
                        Ok(range) => drop(highest.fetch_max(range.end - 1, Ordering::SeqCst)),
                        Err(_) => thread::sleep(Duration::from_millis(1)),
                    }
                }
            });
        }
        let _stop = StopOnDrop(&has_ended);
        let mut last = 0;
        for number in 0..40 {
            wait_until("numbers are available", || highest.load(Ordering::SeqCst) > last);
            last = highest.load(Ordering::SeqCst);
            let copy = copy_as_after_crash(&path, &folder, number);
            let reopened = StateFile::open(&copy).unwrap();
            let first = reopened
                .outbound(300, fingerprint("1"), ESN, None)
                .unwrap()
                .reserve(1)
                .unwrap()
                .start;
            assert!(first > last, "reopened file gives out {first}, but {last} is already used");
        }
        assert!(last > 3 * STEP, "the test used only {last} numbers, expected three writes");
    });
}

#[test]
fn no_iv_is_reused_after_crash() {
    let folder = Folder::new();
    let path = create_state(&folder);
    let file = StateFile::open(&path).unwrap();
    let first_epoch = read_state(&path).epoch;
    let (mut ivs, mut other) = (file.iv_range().unwrap(), file.iv_range().unwrap());
    let other_before = other.reserve(1).unwrap().start;
    let (mut last, mut epochs) = (0, BTreeSet::new());
    for number in 0..12 {
        // Each iteration takes a quarter of an epoch's IVs.
        let mut range = None;
        wait_until("the next epoch is written", || {
            range = ivs.reserve(Ivs::PER_EPOCH / 4);
            range.is_some()
        });
        let range = range.unwrap();
        assert!(range.start > last);
        last = range.end - 1;
        // The upper 32 bits of an IV are its epoch.
        epochs.insert(last >> 32);
        if number % 4 == 3 {
            let reopened = StateFile::open(&copy_as_after_crash(&path, &folder, number)).unwrap();
            let first = reopened.iv_range().unwrap().reserve(1).unwrap().start;
            assert!(first >> 32 > last >> 32, "{first:x} {last:x}");
        }
    }
    assert!((2..=5).contains(&epochs.len()), "{epochs:?}");
    assert_eq!(*epochs.first().unwrap(), u64::from(first_epoch));
    // A range with enough IVs left stays in its epoch.
    assert_eq!(other.reserve(1).unwrap().start, other_before + 1);
}

#[test]
fn only_written_numbers_and_ivs_are_available_while_writes_fail() {
    let folder = Folder::new();
    let inner = folder.join("inner");
    fs::create_dir(&inner).unwrap();
    let path = inner.join("wan.state");
    StateFile::create(&path).unwrap();
    let file = StateFile::open(&path).unwrap();
    let outbound = file.outbound(300, fingerprint("1"), ESN, None).unwrap();
    let mut ivs = file.iv_range().unwrap();
    fs::remove_dir_all(&inner).unwrap();

    assert_eq!(drain(&outbound, 10 * STEP), Some(STEP));
    let mut reserved = 0;
    while let Some(range) = ivs.reserve(1 << 20) {
        reserved += range.end - range.start;
    }
    assert_eq!(reserved, u64::from(Ivs::PER_EPOCH));
    let text = file.outbound(301, fingerprint("1"), ESN, None).unwrap_err().to_string();
    assert!(
        text.contains("cannot be written: No such file")
            && text.contains(&format!(": df {};", inner.display())),
        "{text}"
    );
    assert_eq!((drain(&outbound, STEP), ivs.reserve(1)), (Some(0), None));

    // Once the file can be written again, numbers and IVs become available without another request.
    fs::create_dir(&inner).unwrap();
    wait_until("the file is written again", || path.exists());
    wait_until("numbers are available", || outbound.reserve(1).is_ok());
    wait_until("IVs are available", || ivs.reserve(1).is_some());
    assert_eq!(
        sequence_of(&path, Direction::Out, 300),
        Some(SequenceState::Out { next: 2 * STEP + 1, bytes: 0 })
    );
}

#[test]
fn file_of_other_program_at_path_is_not_overwritten() {
    let folder = Folder::new();
    let path = create_state(&folder);
    let file = StateFile::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    StateFile::create(&path).unwrap();
    let replacement = read_state(&path);
    let text = file.outbound(300, fingerprint("1"), ESN, None).unwrap_err().to_string();
    assert!(text.contains("was replaced by another file"), "{text}");
    let closed = file.close();
    assert_eq!(read_state(&path), replacement);
    let fault = closed.fault().expect("a fault");
    assert!(
        fault.contains("cannot record this failure either (another file is at its path)")
            && fault.contains("the next start does not know of it: create new keys"),
        "{fault}"
    );
    // The next start accepts the other file.
    StateFile::open(&path).unwrap();
}

#[test]
fn marking_fails_after_marked_file_was_removed_or_replaced() {
    let folder = Folder::new();
    let path = create_state(&folder);
    let (disk, content) = Disk::open(&path).unwrap();
    let mut slots = Slots::new(disk, &content);
    slots.mark_failed().unwrap();
    assert!(StateFile::has_failed_write(&path));
    fs::remove_file(&path).unwrap();
    assert!(matches!(slots.mark_failed(), Err(WriteFailure::Missing)));
    StateFile::create(&path).unwrap();
    assert!(matches!(slots.mark_failed(), Err(WriteFailure::Replaced)));
    assert!(!StateFile::has_failed_write(&path));
}

#[test]
fn leftover_file_or_link_at_temporary_path_is_removed() {
    let folder = Folder::new();
    let path = folder.join("wan.state");
    let (new, elsewhere) = (folder.join("wan.state.new"), folder.join("elsewhere"));
    fs::write(&new, "half").unwrap();
    // `open` replaces a file of version 1, through the temporary file.
    write_state(&path, 7);
    let file = StateFile::open(&path).unwrap();
    assert!(!new.exists());
    fs::write(&elsewhere, "other data").unwrap();
    symlink(&elsewhere, &new).unwrap();
    // The file has no room for 30 SAs, so it is replaced again.
    for spi in 300..330 {
        file.outbound(spi, fingerprint("1"), ESN, None).unwrap();
    }
    assert_eq!(fs::read(&elsewhere).unwrap(), b"other data");
    assert!(!fs::symlink_metadata(&path).unwrap().is_symlink() && !new.exists());
}

#[test]
fn data_path_calls_do_not_wait_for_the_state_file_mutex() {
    let folder = Folder::new();
    let path = create_state(&folder);
    let file = StateFile::open(&path).unwrap();
    let outbound = file.outbound(300, fingerprint("1"), ESN, None).unwrap();
    let inbound = file.inbound(400, fingerprint("2")).unwrap();
    let entries = file.shared.lock();
    let (done, is_done) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut ivs = file.iv_range().unwrap();
            while ivs.reserve(1 << 20).is_some() {}
            assert_eq!(drain(&outbound, 10 * STEP), Some(STEP));
            outbound.add_bytes(100);
            outbound.subtract_bytes(100);
            outbound.limit(ESN, Some(STEP));
            inbound.set_highest(7, clock::cycles());
            drop(ivs);
            done.send(()).unwrap();
        });
        let returned = is_done.recv_timeout(Duration::from_secs(30));
        drop(entries);
        assert_eq!(returned, Ok(()), "a data path call waited for the mutex");
    });
}

/// A disk whose writes wait while the test holds the gate.
struct GatedDisk(FakeDisk, Arc<Mutex<()>>);

impl Storage for GatedDisk {
    fn condition(&self, len: usize) -> io::Result<Condition> {
        self.0.condition(len)
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        drop(self.1.lock());
        self.0.write_at(offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }

    fn replace(&mut self, content: &[u8], is_missing: bool) -> io::Result<()> {
        self.0.replace(content, is_missing)
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.0.sync_folder()
    }
}

#[test]
fn sa_waits_for_room_after_write_that_made_none() {
    let state = State { epoch: 7, sas: Vec::new() };
    let (bytes, _) = layout::file(&state, 1, 0);
    let content = layout::parse(&bytes).unwrap();
    for has_room in [true, false] {
        let (disk, gate) = (FakeDisk::new(bytes.clone()), Arc::default());
        disk.set_room(has_room);
        let slots = Slots::new(GatedDisk(disk, Arc::clone(&gate)), &content);
        let epoch = Epoch::from_number(7);
        let file = StateFile::with_writer("x".into(), slots, state.clone(), epoch).unwrap();
        let closed = gate.lock().unwrap();
        // Start a write, which waits at the gate, after the writer looked for room requests.
        file.shared.lock().requested = 1;
        file.writer.unpark();
        wait_until("the writer writes", || file.shared.lock().write_started.is_some());
        let full = {
            let mut entries = file.shared.lock();
            let capacity = entries.capacity;
            for spi in (1000..).take(capacity) {
                let entry = Entry::Unused(SequenceState::In { highest: 0 });
                entries.sas.insert((Direction::In, spi, fingerprint("2")), entry);
            }
            capacity
        };
        thread::scope(|scope| {
            let caller = scope.spawn(|| file.inbound(400, fingerprint("2")).map(drop));
            wait_until("the caller requests room", || file.shared.lock().requested == 2);
            // Simulate a completed write that ignored the request.
            file.shared.lock().completed = 2;
            file.shared.write_done.notify_all();
            let has_requested_again = || file.shared.lock().requested == 3;
            wait_until("the caller decides", || caller.is_finished() || has_requested_again());
            assert!(has_requested_again(), "the caller got an SA without room");
            drop(closed);
            let result = caller.join().unwrap().map_err(|error| error.to_string());
            assert_eq!(result.is_ok(), has_room, "{result:?}");
        });
        let entries = file.shared.lock();
        assert_eq!(entries.sas.len(), full + usize::from(has_room));
        assert!(entries.sas.len() <= entries.capacity);
    }
}
