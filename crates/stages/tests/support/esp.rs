//! Stages of ESP, from their tables in TOML to what leaves the wire: key files, state files, a worker around them.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::Value;
use xdpfwd_pipeline::{BuildCx, Cell, NamedStage, PlanCx, Planned, ResourceError, StagePlan, Worker};
pub use xdpfwd_testkit::Folder;

use xdpfwd_testkit::wires::{WireAccounting, Wires, cross_connect_on, umem_config};

/// Files of ESP in a folder.
pub trait EspFiles {
    /// Writes a key file for these digits and returns its name, for a table.
    fn key(&self, name: &str, digits: &str) -> String;

    /// Writes a state file in which no number was used yet, and returns its name.
    fn state(&self, name: &str) -> String;

    /// Changes a state file as if numbers up to here had been used by its one SA.
    fn renumber(&self, name: &str, key: &str, number: u64);

    /// Reads a file.
    fn read(&self, name: &str) -> String;
}

impl EspFiles for Folder {
    fn key(&self, name: &str, digits: &str) -> String {
        self.secret(name, digits).to_str().unwrap().to_owned()
    }

    fn state(&self, name: &str) -> String {
        let path = self.join(name);
        fs::write(&path, "version = 1\nepoch = 0\n# end\n").unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn renumber(&self, name: &str, key: &str, number: u64) {
        let path = self.join(name);
        let text = fs::read_to_string(&path).unwrap();
        let mut found = 0;
        let lines = text.lines().map(|line| {
            if line.split(['=', ' ']).next() == Some(key) {
                found += 1;
                format!("{key} = {number}\n")
            } else {
                format!("{line}\n")
            }
        });
        let text: String = lines.collect();
        assert_eq!(found, 1, "{key} in {text}");
        fs::write(&path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.join(name)).unwrap()
    }
}

/// Returns the security associations of a stage, each as an object with the columns of its inspection table.
pub fn sas(plan: &Arc<dyn StagePlan>) -> Vec<Value> {
    let [table] = <[_; 1]>::try_from(plan.as_inspectable().unwrap().tables(&[])).unwrap();
    let object = |row: &Vec<Cell>| {
        let cells = table.columns.iter().zip(row);
        cells.map(|(column, cell)| (column.name.to_owned(), serde_json::to_value(cell).unwrap())).collect()
    };
    table.rows.iter().map(|row| Value::Object(object(row))).collect()
}

/// Runs the periodic work of a stage.
pub fn maintain(plan: &Arc<dyn StagePlan>) {
    plan.as_maintained().unwrap().maintain();
}

/// Acquires the resources of a stage.
pub fn acquire(plan: &Arc<dyn StagePlan>, others: &[Arc<dyn StagePlan>]) -> Result<(), ResourceError> {
    plan.as_resource_owner().unwrap().acquire(others)
}

pub fn plan_for(kind: &str, table: &str, workers: usize) -> Planned<toml::de::Error> {
    let cx = PlanCx { directory: Path::new(env!("CARGO_TARGET_TMPDIR")), workers };
    xdpfwd_testkit::plan(kind, table, &cx)
}

/// Planned and prepared: ready to be built.
#[track_caller]
pub fn plan(kind: &str, table: &str) -> Arc<dyn StagePlan> {
    let plan = plan_for(kind, table, 1).unwrap_or_else(|error| panic!("{error}: {table}"));
    acquire(&plan, &[]).unwrap_or_else(|error| panic!("{error}: {table}"));
    plan
}

pub fn build(plan: &Arc<dyn StagePlan>) -> NamedStage {
    build_for(plan, BuildCx { workers: 1, ..BuildCx::default() })
}

pub fn build_for(plan: &Arc<dyn StagePlan>, cx: BuildCx) -> NamedStage {
    NamedStage::build("esp", &**plan, &cx)
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It went on, like this.
    Passed(Vec<u8>),
    /// This went back to where it came from.
    Answered(Vec<u8>),
    /// It was dropped, for this reason.
    Dropped(&'static str),
}

/// A worker with stages on its way from lan to wan.
pub struct Line {
    pub worker: Worker<Vec<NamedStage>>,
    pub wires: Wires,
    pub books: WireAccounting,
}

impl Line {
    pub fn new(there: Vec<NamedStage>) -> Self {
        Self::between(there, vec![])
    }

    pub fn between(there: Vec<NamedStage>, back: Vec<NamedStage>) -> Self {
        let (worker, wires) = cross_connect_on(&umem_config(), there, back, Default::default());
        Self { worker, wires, books: WireAccounting::default() }
    }

    /// Sends frames through, some at once: what left on wan, and what came back on lan.
    #[track_caller]
    pub fn send(&mut self, frames: &[Vec<u8>]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let (mut wan, mut lan) = (vec![], vec![]);
        for some in frames.chunks(48) {
            for frame in some {
                self.wires.lan.deliver(frame).unwrap();
                self.books.delivered += 1;
            }
            while self.worker.poll_once() > 0 {}
            wan.extend(self.wires.wan.take_sent());
            lan.extend(self.wires.lan.take_sent());
        }
        self.books.sent += (wan.len() + lan.len()) as u64;
        (wan, lan)
    }

    /// The same, of which all are to go on.
    #[track_caller]
    pub fn pass(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let (wan, lan) = self.send(frames);
        assert_eq!((wan.len(), lan.len()), (frames.len(), 0), "{:?}", self.drops());
        wan
    }

    /// Sends one.
    #[track_caller]
    pub fn one(&mut self, frame: &[u8]) -> Fate {
        let before = self.worker.report().drops;
        let (mut wan, mut lan) = self.send(&[frame.to_vec()]);
        let after = self.worker.report().drops;
        let dropped = after.iter().zip(before.iter()).filter(|((_, after), (_, before))| after != before);
        let dropped: Vec<_> = dropped.map(|((reason, after), (_, before))| (reason.name(), after - before)).collect();
        match (wan.pop(), lan.pop(), &dropped[..]) {
            (Some(frame), None, []) if wan.is_empty() => Fate::Passed(frame),
            (None, Some(frame), []) if lan.is_empty() => Fate::Answered(frame),
            (None, None, [(reason, 1)]) => Fate::Dropped(reason),
            (wan, lan, dropped) => panic!("{wan:?} {lan:?} {dropped:?}"),
        }
    }

    /// The same with each of several.
    #[track_caller]
    pub fn each(&mut self, frames: &[Vec<u8>]) -> Vec<Fate> {
        frames.iter().map(|frame| self.one(frame)).collect()
    }

    /// What was dropped so far.
    pub fn drops(&mut self) -> Vec<(&'static str, u64)> {
        let drops = self.worker.report().drops;
        drops.iter().filter(|(_, count)| *count > 0).map(|(reason, count)| (reason.name(), count)).collect()
    }

    pub fn counter(&mut self, name: &str) -> u64 {
        let report = self.worker.report();
        let counters = &report.paths[0].stages[0].counters;
        counters.iter().find(|(own, _)| *own == name).unwrap_or_else(|| panic!("no {name} in {counters:?}")).1
    }

    /// Every frame is in one place, and every packet was sent or dropped for a reason.
    #[track_caller]
    pub fn balance(mut self) {
        self.books.balance(&mut self.worker, &self.wires);
        xdpfwd_testkit::wires::assert_conserved(&mut self.worker);
    }
}

/// A frame's ESP packet, in an IPv4 or IPv6 packet without tags and options, in UDP or not: where it begins.
pub fn esp_begins(frame: &[u8]) -> usize {
    let (ip, protocol) = if frame[12..14] == [8, 0] { (34, frame[23]) } else { (54, frame[20]) };
    match protocol {
        50 => ip,
        17 => ip + 8,
        other => panic!("{other} in {frame:02x?}"),
    }
}

pub fn spi(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[esp_begins(frame)..][..4].try_into().unwrap())
}

pub fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[esp_begins(frame) + 4..][..4].try_into().unwrap())
}

