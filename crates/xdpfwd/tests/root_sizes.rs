//! Tests every frame length, from an Ethernet header alone to the longest packet that a UMEM frame
//! holds. Needs root.
//!
//! [`build_lab`] connects gen0 to fwd0 and fwd1 to sink0. `cross_connect(queues, engine)` returns a
//! configuration that forwards between fwd0 and fwd1, with `engine` in its table `[engine]`.

mod support;

use std::process::Command;

use support::wire::{Side, gen0, hex, mark_count, run_wire_py, send_and_capture, sink0};
use support::{Config, FinalReport, Running, XDPFWD, build_lab, cross_connect, stderr};
use xdpfwd_lab::Chain;
use xdpfwd_testkit::lab::ip;
use xdpfwd_testkit::process::run;
use xdpfwd_testkit::random_filter::SplitMix64;

/// A generator of frames with pseudorandom payload, which is the same in every run.
struct FrameGenerator(SplitMix64);

impl FrameGenerator {
    fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// Returns a frame of `len` bytes: MAC addresses, `start` (from the EtherType on), and random
    /// bytes.
    fn frame(&mut self, len: usize, start: &[u8]) -> Vec<u8> {
        let mut frame = [&[2, 0, 0, 0, 0, 4, 2, 0, 0, 0, 0, 1], start].concat();
        while frame.len() < len {
            frame.extend(self.0.draw().to_le_bytes());
        }
        frame.truncate(len);
        frame
    }
}

// Starts of frames, from the EtherType on: an EtherType for experiments; IPv4 and IPv6 with the
// first byte of the header; VLAN tags.
const EXPERIMENTAL: &[u8] = &[0x88, 0xb5];
const IPV4: &[u8] = &[0x08, 0x00, 0x45];
const IPV6: &[u8] = &[0x86, 0xdd, 0x60];
const TAG: &[u8] = &[0x81, 0x00, 0x00, 0x64];
const SERVICE_TAG: &[u8] = &[0x88, 0xa8, 0x00, 0xc8];

fn set_mtu((namespace, interface): Side<'_>, mtu: usize) {
    ip(namespace, &format!("link set dev {interface} mtu {mtu}"));
}

/// Compares frames. A failure prints only the first difference.
#[track_caller]
fn assert_same(arrived: &[Vec<u8>], expected: &[Vec<u8>], context: &str) {
    if let Some(index) = arrived.iter().zip(expected).position(|(a, b)| a != b) {
        let (actual, expected) = (&arrived[index], &expected[index]);
        panic!(
            "{context}: frame {index} differs: {} bytes {}… instead of {} bytes {}…",
            actual.len(),
            hex(&actual[..actual.len().min(40)]),
            expected.len(),
            hex(&expected[..expected.len().min(40)])
        );
    }
    let lengths = |frames: &[Vec<u8>]| frames.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(
        lengths(arrived),
        lengths(expected),
        "{context}: the arrived frames have wrong lengths"
    );
}

/// Returns received packets and bytes, and sent packets and bytes.
fn port_counters(final_report: &FinalReport, interface: &str) -> [u64; 4] {
    let port = final_report.json["ports"]
        .as_array()
        .unwrap()
        .iter()
        .find(|port| port["interface"] == interface)
        .unwrap();
    ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"].map(|key| port[key].as_u64().unwrap())
}

fn kernel_counter(final_report: &FinalReport, port: usize, counter: &str) -> u64 {
    final_report.json["ports"][port]["kernel"][counter]
        .as_u64()
        .unwrap_or_else(|| panic!("no {counter} in {}", final_report.json))
}

