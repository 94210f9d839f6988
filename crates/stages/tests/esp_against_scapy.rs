//! Tests that the ESP stages interoperate with scapy in both directions, byte by byte, including
//! outer headers, and that tshark decrypts their packets. `esp_stage_by_scapy.py` generates the
//! cases.

#[path = "support/esp.rs"]
mod esp;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::LazyLock;

use esp::{Disposition, EspBench, EspFiles as _, Folder, build, hex, plan, scapy, unhex};
use serde_json::{Value, json};
use xdpfwd_pipeline::BuildCx;

/// One end of the SA of a case in [`CASES`].
struct End {
    kind: &'static str,
    table: String,
    state_file: String,
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("expected a string {key} in {value}"))
}

fn frames(case: &Value, key: &str) -> Vec<Vec<u8>> {
    case["frames"].as_array().unwrap().iter().map(|frame| unhex(text(frame, key))).collect()
}

/// Returns an end. Creates its key file, and a state file that makes the stage ready for the case's
/// first sequence number.
fn end(folder: &Folder, index: usize, case: &Value, kind: &'static str) -> End {
    let key = folder.key(&format!("{index}.key"), text(case, "key"));
    let state_file = format!("{index}-{kind}.state");
    let state = folder.state(&state_file);
    let (sa, other_keys) = match kind {
        "esp-seal" => (text(case, "seal"), ", mtu = 9216"),
        _ => (text(case, "open"), ""),
    };
    let table = format!(
        "{{ lab = true, state_file = '{state}', sa = [{{ {sa}, key_file = '{key}' }}]{other_keys} }}"
    );
    let first = case["first"].as_u64().unwrap();
    if first > 1 {
        // Let a plan add the SA to the state file, then change the SA's number there.
        drop(plan(kind, &table));
        let (key, number) =
            if kind == "esp-seal" { ("next", first) } else { ("highest", first - 1) };
        folder.set_number(&state_file, key, number);
    }
    End { kind, table, state_file }
}

/// Generated only once, because scapy is slow.
static CASES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let lines = scapy("cases", "");
    let cases: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(cases.len(), 5 * 3 * 2 * 2 + 5 * 4 + 3 + 2 * 4 * 3 * 3);
    cases
});

#[test]
fn scapy_script_detects_changed_bytes() {
    let checked: u64 = scapy("self-check", "").trim().parse().unwrap();
    assert!(checked > 4000, "expected more than 4000 checked frames, got {checked}");
}

#[test]
fn open_restores_packets_sealed_by_scapy() {
    let folder = Folder::new();
    let mut opened = 0;
    for (index, case) in CASES.iter().enumerate() {
        let end = end(&folder, index, case, "esp-open");
        let mut bench = EspBench::new(vec![build(&plan(end.kind, &end.table))]);
        let (sealed, expected) = (frames(case, "sealed"), frames(case, "opened"));
        let (got, _) = bench.send(&sealed);
        if got.len() != expected.len() {
            panic!(
                "{}: {} of {} frames passed: {:?}",
                text(case, "name"),
                got.len(),
                expected.len(),
                bench.drops()
            );
        }
        for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert_eq!(
                hex(got),
                hex(expected),
                "{}: frame {index}: {}",
                text(case, "name"),
                hex(&sealed[index])
            );
        }
        opened += got.len();
        bench.assert_balanced();
    }
    assert!(opened > 4000, "expected more than 4000 frames, got {opened}");
}

#[test]
fn scapy_accepts_packets_sealed_by_esp_seal() {
    let folder = Folder::new();
    let mut results = String::new();
    for (index, case) in CASES.iter().enumerate() {
        let end = end(&folder, index, case, "esp-seal");
        let mut bench = EspBench::new(vec![build(&plan(end.kind, &end.table))]);
        let plain = frames(case, "plain");
        let (sealed, _) = bench.send(&plain);
        assert_eq!(sealed.len(), plain.len(), "{}: {:?}", text(case, "name"), bench.drops());
        for (index, sealed) in sealed.iter().enumerate() {
            let result =
                json!({ "case": text(case, "name"), "index": index, "sealed": hex(sealed) });
            results += &format!("{result}\n");
        }
        bench.assert_balanced();
    }
    let count = results.lines().count();
    assert!(count > 4000, "expected more than 4000 frames, got {count}");
    assert_eq!(scapy("check", &results).trim(), count.to_string());
}