pub fn iv(frame: &[u8]) -> u64 {
    u64::from_be_bytes(frame[esp_begins(frame) + 8..][..8].try_into().unwrap())
}

pub fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Asks scapy. Debian's serves Debian's interpreter; another `python3` may stand before it in the path.
pub fn scapy(argument: &str, input: &str) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/esp_stage_by_scapy.py");
    let mut command = Command::new("/usr/bin/python3");
    command.args([script, argument]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("python3 with scapy and cryptography: `make test-deps` installs them");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // It may answer before it has read all, and say why it fails when nobody reads any more.
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An Ethernet frame with this behind the addresses.
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01", &ethertype.to_be_bytes()[..], payload].concat()
}

/// A frame with an IPv4 packet; `flags` is the field of flags and fragment offset.
pub fn ipv4(protocol: u8, source: [u8; 4], destination: [u8; 4], flags: u16, payload: &[u8]) -> Vec<u8> {
    let total = ((20 + payload.len()) as u16).to_be_bytes();
    let [high, low] = flags.to_be_bytes();
    let mut header =
        [&[0x45, 0, total[0], total[1], 0, 7, high, low, 64, protocol, 0, 0], &source[..], &destination].concat();
    let sum = !sum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    ethernet(0x0800, &[&header, payload].concat())
}

pub fn sum(bytes: &[u8]) -> u16 {
    let sum: u32 =
        bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two.get(1).copied().unwrap_or(0))).sum();
    (sum % 0xffff) as u16
}

/// A frame with an IPv6 packet.
pub fn ipv6(next_header: u8, source: u128, destination: u128, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    let header = [0x60, 0, 0, 0, length[0], length[1], next_header, hop_limit];
    ethernet(0x86dd, &[&header[..], &source.to_be_bytes(), &destination.to_be_bytes(), payload].concat())
}

/// UDP without a checksum.
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

pub const UDP: u8 = 17;
pub const TEN: [u8; 4] = [10, 1, 0, 7];
pub const ELEVEN: [u8; 4] = [10, 2, 0, 9];
pub const SIX: u128 = 0xfd00_0001 << 96 | 7;
pub const SEVEN: u128 = 0xfd00_0002 << 96 | 9;
pub const KEY_128: &str = "000102030405060708090a0b0c0d0e0f10111213";
pub const KEY_256: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223";

/// Key and salt for a transform.
pub fn key_of(transform: &str) -> &'static str {
    if transform.contains("128") { KEY_128 } else { KEY_256 }
}

/// A packet of UDP over IPv4 with so many bytes in it.
pub fn some_v4(size: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..size).map(|n| n as u8).collect();
    ipv4(UDP, TEN, ELEVEN, 0, &udp(1000, 2000, &payload))
}

pub fn some_v6(size: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..size).map(|n| n as u8).collect();
    ipv6(UDP, SIX, SEVEN, 64, &udp(1000, 2000, &payload))
}
