//! Tests `xdpfwd filter test` on captures of many kinds, written by scapy, editcap and mergecap.
//! Compares its verdicts with the packets that tshark finds. Needs no privileges.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;
use xdpfwd_testkit::Folder;

const XDPFWD: &str = env!("CARGO_BIN_EXE_xdpfwd");

const CONFIG: &str = r#"
    [[port]]
    name = "lan"
    interface = "eth77"
    [[path]]
    from = "lan"
    to = "lan"
    stages = ["edge"]
    [stage.edge]
    kind = "filter"
    default = "drop"
    not_ip = "drop"
    rules = [RULE]
"#;

/// Writes the same IP packets with each link layer, a packet of IEEE 802.11, and 50 packets that
/// are exactly 10 ms apart.
const SCAPY_SCRIPT: &str = r#"
from scapy.all import *
import sys
folder = sys.argv[1] + "/"
ip = [
    IP(src="10.0.0.1", dst="192.0.2.1")/UDP(sport=9, dport=53)/b"x",
    IP(src="10.0.0.1", dst="192.0.2.1")/TCP(dport=443),
    IPv6(src="2001:db8::1", dst="2001:db8::2")/UDP(sport=9, dport=53)/b"y",
]
mac = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
tag = Dot1Q(vlan=5)
def cooked(packet):
    return CookedLinux(proto=0x86dd if IPv6 in packet else 0x800)/packet
def cooked2(packet):
    return CookedLinuxV2(proto=0x86dd if IPv6 in packet else 0x800)/packet
def loopback(packet, order):
    return Raw((30 if IPv6 in packet else 2).to_bytes(4, order) + bytes(packet))
def write(name, link, packets):
    packets = [Raw(bytes(packet)) for packet in packets]
    for index, packet in enumerate(packets):
        packet.time = 1700000000 + index
    wrpcap(folder + name, packets, linktype=link)
write("ethernet", 1, [mac/packet for packet in ip])
write("tagged", 1, [mac/tag/packet for packet in ip])
write("sll", 113, [cooked(packet) for packet in ip])
write("sll-tagged", 113, [CookedLinux(proto=0x8100)/tag/packet for packet in ip])
write("sll2", 276, [cooked2(packet) for packet in ip])
write("raw", 101, ip)
write("ipv4", 228, ip[:2])
write("ipv6", 229, ip[2:])
write("null", 0, [loopback(packet, "little") for packet in ip])
write("null-big", 0, [loopback(packet, "big") for packet in ip])
write("loop", 108, [loopback(packet, "big") for packet in ip])
write("wlan", 105, [b"\x48\x01" + bytes(22)])
write("nothing", 1, [])
paced = [mac/ip[0] for _ in range(50)]
for index, packet in enumerate(paced):
    packet.time = Decimal("1700000000.000000007") + index * Decimal("0.01")
wrpcap(folder + "paced", paced, nano=True)
"#;

struct Captures {
    folder: Folder,
}

/// The captures, shared by the tests that run at the same time.
static CAPTURES: Mutex<Weak<Captures>> = Mutex::new(Weak::new());

impl Captures {
    fn new() -> Arc<Self> {
        let mut captures = CAPTURES.lock().unwrap_or_else(PoisonError::into_inner);
        captures.upgrade().unwrap_or_else(|| {
            let created = Arc::new(Self::create());
            *captures = Arc::downgrade(&created);
            created
        })
    }