#[test]
fn open_restores_packets_sealed_by_esp_seal() {
    let folder = Folder::new();
    for (index, case) in CASES.iter().enumerate() {
        let [seal, open] = ["esp-seal", "esp-open"].map(|kind| end(&folder, index, case, kind));
        let stages = [&seal, &open].map(|end| build(&plan(end.kind, &end.table)));
        let mut bench = EspBench::new(stages.into());
        let plain = frames(case, "plain");
        let got = bench.forward(&plain);
        for (got, plain) in got.iter().zip(&plain) {
            // The Ethernet padding may be missing.
            assert!(
                got.len() == plain.len() || plain.len() == 60 && got.len() < 60,
                "{}",
                text(case, "name")
            );
            assert_eq!(hex(got), hex(&plain[..got.len()]), "{}", text(case, "name"));
        }
        bench.assert_balanced();
        let written = folder.read(&seal.state_file) + &folder.read(&open.state_file);
        assert!(
            !written.contains(&text(case, "key")[..16]),
            "a state file reveals a key: {written}"
        );
    }
}

/// Sends frames one by one, because the result can depend on earlier frames.
#[test]
fn open_restores_or_drops_unusual_packets_as_expected() {
    let folder = Folder::new();
    let mut reasons_seen = BTreeMap::new();
    let mut failures = vec![];
    for extras in scapy("extras", "").lines() {
        let extras: Value = serde_json::from_str(extras).unwrap();
        let name = text(&extras, "name");
        let sas: Vec<String> = extras["open"]
            .as_array()
            .unwrap()
            .iter()
            .zip(extras["keys"].as_array().unwrap())
            .enumerate()
            .map(|(index, (sa, key))| {
                let key = folder.key(&format!("{name}-{index}.key"), key.as_str().unwrap());
                format!("{{ {}, key_file = '{key}' }}", sa.as_str().unwrap())
            })
            .collect();
        let state = folder.state(&format!("{name}.state"));
        let bypass = &extras["bypass"];
        let table = format!(
            "{{ lab = true, state_file = '{state}', bypass = {bypass}, sa = [{}] }}",
            sas.join(", ")
        );
        // Each SA belongs to a queue. Of two workers, only the first runs; it drops packets of SAs
        // that belong to the queue of the second.
        let plan = esp::plan_for("esp-open", &table, 2).unwrap();
        esp::acquire(&plan, &[]).unwrap();
        let mut bench = EspBench::new(vec![esp::build_for(
            &plan,
            BuildCx { workers: 2, ..BuildCx::default() },
        )]);
        for frame in extras["frames"].as_array().unwrap() {
            let frame_name = format!("{name}: {}", text(frame, "what"));
            let disposition = bench.send_one(&unhex(text(frame, "frame")));
            let is_expected = match (&disposition, frame["opened"].as_str()) {
                (Disposition::Passed(got), Some(expected)) => hex(got) == expected,
                (Disposition::Dropped(reason), None) => {
                    *reasons_seen.entry(*reason).or_insert(0) += 1;
                    frame["dropped"].as_array().unwrap().iter().any(|expected| expected == reason)
                }
                _ => false,
            };
            if !is_expected {
                let disposition = match disposition {
                    Disposition::Passed(got) => format!("passed as {}", hex(&got)),
                    other => format!("{other:?}"),
                };
                let expected = frame["opened"]
                    .as_str()
                    .map_or_else(|| frame["dropped"].to_string(), |hex| format!("opened as {hex}"));
                failures.push(format!(
                    "{frame_name}: {disposition}, expected {expected}: {}",
                    text(frame, "frame")
                ));
            }
        }
        bench.assert_balanced();
    }
    assert!(failures.is_empty(), "{} unexpected results:\n{}", failures.len(), failures.join("\n"));
    let reasons = [
        "no_sa",
        "unprotected",
        "replay",
        "late",
        "bad_tag",
        "bad_length",
        "bad_padding",
        "wrong_queue",
        "esp_fragment",
        "dummy",
        "ecn",
        "policy",
        "malformed",
    ];
    for reason in reasons {
        assert!(reasons_seen.contains_key(reason), "expected a drop as {reason}: {reasons_seen:?}");
    }
}

