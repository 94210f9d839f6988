//! Support for tests of the ESP stages: tables, key files, state files, a worker, and packets.

#![allow(dead_code, unreachable_pub, reason = "each test file uses only a part of this module")]

use std::any::Any;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use xdpfwd_pipeline::{
    BuildCx, Cell, NamedStage, PlanCx, PlanResult, ResourceError, StagePlan, Worker,
};
pub use xdpfwd_testkit::Folder;
use xdpfwd_testkit::esp_state;

use xdpfwd_testkit::wires::{WireAccounting, Wires, cross_connect_on, umem_config};

/// Key files and state files in a folder.
pub trait EspFiles {
    /// Writes a key file. Returns the path.
    fn key(&self, name: &str, digits: &str) -> String;

    /// Writes a state file (version 1) without SAs. Returns the path.
    fn state(&self, name: &str) -> String;

    /// Sets the only SA's `next` (number to send) or `highest` (received number).
    fn set_number(&self, name: &str, key: &str, number: u64);

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

    fn set_number(&self, name: &str, key: &str, number: u64) {
        let mut found = 0;
        let state = esp_state::newest(&self.read(name));
        let lines = state.lines().map(|line| {
            if line.split(['=', ' ']).next() == Some(key) {
                found += 1;
                format!("{key} = {number}\n")
            } else {
                format!("{line}\n")
            }
        });
        let text: String = lines.collect();
        assert_eq!(found, 1, "expected one line `{key} = …` in {text}");
        fs::write(self.join(name), esp_state::version_1(&text)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.join(name)).unwrap()
    }
}

/// Returns one JSON object for each SA in the inspection table.
pub fn sas(plan: &Arc<dyn StagePlan>) -> Vec<Value> {
    let [table] = <[_; 1]>::try_from(plan.as_inspectable().unwrap().tables(&[])).unwrap();
    let object = |row: &Vec<Cell>| {
        let cells = table.columns.iter().zip(row);
        cells
            .map(|(column, cell)| (column.name.to_owned(), serde_json::to_value(cell).unwrap()))
            .collect()
    };
    table.rows.iter().map(|row| Value::Object(object(row))).collect()
}

pub fn maintain(plan: &Arc<dyn StagePlan>) {
    plan.as_maintained().unwrap().maintain();
}

/// Acquires the resources of a plan: for ESP, its state file. `others` are the plans in use.
pub fn acquire(
    plan: &Arc<dyn StagePlan>,
    others: &[Arc<dyn StagePlan>],
) -> Result<(), ResourceError> {
    let others: Vec<&dyn Any> = others.iter().map(|plan| &**plan as &dyn Any).collect();
    plan.as_resource_owner().unwrap().acquire(&others)
}

/// Plans a stage without acquiring its resources.
pub fn plan_for(kind: &str, table: &str, workers: usize) -> PlanResult<toml::de::Error> {
    let cx = PlanCx::new(Path::new(env!("CARGO_TARGET_TMPDIR")), workers);
    xdpfwd_testkit::plan(kind, table, &cx)
}

/// Plans for one worker, and acquires the resources.
#[track_caller]
pub fn plan(kind: &str, table: &str) -> Arc<dyn StagePlan> {
    let plan = plan_for(kind, table, 1).unwrap_or_else(|error| panic!("{error}: {table}"));
    acquire(&plan, &[]).unwrap_or_else(|error| panic!("{error}: {table}"));
    plan
}

pub fn build(plan: &Arc<dyn StagePlan>) -> NamedStage {
    build_for(plan, BuildCx::default())
}

pub fn build_for(plan: &Arc<dyn StagePlan>, cx: BuildCx<'_>) -> NamedStage {
    NamedStage::build("esp", &**plan, &cx)
}

/// The result for a frame sent to lan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Sent on wan.
    Passed(Vec<u8>),
    /// Answered with this ICMP message on lan.
    Answered(Vec<u8>),
    /// The worker dropped the frame for this reason.
    Dropped(&'static str),
}

/// A worker that forwards between lan and wan through stages, and the fake kernel's ends of the
/// ports.
pub struct EspBench {
    pub worker: Worker<Vec<NamedStage>>,
    pub wires: Wires,
    pub accounting: WireAccounting,
}

impl EspBench {
    pub fn new(lan_to_wan: Vec<NamedStage>) -> Self {
        Self::with_both_paths(lan_to_wan, vec![])
    }