/// Frames below 60 bytes occur only on interfaces that do not pad, such as veth.
#[test]
fn every_frame_length_passes_unchanged_both_ways() {
    for mode in ["copy", "skb"] {
        for frame_size in [2048, 4096] {
            let case = format!("mode {mode}, frame_size {frame_size}");
            let lab = build_lab(Chain::builder());
            let config = cross_connect(1, &format!("mode = \"{mode}\"")) + &umem(frame_size);
            let running = Running::start(&lab, &config);
            let mut generator = FrameGenerator::new(frame_size as u64);
            let lengths = 14..=1514;
            let frames: Vec<_> = lengths
                .flat_map(|len| [EXPERIMENTAL, IPV4].map(|start| generator.frame(len, start)))
                .collect();
            for (from, to) in [(gen0(&lab), sink0(&lab)), (sink0(&lab), gen0(&lab))] {
                assert_same(
                    &send_and_capture(from, to, &frames),
                    &frames,
                    &format!("{case}, {} to {}", from.1, to.1),
                );
            }
            let (_, final_report) = running.stop();
            final_report.assert_frames_and_packets_add_up();
            // After every 32 frames, wire.py also sends a mark: a frame of 60 bytes.
            let marks = mark_count(frames.len());
            let packets = (frames.len() + marks) as u64;
            let bytes = (frames.iter().map(Vec::len).sum::<usize>() + 60 * marks) as u64;
            for port in [0, 1] {
                assert_eq!(
                    port_counters(&final_report, ["fwd0", "fwd1"][port]),
                    [packets, bytes, packets, bytes],
                    "{case}"
                );
                assert_eq!(kernel_counter(&final_report, port, "rx_dropped"), 0, "{case}");
            }
            assert_eq!(
                final_report.parsed.drops.values().sum::<u64>(),
                0,
                "{case}: {}",
                final_report.json
            );
        }
    }
}

fn umem(frame_size: usize) -> String {
    format!("\n[umem]\nframe_size = {frame_size}\nframes = 2048\n")
}

/// The kernel rejects frames below 14 bytes on packet sockets and on a veth. So the other tests
/// start at 14 bytes.
#[test]
fn frame_shorter_than_ethernet_header_cannot_be_sent() {
    let lab = build_lab(Chain::builder());
    let running = Running::start(&lab, &cross_connect(1, ""));
    let output = run_wire_py(gen0(&lab), sink0(&lab), &[vec![2; 13]]);
    assert!(stderr(&output).contains("cannot send 13 bytes"), "{}", stderr(&output));
    let (_, final_report) = running.stop();
    assert_eq!(port_counters(&final_report, "fwd0"), [0; 4]);
}