    fn create() -> Self {
        let folder = Folder::new();
        let script = format!("from decimal import Decimal\n{SCAPY_SCRIPT}");
        run(Command::new("/usr/bin/python3").arg("-c").arg(script).arg(folder.join("")));
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns a path in the folder that no other call returns.
    fn new_path(&self, name: &str) -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        self.path(&format!("{}-{name}", COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Converts a capture with editcap.
    fn convert(&self, name: &str, format: &str) -> PathBuf {
        let path = self.new_path(format);
        run(Command::new("editcap").args(["-F", format]).arg(self.path(name)).arg(&path));
        path
    }

    fn merge(&self, names: &[&str]) -> PathBuf {
        let path = self.new_path("merged.pcapng");
        let inputs = names.iter().map(|name| self.path(name));
        run(Command::new("mergecap").args(["-a", "-w"]).arg(&path).args(inputs));
        path
    }

    fn test(&self, rule: &str, pcap: &Path, arguments: &[&str]) -> Output {
        self.command(rule, pcap, arguments).output().unwrap()
    }

    fn command(&self, rule: &str, pcap: &Path, arguments: &[&str]) -> Command {
        let config = self.new_path("fw.toml");
        fs::write(&config, CONFIG.replace("RULE", &format!("{rule:?}"))).unwrap();
        let mut command = Command::new(XDPFWD);
        command.args(["filter", "test", "--config"]).arg(config).arg("--pcap").arg(pcap);
        command.args(arguments);
        command
    }
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns the number of packets with each verdict.
fn verdicts(output: &Output) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines(output) {
        *counts.entry(line["verdict"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

/// Returns the indices, from 0, of all packets that tshark finds, and of those to UDP port 53.
fn tshark(pcap: &Path) -> (Vec<u64>, Vec<u64>) {
    let mut command = Command::new("tshark");
    command.args(["-n", "-T", "fields", "-e", "frame.number", "-e", "udp.dstport", "-r"]).arg(pcap);
    // Ignore the exit status: tshark fails if the capture is truncated.
    let output = command.output().unwrap();
    let (mut all, mut dns) = (Vec::new(), Vec::new());
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let (number, port) = line.split_once('\t').unwrap();
        let index = number.parse::<u64>().unwrap() - 1;
        all.push(index);
        dns.extend((port == "53").then_some(index));
    }
    (all, dns)
}

/// Checks that `output`, with the rule [`DNS`], has the packets that tshark finds, and accepts
/// those to UDP port 53.
fn assert_equals_tshark(output: &Output, pcap: &Path) {
    let lines = lines(output);
    let indices = |verdict: Option<&str>| -> Vec<u64> {
        let selected =
            lines.iter().filter(|line| verdict.is_none_or(|verdict| line["verdict"] == verdict));
        selected.map(|line| line["index"].as_u64().unwrap()).collect()
    };
    let decisions = (indices(None), indices(Some("accept")));
    assert_eq!(decisions, tshark(pcap), "{}", pcap.display());
}

const DNS: &str = "accept proto udp dport 53";

#[test]
fn filter_test_judges_every_link_layer_as_tshark_reads_it() {
    let captures = Captures::new();
    for name in [
        "ethernet",
        "tagged",
        "sll",
        "sll-tagged",
        "sll2",
        "raw",
        "ipv4",
        "ipv6",
        "null",
        "null-big",
        "loop",
    ] {
        let pcap = captures.path(name);
        let output = captures.test(DNS, &pcap, &["--json"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
        assert_equals_tshark(&output, &pcap);
        assert!(!verdicts(&output).contains_key("skip"), "{name}");
    }
    // A rule about VLAN tags matches only packets that contain a tag.
    for (name, accepted) in [("tagged", 3), ("sll-tagged", 3), ("sll", 0), ("raw", 0)] {
        let output = captures.test("accept vlan 5", &captures.path(name), &["--json"]);
        assert_eq!(verdicts(&output).get("accept").copied().unwrap_or(0), accepted, "{name}");
    }
}

#[test]
fn filter_test_reads_every_format_of_editcap() {
    let captures = Captures::new();
    let formats =
        ["pcap", "nsecpcap", "modpcap", "nokiapcap", "rh6_1pcap", "suse6_3pcap", "pcapng"];
    for format in formats {
        let pcap = captures.convert("ethernet", format);
        let output = captures.test(DNS, &pcap, &["--json"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{format}: {output:?}");
        assert_equals_tshark(&output, &pcap);
    }
    let pcapng = captures.convert("ethernet", "pcapng");
    run(Command::new("gzip").arg("-k").arg(&pcapng));
    let compressed = pcapng.with_extension("gz");
    fs::rename(format!("{}.gz", pcapng.display()), &compressed).unwrap();
    assert_equals_tshark(&captures.test(DNS, &compressed, &["--json"]), &compressed);
    let output = captures.test(DNS, &captures.path("nothing"), &[]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "\n0 packets\n");
    let output = captures.test(DNS, &captures.path("missing"), &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
}

#[test]
fn packets_of_unreadable_link_type_are_skipped_counted_and_named() {
    let captures = Captures::new();
    let mixed = captures.merge(&["wlan", "ethernet", "sll2", "raw"]);
    let output = captures.test(DNS, &mixed, &["--json"]);
    assert!(output.status.success(), "{output:?}");
    assert_equals_tshark(&output, &mixed);
    let skipped = serde_json::json!({
        "index": 0, "verdict": "skip", "rule": null, "reason": null, "skipped": "link type 105"
    });
    assert_eq!(lines(&output)[0], skipped);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("interface 0: link type 105: expected Ethernet (1)"), "{text}");
    let output = captures.test(DNS, &mixed, &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("\n10 packets, ") && text.contains(", 1 of them skipped\n"), "{text}");
    assert!(text.contains("       1  skip    link type 105\n"), "{text}");
    // No packet of this capture can be judged.
    let output = captures.test(DNS, &captures.path("wlan"), &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(verdicts(&output), BTreeMap::from([("skip".to_owned(), 1)]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no packet can be judged"));
}

#[test]
fn summary_groups_skip_reasons_regardless_of_offset_and_interface() {
    let captures = Captures::new();
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let section: Vec<u8> = words(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28]);
    let interface: Vec<u8> = words(&[1, 20, 1, 0, 20]);
    let damaged_interface: Vec<u8> = words(&[1, 12, 12]);
    let damaged_packet: Vec<u8> = words(&[6, 12, 12]);
    let undescribed = (1000..2000).flat_map(|interface| words(&[6, 32, interface, 0, 0, 0, 0, 32]));
    let undescribed: Vec<u8> = undescribed.collect();
    // Packets of 256 KiB of which no byte was captured.
    let long: Vec<u8> = words(&[6, 32, 0, 0, 0, 0, 1 << 18, 32]);
    let pcap = captures.new_path("hostile.pcapng");
    let interfaces = [interface, damaged_interface.repeat(50)].concat();
    let packets = [damaged_packet.repeat(1000), undescribed, long.repeat(1000)].concat();
    fs::write(&pcap, [section, interfaces, packets].concat()).unwrap();
    let output = captures.test(DNS, &pcap, &[]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("  skip    interface 1999, which the capture does not"), "{text}");
    let (_, summary) = text.split_once("\n\n").unwrap();
    assert_eq!(
        summary,
        "3000 packets, 1000 of them truncated by the capture, 2000 of them skipped\n    \
             1000  drop    no rule (not_ip)\n    \
             1000  skip    damaged block\n    \
             1000  skip    interface that the capture does not describe\n"
    );
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.matches(": damaged block; its packets are skipped").count(), 20, "{text}");
    assert!(text.contains(": 30 more interfaces whose packets are skipped\n"), "{text}");
}

/// A pipe can deliver the header of a capture in parts.
#[test]
fn capture_from_pipe_in_parts_has_the_same_verdicts() {
    let captures = Captures::new();
    let mut old = fs::read(captures.convert("ethernet", "pcap")).unwrap();
    // pcap version 2.2
    old[4..8].copy_from_slice(&[2, 0, 2, 0]);
    let nokia = fs::read(captures.convert("ethernet", "nokiapcap")).unwrap();
    for bytes in [old, nokia] {
        let pcap = captures.new_path("whole.pcap");
        fs::write(&pcap, &bytes).unwrap();
        let whole = captures.test(DNS, &pcap, &["--json"]);
        assert!(whole.status.success(), "{whole:?}");
        for split in [1, 3, 6, 24, 30] {
            // `head` ends before `tail` starts, so that a read can return only bytes of `head`.
            let script = "(head -c $1 $2; sleep 0.1; tail -c +$(($1 + 1)) $2) | (shift 2; \"$@\")";
            let command = captures.command(DNS, Path::new("-"), &["--json"]);
            let mut shell = Command::new("sh");
            shell.args(["-c", script, "sh", &split.to_string()]).arg(&pcap).arg(XDPFWD);
            let output = run(shell.args(command.get_args()));
            assert_eq!(output.stdout, whole.stdout, "{split}");
        }
    }
}

#[test]
fn truncated_capture_is_judged_up_to_its_end_and_fails() {
    let captures = Captures::new();
    for format in ["pcap", "pcapng"] {
        let whole = fs::read(captures.convert("ethernet", format)).unwrap();
        let pcap = captures.new_path("truncated");
        fs::write(&pcap, &whole[..whole.len() - 5]).unwrap();
        let output = captures.test(DNS, &pcap, &["--json"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("is truncated: it ends in the middle of a packet"), "{text}");
        assert_equals_tshark(&output, &pcap);
        assert_eq!(verdicts(&output), BTreeMap::from([("accept".into(), 1), ("drop".into(), 1)]));
    }
}

#[test]
fn capture_on_standard_input_is_judged_as_it_arrives() {
    let captures = Captures::new();
    let pcap = fs::read(captures.path("sll2")).unwrap();
    let mut command = captures.command(DNS, Path::new("-"), &["--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    // Write everything except the end of the last packet.
    stdin.write_all(&pcap[..pcap.len() - 5]).unwrap();
    let mut line = String::new();
    for _ in 0..2 {
        line.clear();
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    }
    assert!(line.contains(r#""index":1"#), "{line}");
    stdin.write_all(&pcap[pcap.len() - 5..]).unwrap();
    drop(stdin);
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert!(line.contains(r#""index":2"#), "{line}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn filter_test_applies_limits_at_exact_times() {
    let captures = Captures::new();
    let pcapng = captures.convert("paced", "pcapng");
    let limit = |limit: &str| format!("accept proto udp dport 53 limit {limit}");
    for (rate, accepted) in [
        ("100pps burst 1", 50),
        // After 10 ms, the bucket has 99/100 of a token: too little.
        ("99pps burst 1", 25),
        ("50pps burst 1", 25),
        ("10pps burst 1", 5),
        ("1pps burst 3", 3),
        // Each packet has 43 bytes, or 344 bits.
        ("34400bps burst 344bit", 50),
    ] {
        for pcap in [&captures.path("paced"), &pcapng] {
            for _ in 0..3 {
                let output = captures.test(&limit(rate), pcap, &["--json"]);
                assert_eq!(verdicts(&output).get("accept"), Some(&accepted), "{rate}");
            }
        }
    }
    // With `per`, each source has a bucket.
    let rule = limit("100pps burst 1 per src/32");
    let output = captures.test(&rule, &captures.path("paced"), &["--json"]);
    assert_eq!(verdicts(&output).get("accept"), Some(&50));
}

#[test]
fn packets_with_earlier_timestamps_are_counted_and_earn_no_tokens() {
    let captures = Captures::new();
    let reversed = captures.new_path("reversed");
    let pcap = fs::read(captures.path("paced")).unwrap();
    let (header, records) = pcap.split_at(24);
    let record = records.len() / 50;
    let mut file = File::create(&reversed).unwrap();
    file.write_all(header).unwrap();
    for record in records.chunks(record).rev() {
        file.write_all(record).unwrap();
    }
    let output = captures.test("accept limit 100pps burst 1", &reversed, &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("\n50 packets, 49 of them with an earlier timestamp"), "{text}");
    assert!(text.contains("       1  accept  rule 0: accept limit 100pps burst 1\n"), "{text}");
}