    pub fn with_both_paths(lan_to_wan: Vec<NamedStage>, wan_to_lan: Vec<NamedStage>) -> Self {
        let (worker, wires) =
            cross_connect_on(&umem_config(), lan_to_wan, wan_to_lan, Default::default());
        Self { worker, wires, accounting: WireAccounting::default() }
    }

    /// Delivers frames to lan in batches. Returns the frames sent on wan, and those sent on lan.
    #[track_caller]
    pub fn send(&mut self, frames: &[Vec<u8>]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let (mut wan, mut lan) = (vec![], vec![]);
        for batch in frames.chunks(48) {
            for frame in batch {
                self.wires.lan.deliver(frame).unwrap();
                self.accounting.delivered += 1;
            }
            while self.worker.poll_once() > 0 {}
            wan.extend(self.wires.wan.take_sent());
            lan.extend(self.wires.lan.take_sent());
        }
        self.accounting.sent += (wan.len() + lan.len()) as u64;
        (wan, lan)
    }

    /// Sends frames that must all be transmitted on wan. Returns the transmitted frames.
    #[track_caller]
    pub fn forward(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let (wan, lan) = self.send(frames);
        assert_eq!((wan.len(), lan.len()), (frames.len(), 0), "{:?}", self.drops());
        wan
    }

    #[track_caller]
    pub fn send_one(&mut self, frame: &[u8]) -> Disposition {
        let before = self.worker.report().drops;
        let (mut wan, mut lan) = self.send(&[frame.to_vec()]);
        let after = self.worker.report().drops;
        let dropped =
            after.iter().zip(before.iter()).filter(|((_, after), (_, before))| after != before);
        let dropped: Vec<_> =
            dropped.map(|((reason, after), (_, before))| (reason.name(), after - before)).collect();
        match (wan.pop(), lan.pop(), &dropped[..]) {
            (Some(frame), None, []) if wan.is_empty() => Disposition::Passed(frame),
            (None, Some(frame), []) if lan.is_empty() => Disposition::Answered(frame),
            (None, None, [(reason, 1)]) => Disposition::Dropped(reason),
            (wan, lan, dropped) => {
                panic!("expected one result: wan {wan:?}, lan {lan:?}, {dropped:?}")
            }
        }
    }

    #[track_caller]
    pub fn send_each(&mut self, frames: &[Vec<u8>]) -> Vec<Disposition> {
        frames.iter().map(|frame| self.send_one(frame)).collect()
    }

    pub fn drops(&mut self) -> Vec<(&'static str, u64)> {
        let drops = self.worker.report().drops;
        drops
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| (reason.name(), count))
            .collect()
    }

    /// Returns a counter of the first stage from lan to wan.
    pub fn counter(&mut self, name: &str) -> u64 {
        let report = self.worker.report();
        let counters = &report.paths[0].stages[0].counters;
        counters
            .iter()
            .find(|(counter, _)| *counter == name)
            .unwrap_or_else(|| panic!("counter {name} not found in {counters:?}"))
            .1
    }

    /// Checks that every packet was sent or dropped, and that no frame was lost.
    #[track_caller]
    pub fn assert_balanced(mut self) {
        self.accounting.balance(&mut self.worker, &self.wires);
        xdpfwd_testkit::wires::assert_conserved(&mut self.worker);
    }
}

/// Returns the offset of ESP, directly in IP or in UDP. The frame must have no VLAN tags and IP
/// options.
pub fn esp_offset(frame: &[u8]) -> usize {
    let (ip, protocol) = if frame[12..14] == [8, 0] { (34, frame[23]) } else { (54, frame[20]) };
    match protocol {
        50 => ip,
        17 => ip + 8,
        other => panic!("protocol {other} in {frame:02x?}"),
    }
}

pub fn spi(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[esp_offset(frame)..][..4].try_into().unwrap())
}

/// Returns the lower 32 bits of the sequence number.
pub fn sequence_number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[esp_offset(frame) + 4..][..4].try_into().unwrap())
}

pub fn iv(frame: &[u8]) -> u64 {
    u64::from_be_bytes(frame[esp_offset(frame) + 8..][..8].try_into().unwrap())
}

pub fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
        .collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs `esp_stage_by_scapy.py` with Debian's Python, which has scapy; `python3` in the PATH may
/// lack it.
pub fn scapy(argument: &str, input: &str) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/esp_stage_by_scapy.py");
    let mut command = Command::new("/usr/bin/python3");
    command
        .args([script, argument])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .expect("python3 with scapy and cryptography: `make test-deps` installs them");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // The script may write output or fail before it has read all input.
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01", &ethertype.to_be_bytes()[..], payload].concat()
}