/// The stage `ttl` drops a frame as malformed if its EtherType announces an IP header or a VLAN tag
/// that is incomplete.
#[test]
fn ttl_and_set_mac_handle_every_frame_length() {
    let config = r#"
        [[port]]
        name = "lan"
        interface = "fwd0"
        [[port]]
        name = "wan"
        interface = "fwd1"
        [[path]]
        from = "lan"
        to = "wan"
        stages = ["hop"]
        [[path]]
        from = "wan"
        to = "lan"
        stages = ["next-hop"]
        [stage.hop]
        kind = "ttl"
        [stage.next-hop]
        kind = "set-mac"
        source = "02:00:00:00:00:aa"
        destination = "02:00:00:00:00:bb"
    "#;
    let lab = build_lab(Chain::builder());
    let running = Running::start(&lab, config);
    let mut generator = FrameGenerator::new(1);
    let mut frames = vec![];
    let mut after_ttl = vec![];
    let (mut expired, mut malformed) = (0u64, 0u64);
    for len in 14..=1514 {
        let not_ip = generator.frame(len, EXPERIMENTAL);
        after_ttl.push(not_ip.clone());
        frames.push(not_ip);
        for (start, header_len) in [(IPV4, 20), (IPV6, 40), (TAG, 4)] {
            let mut frame = generator.frame(len, start);
            if len < 14 + header_len {
                malformed += 1;
                frames.push(frame);
                continue;
            }
            let ttl = 1 + (len % 4) as u8;
            let ttl_offset = match header_len {
                20 => {
                    frame[14] = 0x45;
                    frame[16..18].copy_from_slice(&(len as u16 - 14).to_be_bytes());
                    frame[22] = ttl;
                    fill_checksum(&mut frame);
                    Some(22)
                }
                40 => {
                    frame[18..20].copy_from_slice(&(len as u16 - 54).to_be_bytes());
                    frame[20] = 59; // no next header
                    frame[21] = ttl;
                    Some(21)
                }
                // The tagged packet is not IP.
                _ => {
                    frame[16..18].copy_from_slice(EXPERIMENTAL);
                    None
                }
            };
            frames.push(frame.clone());
            match ttl_offset {
                Some(_) if ttl == 1 => expired += 1,
                Some(offset) => {
                    frame[offset] -= 1;
                    if header_len == 20 {
                        fill_checksum(&mut frame);
                    }
                    after_ttl.push(frame);
                }
                None => after_ttl.push(frame),
            }
        }
    }
    // If a tagged frame has fewer than two bytes after the EtherType that follows the tag, the
    // receiving kernel drops it before any capture (`skb_vlan_untag`). Only the counters below show
    // that xdpfwd forwarded the frame.
    let is_invisible = |frame: &Vec<u8>| frame.len() < 20 && frame[12..].starts_with(&TAG[..2]);
    after_ttl.retain(|frame| !is_invisible(frame));
    assert_same(&send_and_capture(gen0(&lab), sink0(&lab), &frames), &after_ttl, "ttl");
    let after_set_mac = frames.iter().cloned().map(|mut frame| {
        frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 0xbb, 2, 0, 0, 0, 0, 0xaa]);
        frame
    });
    let after_set_mac = after_set_mac.filter(|frame| !is_invisible(frame)).collect::<Vec<_>>();
    assert_same(&send_and_capture(sink0(&lab), gen0(&lab), &frames), &after_set_mac, "set-mac");
    let (_, final_report) = running.stop();
    final_report.assert_frames_and_packets_add_up();
    let drops = &final_report.json["drops"];
    assert_eq!(
        (&drops["malformed"], &drops["ttl_expired"]),
        (&malformed.into(), &expired.into()),
        "{}",
        final_report.json
    );
    assert_eq!(final_report.json["stages"][0]["counters"]["expired"], expired);
    let marks = mark_count(frames.len()) as u64;
    assert_eq!(
        port_counters(&final_report, "fwd1")[2],
        frames.len() as u64 + marks - malformed - expired
    );
    assert_eq!(port_counters(&final_report, "fwd0")[2], frames.len() as u64 + marks);
}