#[test]
fn tcp_mss_lowers_mss_of_syns_as_scapy_does() {
    let folder = Folder::new();
    let lines: Vec<Value> =
        scapy("mss", "").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() > 900);
    let packets = |key: &str| -> Vec<Vec<u8>> {
        let frame = |packet: Vec<u8>| {
            esp::ethernet(if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }, &packet)
        };
        lines.iter().map(|line| frame(unhex(text(line, key)))).collect()
    };
    let (plain, expected) = (packets("plain"), packets("expected"));
    assert!(
        plain.iter().zip(&expected).filter(|(plain, expected)| plain != expected).count() > 100
    );
    // `esp-seal` lowers the MSS before encapsulation, `esp-open` after decapsulation.
    for lowering_end in ["seal", "open"] {
        for (mode, addresses) in
            [("tunnel", "source = '192.0.2.1', destination = '192.0.2.2',"), ("transport", "")]
        {
            let key = folder.key("key", esp::KEY_128);
            let stages = ["seal", "open"].map(|end| {
                let state = folder.state(&format!("{lowering_end}-{mode}-{end}.state"));
                let tcp_mss = if end == lowering_end { "tcp_mss = 1200," } else { "" };
                let addresses = if end == "seal" { addresses } else { "" };
                let table = format!(
                    "{{ lab = true, state_file = '{state}', {tcp_mss} sa = [{{ spi = 4096, transform = 'aes-128-gcm', mode = '{mode}', {addresses} key_file = '{key}' }}] }}"
                );
                build(&plan(&format!("esp-{end}"), &table))
            });
            let mut bench = EspBench::new(stages.into());
            for (index, (got, expected)) in bench.forward(&plain).iter().zip(&expected).enumerate()
            {
                assert_eq!(
                    hex(got),
                    hex(expected),
                    "esp-{lowering_end} in {mode} mode: {}",
                    hex(&plain[index])
                );
            }
            bench.assert_balanced();
        }
    }
}

/// Tests only AES-GCM without extended sequence numbers: tshark in Debian 12 can decrypt nothing
/// else.
#[test]
fn tshark_decrypts_sealed_packets() {
    let folder = Folder::new();
    let mut pcap = [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65535, 1].map(u32::to_le_bytes).concat();
    let mut command = Command::new("tshark");
    let mut expected = vec![];
    for (index, case) in CASES.iter().enumerate() {
        let name = text(case, "name");
        if !text(case, "transform").ends_with("-gcm")
            || name.contains("sizes")
            || !text(case, "seal").contains("esn = false")
        {
            continue;
        }
        let end = end(&folder, index, case, "esp-seal");
        let mut bench = EspBench::new(vec![build(&plan(end.kind, &end.table))]);
        let plain = frames(case, "plain");
        for (sealed, plain) in bench.forward(&plain).iter().zip(&plain) {
            let length = (sealed.len() as u32).to_le_bytes();
            pcap.extend([&[0; 8][..], &length, &length, sealed].concat());
            expected.push((case["spi"].as_u64().unwrap(), inner_addresses(plain)));
        }
        let (spi, key) = (case["spi"].as_u64().unwrap(), text(case, "key"));
        for version in ["IPv4", "IPv6"] {
            let association = format!(
                r#"uat:esp_sa:"{version}","*","*","{spi:#x}","AES-GCM with 16 octet ICV [RFC4106]","0x{key}","NULL","""#
            );
            command.args(["-o", &association]);
        }
        bench.assert_balanced();
    }
    assert!(expected.len() > 300);
    let file = folder.join("sealed.pcap");
    std::fs::write(&file, pcap).unwrap();
    command.arg("-r").arg(&file);
    let preferences =
        ["esp.enable_encryption_decode", "esp.enable_authentication_check", "ip.check_checksum"];
    command.args(preferences.map(|name| format!("-o{name}:TRUE")));
    // Show inner payloads as data, because they are random.
    command.args(["-d", "udp.port==2000,data", "-T", "fields"]);
    let fields = [
        "esp.spi",
        "esp.icv_good",
        "_ws.malformed",
        "ip.checksum.status",
        "ip.src",
        "ipv6.src",
        "ip.dst",
        "ipv6.dst",
    ];
    command.args(fields.map(|field| format!("-e{field}")));
    let output = command.output().expect("tshark: `make test-deps` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.lines().count(), expected.len());
    for (line, (spi, addresses)) in output.lines().zip(expected) {
        let columns: Vec<&str> = line.split('\t').collect();
        assert_eq!(columns[..3], [&format!("{spi:#010x}"), "1", ""], "{line}");
        assert!(!columns[3].contains('0'), "tshark reports a bad checksum: {line}");
        let printed: Vec<&str> = columns[4..].iter().flat_map(|column| column.split(',')).collect();
        assert!(
            addresses.iter().all(|address| printed.contains(&address.as_str())),
            "expected {addresses:?} in {line}"
        );
    }
}

/// Returns the inner addresses as tshark prints them.
fn inner_addresses(frame: &[u8]) -> [String; 2] {
    let headers = xdpfwd_wire::Headers::parse(frame);
    let addresses = headers.addresses(frame).unwrap();
    [addresses.source().to_string(), addresses.destination().to_string()]
}