/// `fragment` is the 16-bit field of flags and fragment offset.
pub fn ipv4(
    protocol: u8,
    source: [u8; 4],
    destination: [u8; 4],
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let total_len = ((20 + payload.len()) as u16).to_be_bytes();
    let [high, low] = fragment.to_be_bytes();
    let mut header = [
        &[0x45, 0, total_len[0], total_len[1], 0, 7, high, low, 64, protocol, 0, 0],
        &source[..],
        &destination,
    ]
    .concat();
    let checksum = !ones_complement_sum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    ethernet(0x0800, &[&header, payload].concat())
}

/// The Internet checksum is the complement of this sum (RFC 1071).
pub fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    (sum % 0xffff) as u16
}

pub fn ipv6(
    next_header: u8,
    source: u128,
    destination: u128,
    hop_limit: u8,
    payload: &[u8],
) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    let header = [0x60, 0, 0, 0, length[0], length[1], next_header, hop_limit];
    ethernet(
        0x86dd,
        &[&header[..], &source.to_be_bytes(), &destination.to_be_bytes(), payload].concat(),
    )
}

/// Returns a UDP datagram without a checksum.
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload]
        .concat()
}

pub const UDP: u8 = 17;
pub const SOURCE_V4: [u8; 4] = [10, 1, 0, 7];
pub const DESTINATION_V4: [u8; 4] = [10, 2, 0, 9];
pub const SOURCE_V6: u128 = 0xfd00_0001 << 96 | 7;
pub const DESTINATION_V6: u128 = 0xfd00_0002 << 96 | 9;
pub const KEY_128: &str = "000102030405060708090a0b0c0d0e0f10111213";
pub const KEY_256: &str =
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223";

/// Returns the hexadecimal digits of key and salt.
pub fn key_of(transform: &str) -> &'static str {
    if transform.contains("128") { KEY_128 } else { KEY_256 }
}

/// Returns a frame with UDP over IPv4 and `size` bytes of payload.
pub fn udp_v4(size: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..size).map(|n| n as u8).collect();
    ipv4(UDP, SOURCE_V4, DESTINATION_V4, 0, &udp(1000, 2000, &payload))
}

/// Like [`udp_v4`], with an IPv6 packet.
pub fn udp_v6(size: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..size).map(|n| n as u8).collect();
    ipv6(UDP, SOURCE_V6, DESTINATION_V6, 64, &udp(1000, 2000, &payload))
}

/// The SPI in [`SEAL`] and [`OPEN`].
pub const SPI: u32 = 0x1234_5678;

/// A tunnel-mode SA for `esp-seal`, without `key_file`.
pub const SEAL: &str =
    "spi = 0x12345678, transform = 'aes-128-gcm', source = '192.0.2.1', destination = '192.0.2.2'";

/// The same SA for `esp-open`, without addresses.
pub const OPEN: &str = "spi = 0x12345678, transform = 'aes-128-gcm'";

pub const TRANSFORMS: [&str; 5] =
    ["aes-128-gcm", "aes-256-gcm", "chacha20-poly1305", "null-aes-128-gmac", "null-aes-256-gmac"];

/// Returns a stage's table. Creates a missing state file, and a key file for each SA, whose key
/// depends on its index and transform. `other_keys` are further keys of the table, each after a
/// comma.
pub fn table(folder: &Folder, state: &str, sas: &[&str], other_keys: &str) -> String {
    if !folder.join(state).exists() {
        folder.state(state);
    }
    let state = folder.join(state).display().to_string();
    let sas: Vec<String> = sas
        .iter()
        .enumerate()
        .map(|(index, sa)| {
            let transform =
                TRANSFORMS.into_iter().find(|transform| sa.contains(transform)).unwrap();
            let digits = format!("{index:02x}{}", &key_of(transform)[2..]);
            format!(
                "{{ {sa}, key_file = '{}' }}",
                folder.key(&format!("{transform}-{index}.key"), &digits)
            )
        })
        .collect();
    format!("{{ lab = true, state_file = '{state}', sa = [{}] {other_keys} }}", sas.join(", "))
}

pub fn plan_seal(folder: &Folder, sa: &str, other_keys: &str) -> Arc<dyn StagePlan> {
    plan("esp-seal", &table(folder, "seal.state", &[sa], other_keys))
}