/// Recomputes the checksum of an IPv4 header without options (RFC 1071).
fn fill_checksum(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let mut sum: u32 = frame[14..34]
        .as_chunks::<2>()
        .0
        .iter()
        .map(|&pair| u32::from(u16::from_be_bytes(pair)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Tests zero, one and two VLAN tags at the largest MTU for a frame size.
///
/// veth counts a second tag against the MTU. Other drivers may accept a second tag beyond the MTU,
/// so xdpfwd reserves space for one. To test this, the MTUs are raised while xdpfwd runs. The
/// kernel then drops and counts packets too long for a UMEM frame.
#[test]
fn longest_packets_pass_and_longer_packets_are_counted() {
    for (mode, frame_size, mtu) in
        [("copy", 2048, 1770), ("skb", 2048, 1770), ("skb", 4096, 3818), ("auto", 4096, 3818)]
    {
        let case = format!("mode {mode}, frame_size {frame_size}");
        let lab = build_lab(Chain::builder());
        let (lan, wan) = ((lab.fwd(), "fwd0"), (lab.fwd(), "fwd1"));
        let interfaces = [gen0(&lab), sink0(&lab), lan, wan];
        interfaces.into_iter().for_each(|side| set_mtu(side, mtu));
        let running = Running::start(
            &lab,
            &(cross_connect(1, &format!("mode = \"{mode}\"")) + &umem(frame_size)),
        );
        let directions = [(gen0(&lab), sink0(&lab)), (sink0(&lab), gen0(&lab))];
        let mut generator = FrameGenerator::new(mtu as u64);
        let two_tags = [SERVICE_TAG, TAG, EXPERIMENTAL].concat();
        let one_tag = [TAG, EXPERIMENTAL].concat();
        let fitting =
            [generator.frame(mtu + 14, EXPERIMENTAL), generator.frame(mtu + 18, &one_tag)];
        for (from, to) in directions {
            assert_same(
                &send_and_capture(from, to, &fitting),
                &fitting,
                &format!("{case}, {} to {}", from.1, to.1),
            );
        }
        interfaces.into_iter().for_each(|side| set_mtu(side, mtu + 100));
        let longest =
            [generator.frame(mtu + 22, &two_tags), generator.frame(mtu + 22, EXPERIMENTAL)];
        let too_long = [
            generator.frame(mtu + 23, &two_tags),
            generator.frame(mtu + 23, IPV4),
            generator.frame(mtu + 114, &one_tag),
        ];
        let mixed = [&longest[..], &too_long, &longest].concat();
        for (from, to) in directions {
            let arrived = send_and_capture(from, to, &mixed);
            assert_same(
                &arrived,
                &[&longest[..], &longest].concat(),
                &format!("{case}, {} to {}", from.1, to.1),
            );
        }
        let (_, final_report) = running.stop();
        final_report.assert_frames_and_packets_add_up();
        for (port, interface) in ["fwd0", "fwd1"].into_iter().enumerate() {
            let [received, ..] = port_counters(&final_report, interface);
            assert_eq!(
                received as usize,
                fitting.len() + 2 * longest.len() + 2,
                "{case}: received packets must include two marks: {}",
                final_report.json
            );
            assert_eq!(
                kernel_counter(&final_report, port, "rx_dropped"),
                too_long.len() as u64,
                "{case}: {}",
                final_report.json
            );
            let redirected = final_report.json["ports"][port]["xdp_redirected"].as_u64().unwrap();
            assert_eq!(
                redirected,
                received + too_long.len() as u64,
                "{case}: {}",
                final_report.json
            );
        }
        assert_eq!(
            final_report.parsed.drops.values().sum::<u64>(),
            0,
            "{case}: {}",
            final_report.json
        );
    }
}

/// A veth drops sent packets that are longer than its other end accepts.
#[test]
fn packet_above_egress_mtu_is_counted_as_tx_dropped() {
    for mode in ["copy", "skb"] {
        let lab = build_lab(Chain::builder());
        [gen0(&lab), (lab.fwd(), "fwd0")].into_iter().for_each(|side| set_mtu(side, 1700));
        let running = Running::start(&lab, &cross_connect(1, &format!("mode = \"{mode}\"")));
        let mut generator = FrameGenerator::new(2);
        let [short, long] = [1518, 1519].map(|len| generator.frame(len, EXPERIMENTAL));
        let frames = [short.clone(), long, short.clone()];
        assert_same(
            &send_and_capture(gen0(&lab), sink0(&lab), &frames),
            &[short.clone(), short],
            mode,
        );
        let (_, final_report) = running.stop();
        final_report.assert_frames_and_packets_add_up();
        assert_eq!(
            final_report.json["kernel"]["tx_dropped"], 1,
            "mode {mode}: {}",
            final_report.json
        );
        assert_eq!(
            port_counters(&final_report, "fwd1")[2],
            4,
            "xdpfwd must pass four packets to the kernel, including the dropped one and a mark: {}",
            final_report.json
        );
    }
}

#[test]
fn mtu_beyond_frame_size_is_a_configuration_error() {
    let lab = build_lab(Chain::builder());
    for (frame_size, max_mtu, fix) in [
        (2048, 1770, "set frame_size = 4096 in [umem], or lower the MTU"),
        (4096, 3818, "lower the MTU"),
    ] {
        for (mtu, exit_code) in [(max_mtu, 0), (max_mtu + 1, 2)] {
            set_mtu((lab.fwd(), "fwd1"), mtu);
            let config = Config::new(&(cross_connect(1, "") + &umem(frame_size)));
            for arguments in [&["--check"][..], &["--duration", "0.1"]] {
                let mut command = lab.fwd().command(XDPFWD);
                let output =
                    command.args(["--config", config.path()]).args(arguments).output().unwrap();
                assert_eq!(output.status.code(), Some(exit_code), "MTU {mtu}: {}", stderr(&output));
                let expected = format!(
                    "{}:10:21: fwd1 has MTU {mtu}, but a frame of {frame_size} bytes has room for MTU {max_mtu}; {fix} with \
                     `ip link set fwd1 mtu {max_mtu}`\n",
                    config.path()
                );
                assert!(
                    exit_code == 0 || stderr(&output) == expected,
                    "{}{expected}",
                    stderr(&output)
                );
            }
        }
    }
}

/// A veth accepts a native XDP program only if a page can hold a packet of its peer and the
/// kernel's reserved space: with pages of 4 KiB, up to a peer MTU of 3506.
#[test]
fn veth_above_mtu_3506_uses_generic_xdp_or_fails_in_copy_mode() {
    const MAX_NATIVE_MTU: usize = 3506;
    for mtu in [MAX_NATIVE_MTU, MAX_NATIVE_MTU + 1, 3818] {
        let lab = build_lab(Chain::builder());
        let interfaces = [gen0(&lab), sink0(&lab), (lab.fwd(), "fwd0"), (lab.fwd(), "fwd1")];
        interfaces.into_iter().for_each(|side| set_mtu(side, mtu));
        for mode in ["auto", "copy", "skb"] {
            let case = format!("MTU {mtu}, mode {mode}");
            let config = cross_connect(1, &format!("mode = \"{mode}\"")) + &umem(4096);
            if mode == "copy" && mtu > MAX_NATIVE_MTU {
                let config = Config::new(&config);
                let output =
                    lab.fwd().command(XDPFWD).args(["--config", config.path()]).output().unwrap();
                let text = stderr(&output);
                assert_eq!(output.status.code(), Some(1), "{case}: {text}");
                assert_eq!(
                    text,
                    format!(
                        "xdpfwd: fwd0: mode \"copy\" needs native XDP, which the driver refuses: the \
                         MTU is too large (for a veth, the MTU of its other end counts: at most \
                         3506 with 4 KiB pages) (fwd0 has MTU {mtu}); lower the MTU \
                         with `ip link set dev fwd0 mtu N` (for a veth, at its other end), or set \
                         mode = \"skb\" or \"auto\"\n"
                    )
                );
                continue;
            }
            let running = Running::start(&lab, &config);
            let mut generator = FrameGenerator::new(mtu as u64);
            let tagged = [TAG, EXPERIMENTAL].concat();
            let frames = [14, 60, MAX_NATIVE_MTU, mtu + 13, mtu + 14]
                .map(|len| generator.frame(len, EXPERIMENTAL))
                .into_iter()
                .chain(
                    // At a length in this range, the kernel begins to split packets over two pages.
                    (mtu + 1..=mtu + 18).map(|len| generator.frame(len, &tagged)),
                );
            let frames = frames.collect::<Vec<_>>();
            for (from, to) in [(gen0(&lab), sink0(&lab)), (sink0(&lab), gen0(&lab))] {
                assert_same(
                    &send_and_capture(from, to, &frames),
                    &frames,
                    &format!("{case}, {} to {}", from.1, to.1),
                );
            }
            let (_, final_report) = running.stop();
            final_report.assert_frames_and_packets_add_up();
            let expected_mode = if mtu > MAX_NATIVE_MTU || mode == "skb" { "skb" } else { "copy" };
            assert!(
                final_report.parsed.ports.iter().all(|port| port.mode == expected_mode),
                "{case}: {}",
                final_report.json
            );
            let fallback = &final_report.json["fallback"];
            if mode == "auto" && mtu > MAX_NATIVE_MTU {
                assert_eq!(
                    (&fallback["port"], &fallback["lacks"]),
                    (&"lan".into(), &"native XDP".into()),
                    "{fallback}"
                );
                assert!(
                    fallback["reason"].as_str().unwrap().contains("the MTU is too large"),
                    "{fallback}"
                );
            }
            assert!(mode != "skb" || fallback.is_null(), "{fallback}");
        }
    }
}

/// A veth also rejects native XDP if it has fewer RX queues than its peer has TX queues.
#[test]
fn veth_with_too_few_rx_queues_uses_generic_xdp_or_fails_in_copy_mode() {
    let lab = build_lab(Chain::builder().queues(2));
    let ethtool = lab.fwd().command("ethtool").args(["-L", "fwd0", "rx", "1"]).output().unwrap();
    assert!(ethtool.status.success(), "{}", stderr(&ethtool));
    let config = Config::new(&cross_connect(1, "mode = \"copy\""));
    let output = lab.fwd().command(XDPFWD).args(["--config", config.path()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("too few queues") && text.contains("`ethtool -L fwd0 rx N`"), "{text}");
    let (_, final_report) = Running::start(&lab, &cross_connect(1, "")).stop();
    assert_eq!(final_report.parsed.port("fwd0").unwrap().mode, "skb");
    assert_eq!(final_report.json["fallback"]["lacks"], "native XDP");
}

/// A VLAN device leaves its tag in the metadata of the skb if the lower interface announces VLAN
/// offload (`txvlan`). A veth announces the offload but never inserts the tag, so XDP does not see
/// the tag, and forwarding loses it. With `txvlan off` at the sender, the kernel writes the tag
/// into the packet. `rxvlan` at the forwarder has no effect on a veth.
///
/// Instead of a VLAN device, a BPF program tags the packets in the same way, because some kernels
/// lack CONFIG_VLAN_8021Q.
#[test]
fn vlan_tag_is_lost_unless_sender_disables_vlan_offload() {
    for mode in ["copy", "skb"] {
        let lab = build_lab(Chain::builder());
        tag_sent_packets(gen0(&lab));
        let running = Running::start(&lab, &cross_connect(1, &format!("mode = \"{mode}\"")));
        let mut generator = FrameGenerator::new(3);
        let frames = [60, 61, 600, 1500].map(|len| generator.frame(len, EXPERIMENTAL));
        let tagged = frames.clone().map(|frame| [&frame[..12], TAG, &frame[12..]].concat());
        let fwd0 = (lab.fwd(), "fwd0");
        for (txvlan, rxvlan, expected) in [
            ("on", "on", &frames),
            ("on", "off", &frames),
            ("off", "on", &tagged),
            ("off", "off", &tagged),
        ] {
            ethtool(gen0(&lab), &["txvlan", txvlan]);
            ethtool(fwd0, &["rxvlan", rxvlan]);
            let arrived = send_and_capture(gen0(&lab), sink0(&lab), &frames);
            assert_same(
                &arrived,
                expected,
                &format!("mode {mode}, txvlan {txvlan}, rxvlan {rxvlan}"),
            );
        }
        let (_, final_report) = running.stop();
        final_report.assert_frames_and_packets_add_up();
    }
}

fn ethtool((namespace, interface): Side<'_>, features: &[&str]) {
    run(namespace.command("ethtool").args(["-K", interface]).args(features));
}

fn tag_sent_packets((namespace, interface): Side<'_>) {
    let object = concat!(env!("CARGO_TARGET_TMPDIR"), "/push-vlan.bpf.o");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/push-vlan.bpf.c");
    let mut clang = Command::new("clang");
    clang.args([
        "-O2",
        "-g",
        "-target",
        "bpf",
        "-I",
        "/usr/include/x86_64-linux-gnu",
        "-c",
        source,
        "-o",
        object,
    ]);
    run(&mut clang);
    let mut tc = namespace.command("tc");
    tc.args(["qdisc", "add", "dev", interface, "clsact"]);
    run(&mut tc);
    let mut tc = namespace.command("tc");
    tc.args([
        "filter",
        "add",
        "dev",
        interface,
        "egress",
        "bpf",
        "direct-action",
        "object-file",
        object,
        "section",
        "tc",
    ]);
    run(&mut tc);
}
