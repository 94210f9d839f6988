//! Tests of the stages while their state file cannot be written.

use std::fs;
use std::time::{Duration, Instant};

use super::support::*;

#[track_caller]
fn wait_until(description: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "timeout after 30 s; expected: {description}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Progress: the highest received sequence number.
#[test]
fn open_refuses_packets_while_progress_is_unwritten_and_says_so() {
    let folder = Folder::new();
    fs::create_dir(folder.join("disk")).unwrap();
    folder.state("disk/open.state");
    let packets = vec![udp_v4(3); 20_000];
    let sealed = bench(&plan_seal(&folder, SEAL, "")).forward(&packets);
    let mut sealed = sealed.iter();
    let plan = plan("esp-open", &table(&folder, "disk/open.state", &[OPEN], ""));
    let owner = || plan.as_resource_owner().unwrap();
    let mut open = bench(&plan);
    let mut send = || open.send_one(sealed.next().expect("enough packets"));
    let passed = Disposition::Passed(packets[0].clone());
    assert_eq!(send(), passed);
    assert_eq!((owner().fault(), &sas(&plan)[0]["fault"]), (None, &serde_json::Value::Null));

    fs::remove_dir_all(folder.join("disk")).unwrap();
    let mut is_refused = false;
    wait_until("packets are refused", || match send() {
        Disposition::Dropped("state_file") => {
            is_refused = true;
            true
        }
        other => {
            assert_eq!(other, passed);
            false
        }
    });
    assert!(is_refused);
    let fault = owner().fault().expect("a fault");
    assert!(fault.contains("cannot be written: No such file or directory"), "{fault}");
    assert!(fault.contains("inbound packets are dropped as state_file"), "{fault}");
    assert_eq!(sas(&plan)[0]["fault"], *fault);
    assert!(sas(&plan)[0]["drops"]["state_file"].as_u64() >= Some(1));

    fs::create_dir(folder.join("disk")).unwrap();
    wait_until("packets pass again", || send() == passed);
    wait_until("the fault ends", || owner().fault().is_none());
    owner().release();
    assert_eq!(owner().fault(), None);
}

#[test]
fn release_reports_last_write_that_fails() {
    let folder = Folder::new();
    fs::create_dir(folder.join("disk")).unwrap();
    folder.state("disk/open.state");
    let plan = plan("esp-open", &table(&folder, "disk/open.state", &[OPEN], ""));
    fs::remove_dir_all(folder.join("disk")).unwrap();
    let owner = plan.as_resource_owner().unwrap();
    owner.release();
    let fault = owner.fault().expect("a fault");
    assert!(fault.contains("cannot be written: No such file or directory"), "{fault}");
    assert!(
        fault.contains("cannot record this failure either (the file is no longer at its path)")
            && fault.contains("the next start does not know of it: create new keys"),
        "{fault}"
    );
}

#[test]
fn release_has_no_fault_while_other_plan_uses_the_file() {
    let folder = Folder::new();
    fs::create_dir(folder.join("disk")).unwrap();
    folder.state("disk/open.state");
    let table = table(&folder, "disk/open.state", &[OPEN], "");
    let (old, new) = (plan("esp-open", &table), plan_for("esp-open", &table, 1).unwrap());
    acquire(&new, std::slice::from_ref(&old)).unwrap();
    fs::remove_dir_all(folder.join("disk")).unwrap();
    let (old, new) = (old.as_resource_owner().unwrap(), new.as_resource_owner().unwrap());
    old.release();
    assert_eq!(old.fault(), None);
    new.release();
    assert!(new.fault().is_some_and(|fault| fault.contains("could be accepted again")));
    assert_eq!(old.fault(), new.fault());
}