pub fn plan_open(folder: &Folder, sa: &str, other_keys: &str) -> Arc<dyn StagePlan> {
    plan("esp-open", &table(folder, "open.state", &[sa], other_keys))
}

pub fn bench(plan: &Arc<dyn StagePlan>) -> EspBench {
    EspBench::new(vec![build(plan)])
}

/// Adds at most two VLAN tags.
pub fn tagged(frame: &[u8], tag_count: usize) -> Vec<u8> {
    let tags: &[u8] = [&b""[..], b"\x81\0\0\x09", b"\x88\xa8\0\x07\x81\0\0\x09"][tag_count];
    [&frame[..12], tags, &frame[12..]].concat()
}

/// Returns 12 SAs for `esp-seal`: two transforms, with and without UDP, in tunnel mode over IPv4,
/// tunnel mode over IPv6, and transport mode.
pub fn encapsulations() -> Vec<String> {
    let mut encapsulations = vec![];
    for transform in ["aes-128-gcm", "null-aes-256-gmac"] {
        for udp in ["", ", udp_ports = [4500, 4500]"] {
            let sa = format!("spi = 0x12345678, transform = '{transform}'{udp}");
            encapsulations.push(format!(
                "{sa}, source = '192.0.2.1', destination = '192.0.2.2', df = 'clear'"
            ));
            encapsulations
                .push(format!("{sa}, source = '2001:db8::1', destination = '2001:db8::2'"));
            encapsulations.push(format!("{sa}, mode = 'transport'"));
        }
    }
    encapsulations
}

/// Returns a frame with an IP packet of `size` bytes that routers must not fragment.
pub fn packet_of_size(size: usize, is_v6: bool) -> Vec<u8> {
    let payload = vec![0x55; size - if is_v6 { 48 } else { 28 }];
    if is_v6 {
        ipv6(UDP, SOURCE_V6, DESTINATION_V6, 64, &udp(1, 2, &payload))
    } else {
        ipv4(UDP, SOURCE_V4, DESTINATION_V4, 0x4000, &udp(1, 2, &payload))
    }
}

/// Generates frames. Most have headers that may match an SA, then random bytes. The rest have only
/// random bytes after the MAC addresses or the Ethernet header.
pub fn random_frame() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let spi = prop_oneof![3 => Just(SPI), 1 => any::<u32>(), 1 => Just(0)];
    let length_error = prop_oneof![4 => Just(0_i16), 1 => -60_i16..60, 1 => any::<i16>()];
    (0..9, spi, length_error, bytes, any::<(u32, u8)>()).prop_map(
        |(kind, spi, length_error, bytes, (number, byte))| {
            let esp = [&spi.to_be_bytes()[..], &(number % 3000).to_be_bytes(), &bytes].concat();
            let mut frame = match kind {
                0 => [&[2; 14][..], &bytes].concat(),
                1 => ethernet(0x0800, &bytes),
                2 => ethernet(0x86dd, &bytes),
                3 => ipv4(50, SOURCE_V4, DESTINATION_V4, 0, &esp),
                4 => ipv4(UDP, SOURCE_V4, DESTINATION_V4, 0, &udp(4500, 4500, &esp)),
                5 => ipv6(50, SOURCE_V6, DESTINATION_V6, 64, &esp),
                6 => ipv6(UDP, SOURCE_V6, DESTINATION_V6, 64, &udp(4500, 4500, &esp)),
                7 => ipv6(
                    0,
                    SOURCE_V6,
                    DESTINATION_V6,
                    64,
                    &[&[50, 0, 1, 4, 0, 0, 0, 0][..], &esp].concat(),
                ),
                _ => ipv6(
                    44,
                    SOURCE_V6,
                    DESTINATION_V6,
                    64,
                    &[&[50, 0, 0, 0, 0, 0, 0, 9][..], &esp].concat(),
                ),
            };
            if kind > 2 {
                let length_field = if kind == 3 || kind == 4 { 16 } else { 18 };
                let true_length =
                    i16::from_be_bytes([frame[length_field], frame[length_field + 1]]);
                frame[length_field..length_field + 2]
                    .copy_from_slice(&true_length.wrapping_add(length_error).to_be_bytes());
                // In some frames, change one of the first 80 bytes.
                if byte < 80 {
                    let offset = usize::from(byte).min(frame.len() - 1);
                    frame[offset] ^= number as u8;
                }
            }
            tagged(&frame, if byte > 200 { usize::from(byte) % 3 } else { 0 })
        },
    )
}
