//! Tests every packet size, from the minimum of an interface to the maximum of a frame. Needs root.

mod support;

use std::process::Command;

use support::wire::{Side, gen0, hex, marks, pass, sink0, wire};
use support::{Config, Final, Running, XDPFWD, chain, cross_connect, stderr};
use xdpfwd_lab::Chain;
use xdpfwd_testkit::lab::ip;
use xdpfwd_testkit::process::run;
use xdpfwd_testkit::random_filter::SplitMix64;

/// Pseudorandom frames, equal in every run.
struct Bytes(SplitMix64);

impl Bytes {
    fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// Returns a frame of `len` bytes: addresses, `header` from the EtherType on, then random
    /// bytes.
    fn frame(&mut self, len: usize, header: &[u8]) -> Vec<u8> {
        let mut frame = [&[2, 0, 0, 0, 0, 4, 2, 0, 0, 0, 0, 1], header].concat();
        while frame.len() < len {
            frame.extend(self.0.draw().to_le_bytes());
        }
        frame.truncate(len);
        frame
    }
}

const EXPERIMENTAL: &[u8] = &[0x88, 0xb5];
const IPV4: &[u8] = &[0x08, 0x00, 0x45];
const IPV6: &[u8] = &[0x86, 0xdd, 0x60];
const TAG: &[u8] = &[0x81, 0x00, 0x00, 0x64];
const SERVICE_TAG: &[u8] = &[0x88, 0xa8, 0x00, 0xc8];

fn set_mtu((namespace, interface): Side<'_>, mtu: usize) {
    ip(namespace, &format!("link set dev {interface} mtu {mtu}"));
}

/// Checks that all frames arrived in order and unchanged; panics with a readable message.
#[track_caller]
fn assert_same(arrived: &[Vec<u8>], expected: &[Vec<u8>], context: &str) {
    if let Some(at) = arrived.iter().zip(expected).position(|(a, b)| a != b) {
        let (actual, expected) = (&arrived[at], &expected[at]);
        panic!(
            "{context}: frame {at} differs: {} bytes {}… instead of {} bytes {}…",
            actual.len(),
            hex(&actual[..actual.len().min(40)]),
            expected.len(),
            hex(&expected[..expected.len().min(40)])
        );
    }
    let lengths = |frames: &[Vec<u8>]| frames.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(arrived), lengths(expected), "{context}: lengths of the arrived frames");
}

/// Returns a port's counters in a final report: packets and bytes received, packets and bytes sent.
fn counted(last: &Final, interface: &str) -> [u64; 4] {
    let port = last.json["ports"]
        .as_array()
        .unwrap()
        .iter()
        .find(|port| port["interface"] == interface)
        .unwrap();
    ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"].map(|key| port[key].as_u64().unwrap())
}

fn kernel(last: &Final, port: usize, counter: &str) -> u64 {
    last.json["ports"][port]["kernel"][counter]
        .as_u64()
        .unwrap_or_else(|| panic!("no {counter} in {}", last.json))
}

/// Every length of Ethernet without jumbo frames, and lengths below 60 bytes, which only a veth
/// forwards.
#[test]
fn every_frame_length_passes_unchanged_both_ways() {
    for mode in ["copy", "skb"] {
        for frame_size in [2048, 4096] {
            let case = format!("mode {mode}, frame_size {frame_size}");
            let chain = chain(Chain::builder());
            let config = cross_connect(1, &format!("mode = \"{mode}\"")) + &umem(frame_size);
            let running = Running::start(&chain, &config);
            let mut bytes = Bytes::new(frame_size as u64);
            let lengths = 14..=1514;
            let frames: Vec<_> = lengths
                .flat_map(|len| [EXPERIMENTAL, IPV4].map(|header| bytes.frame(len, header)))
                .collect();
            for (from, to) in [(gen0(&chain), sink0(&chain)), (sink0(&chain), gen0(&chain))] {
                assert_same(
                    &pass(from, to, &frames),
                    &frames,
                    &format!("{case}, {} to {}", from.1, to.1),
                );
            }
            let (_, last) = running.stop();
            last.assert_conserved();
            let (packets, length) = (frames.len(), frames.iter().map(Vec::len).sum::<usize>());
            let (packets, length) =
                ((packets + marks(packets)) as u64, (length + 60 * marks(packets)) as u64);
            for port in [0, 1] {
                assert_eq!(
                    counted(&last, ["fwd0", "fwd1"][port]),
                    [packets, length, packets, length],
                    "{case}"
                );
                assert_eq!(kernel(&last, port, "rx_dropped"), 0, "{case}");
            }
            assert_eq!(last.report.drops.values().sum::<u64>(), 0, "{case}: {}", last.json);
        }
    }
}

fn umem(frame_size: usize) -> String {
    format!("\n[umem]\nframe_size = {frame_size}\nframes = 2048\n")
}

/// Frames shorter than an Ethernet header cannot be sent: the kernel rejects them from a packet
/// socket, and a veth from any sender. (On a wire, frames have at least 60 bytes; a veth does not
/// pad, so the tests start at 14.)
#[test]
fn frame_shorter_than_ethernet_header_cannot_be_sent() {
    let chain = chain(Chain::builder());
    let running = Running::start(&chain, &cross_connect(1, ""));
    let output = wire(gen0(&chain), sink0(&chain), &[vec![2; 13]]);
    assert!(stderr(&output).contains("cannot send 13 bytes"), "{}", stderr(&output));
    let (_, last) = running.stop();
    assert_eq!(counted(&last, "fwd0"), [0; 4]);
}

/// Stages with short frames: `set-mac` finds addresses in every frame; `ttl` drops possible IP
/// packets that end within their header as malformed, and passes everything else.
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
    let chain = chain(Chain::builder());
    let running = Running::start(&chain, config);
    let mut bytes = Bytes::new(1);
    let mut frames = vec![];
    let mut after_ttl = vec![];
    let (mut expired, mut malformed) = (0u64, 0u64);
    for len in 14..=1514 {
        let other = bytes.frame(len, EXPERIMENTAL);
        after_ttl.push(other.clone());
        frames.push(other);
        for (ethertype, header) in [(IPV4, 20), (IPV6, 40), (TAG, 4)] {
            let mut frame = bytes.frame(len, ethertype);
            if len < 14 + header {
                malformed += 1;
                frames.push(frame);
                continue;
            }
            // A valid header, with a TTL of 1 to 4.
            let ttl = 1 + (len % 4) as u8;
            let hops = match header {
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
                // After the tag: not IP.
                _ => {
                    frame[16..18].copy_from_slice(EXPERIMENTAL);
                    None
                }
            };
            frames.push(frame.clone());
            match hops {
                Some(_) if ttl == 1 => expired += 1,
                Some(at) => {
                    frame[at] -= 1;
                    if header == 20 {
                        fill_checksum(&mut frame);
                    }
                    after_ttl.push(frame);
                }
                None => after_ttl.push(frame),
            }
        }
    }
    // The receiving kernel drops a tagged frame with fewer than two bytes after the tag's EtherType
    // before any capture (`skb_vlan_untag`); only the counters show that it was forwarded.
    let invisible = |frame: &Vec<u8>| frame.len() < 20 && frame[12..].starts_with(&TAG[..2]);
    after_ttl.retain(|frame| !invisible(frame));
    assert_same(&pass(gen0(&chain), sink0(&chain), &frames), &after_ttl, "ttl");
    let after_set_mac = frames.iter().cloned().map(|mut frame| {
        frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 0xbb, 2, 0, 0, 0, 0, 0xaa]);
        frame
    });
    let after_set_mac = after_set_mac.filter(|frame| !invisible(frame)).collect::<Vec<_>>();
    assert_same(&pass(sink0(&chain), gen0(&chain), &frames), &after_set_mac, "set-mac");
    let (_, last) = running.stop();
    last.assert_conserved();
    let drops = &last.json["drops"];
    assert_eq!(
        (&drops["malformed"], &drops["ttl_expired"]),
        (&malformed.into(), &expired.into()),
        "{}",
        last.json
    );
    assert_eq!(last.json["stages"][0]["counters"]["expired"], expired);
    let marks = marks(frames.len()) as u64;
    assert_eq!(counted(&last, "fwd1")[2], frames.len() as u64 + marks - malformed - expired);
    assert_eq!(counted(&last, "fwd0")[2], frames.len() as u64 + marks);
}

/// Writes the recomputed checksum of an IPv4 header without options (RFC 1071).
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

/// Tests the largest MTU for a frame size, the longest packet with no, one and two VLAN tags, and
/// one byte more.
///
/// veth counts the second tag against the MTU of sender and receiver; other Ethernet devices may
/// not. So the test raises the MTUs while xdpfwd runs. Then a packet may not fit into a frame: the
/// kernel drops and counts it, without other effects.
#[test]
fn longest_packets_fit_and_longer_ones_are_counted() {
    for (mode, frame_size, mtu) in
        [("copy", 2048, 1770), ("skb", 2048, 1770), ("skb", 4096, 3818), ("auto", 4096, 3818)]
    {
        let case = format!("mode {mode}, frame_size {frame_size}");
        let chain = chain(Chain::builder());
        let (lan, wan) = ((chain.fwd(), "fwd0"), (chain.fwd(), "fwd1"));
        let all = [gen0(&chain), sink0(&chain), lan, wan];
        all.into_iter().for_each(|side| set_mtu(side, mtu));
        let running = Running::start(
            &chain,
            &(cross_connect(1, &format!("mode = \"{mode}\"")) + &umem(frame_size)),
        );
        let directions = [(gen0(&chain), sink0(&chain)), (sink0(&chain), gen0(&chain))];
        let mut bytes = Bytes::new(mtu as u64);
        let two_tags = [SERVICE_TAG, TAG, EXPERIMENTAL].concat();
        let one_tag = [TAG, EXPERIMENTAL].concat();
        let fits = [bytes.frame(mtu + 14, EXPERIMENTAL), bytes.frame(mtu + 18, &one_tag)];
        for (from, to) in directions {
            assert_same(&pass(from, to, &fits), &fits, &format!("{case}, {} to {}", from.1, to.1));
        }
        all.into_iter().for_each(|side| set_mtu(side, mtu + 100));
        let longest = [bytes.frame(mtu + 22, &two_tags), bytes.frame(mtu + 22, EXPERIMENTAL)];
        let too_long = [
            bytes.frame(mtu + 23, &two_tags),
            bytes.frame(mtu + 23, IPV4),
            bytes.frame(mtu + 114, &one_tag),
        ];
        let mixed = [&longest[..], &too_long, &longest].concat();
        for (from, to) in directions {
            let arrived = pass(from, to, &mixed);
            assert_same(
                &arrived,
                &[&longest[..], &longest].concat(),
                &format!("{case}, {} to {}", from.1, to.1),
            );
        }
        let (_, last) = running.stop();
        last.assert_conserved();
        for (port, interface) in ["fwd0", "fwd1"].into_iter().enumerate() {
            let [received, ..] = counted(&last, interface);
            assert_eq!(
                received as usize,
                fits.len() + 2 * longest.len() + 2,
                "{case}: {}",
                last.json
            );
            assert_eq!(
                kernel(&last, port, "rx_dropped"),
                too_long.len() as u64,
                "{case}: {}",
                last.json
            );
            let redirected = last.json["ports"][port]["xdp_redirected"].as_u64().unwrap();
            assert_eq!(redirected, received + too_long.len() as u64, "{case}: {}", last.json);
        }
        assert_eq!(last.report.drops.values().sum::<u64>(), 0, "{case}: {}", last.json);
    }
}

/// xdpfwd sends a packet that is longer than the other end of the veth accepts. It is dropped, and
/// counted as `tx_dropped`.
#[test]
fn packet_above_egress_mtu_is_counted_as_tx_dropped() {
    for mode in ["copy", "skb"] {
        let chain = chain(Chain::builder());
        [gen0(&chain), (chain.fwd(), "fwd0")].into_iter().for_each(|side| set_mtu(side, 1700));
        let running = Running::start(&chain, &cross_connect(1, &format!("mode = \"{mode}\"")));
        let mut bytes = Bytes::new(2);
        let [short, long] = [1518, 1519].map(|len| bytes.frame(len, EXPERIMENTAL));
        let frames = [short.clone(), long, short.clone()];
        assert_same(&pass(gen0(&chain), sink0(&chain), &frames), &[short.clone(), short], mode);
        let (_, last) = running.stop();
        last.assert_conserved();
        assert_eq!(last.json["kernel"]["tx_dropped"], 1, "mode {mode}: {}", last.json);
        assert_eq!(
            counted(&last, "fwd1")[2],
            4,
            "packets handed to the kernel, with the dropped one: {}",
            last.json
        );
    }
}

#[test]
fn mtu_beyond_frame_size_is_a_configuration_error() {
    let chain = chain(Chain::builder());
    for (frame_size, fits, fix) in [
        (2048, 1770, "set frame_size = 4096 in [umem], or lower the MTU"),
        (4096, 3818, "lower the MTU"),
    ] {
        for (mtu, code) in [(fits, 0), (fits + 1, 2)] {
            set_mtu((chain.fwd(), "fwd1"), mtu);
            let config = Config::new(&(cross_connect(1, "") + &umem(frame_size)));
            for more in [&["--check"][..], &["--duration", "0.1"]] {
                let mut command = chain.fwd().command(XDPFWD);
                let output = command.args(["--config", config.path()]).args(more).output().unwrap();
                assert_eq!(output.status.code(), Some(code), "MTU {mtu}: {}", stderr(&output));
                let expected = format!(
                    "{}:10:21: fwd1 has MTU {mtu}, but a frame of {frame_size} bytes has room for MTU {fits}; {fix} with \
                     `ip link set fwd1 mtu {fits}`\n",
                    config.path()
                );
                assert!(code == 0 || stderr(&output) == expected, "{}{expected}", stderr(&output));
            }
        }
    }
}

/// veth accepts a native XDP program only while its peer's packets fit into a page together with
/// the kernel's reserve: up to MTU 3506 with pages of 4 KiB. Above that, generic XDP is used.
#[test]
fn veth_above_mtu_3506_uses_generic_xdp() {
    const MAX_NATIVE_MTU: usize = 3506;
    for mtu in [MAX_NATIVE_MTU, MAX_NATIVE_MTU + 1, 3818] {
        let chain = chain(Chain::builder());
        let all = [gen0(&chain), sink0(&chain), (chain.fwd(), "fwd0"), (chain.fwd(), "fwd1")];
        all.into_iter().for_each(|side| set_mtu(side, mtu));
        for mode in ["auto", "copy", "skb"] {
            let case = format!("MTU {mtu}, mode {mode}");
            let config = cross_connect(1, &format!("mode = \"{mode}\"")) + &umem(4096);
            if mode == "copy" && mtu > MAX_NATIVE_MTU {
                let config = Config::new(&config);
                let output =
                    chain.fwd().command(XDPFWD).args(["--config", config.path()]).output().unwrap();
                let text = stderr(&output);
                assert_eq!(output.status.code(), Some(1), "{case}: {text}");
                assert_eq!(
                    text,
                    format!(
                        "xdpfwd: fwd0: mode \"copy\" needs native XDP, which the driver refuses: the \
                         MTU is too large (for a veth, the MTU of its other end: at most 3506 with \
                         4 KiB pages) (fwd0 has MTU {mtu}); lower the MTU \
                         with `ip link set dev fwd0 mtu N` (for a veth, at its other end), or set \
                         mode = \"skb\" or \"auto\"\n"
                    )
                );
                continue;
            }
            let running = Running::start(&chain, &config);
            let mut bytes = Bytes::new(mtu as u64);
            let tagged = [TAG, EXPERIMENTAL].concat();
            let frames = [14, 60, MAX_NATIVE_MTU, mtu + 13, mtu + 14]
                .map(|len| bytes.frame(len, EXPERIMENTAL))
                .into_iter()
                .chain(
                    // Increase the length byte by byte past the point where the kernel splits a
                    // packet over two pages.
                    (mtu + 1..=mtu + 18).map(|len| bytes.frame(len, &tagged)),
                );
            let frames = frames.collect::<Vec<_>>();
            for (from, to) in [(all[0], all[1]), (all[1], all[0])] {
                assert_same(
                    &pass(from, to, &frames),
                    &frames,
                    &format!("{case}, {} to {}", from.1, to.1),
                );
            }
            let (_, last) = running.stop();
            last.assert_conserved();
            let used = if mtu > MAX_NATIVE_MTU || mode == "skb" { "skb" } else { "copy" };
            assert!(
                last.report.ports.iter().all(|port| port.mode == used),
                "{case}: {}",
                last.json
            );
            let fallback = &last.json["fallback"];
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

/// A veth whose peer has more TX queues than it has RX queues also rejects native XDP.
#[test]
fn veth_with_too_few_queues_falls_back_to_skb_or_fails() {
    let chain = chain(Chain::builder().queues(2));
    let ethtool = chain.fwd().command("ethtool").args(["-L", "fwd0", "rx", "1"]).output().unwrap();
    assert!(ethtool.status.success(), "{}", stderr(&ethtool));
    let config = Config::new(&cross_connect(1, "mode = \"copy\""));
    let output = chain.fwd().command(XDPFWD).args(["--config", config.path()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("too few queues") && text.contains("`ethtool -L fwd0 rx N`"), "{text}");
    let (_, last) = Running::start(&chain, &cross_connect(1, "")).stop();
    assert_eq!(last.report.port("fwd0").unwrap().mode, "skb");
    assert_eq!(last.json["fallback"]["lacks"], "native XDP");
}

/// A VLAN device passes its tag beside the packet if the lower interface announces that it inserts
/// tags. A veth announces this but never does. So XDP does not see the tag, and forwarding loses
/// it. With `txvlan off` at the sender, the kernel writes the tag into the packet. `rxvlan` at the
/// forwarder has no effect on a veth.
///
/// A BPF program that tags sent packets the same way replaces the VLAN device, which kernels
/// without CONFIG_VLAN_8021Q lack.
#[test]
fn vlan_tag_survives_without_offload_at_the_sender() {
    for mode in ["copy", "skb"] {
        let chain = chain(Chain::builder());
        tag_sent_packets(gen0(&chain));
        let running = Running::start(&chain, &cross_connect(1, &format!("mode = \"{mode}\"")));
        let mut bytes = Bytes::new(3);
        let frames = [60, 61, 600, 1500].map(|len| bytes.frame(len, EXPERIMENTAL));
        let tagged = frames.clone().map(|frame| [&frame[..12], TAG, &frame[12..]].concat());
        let fwd0 = (chain.fwd(), "fwd0");
        let vlan =
            |side, direction, on: bool| ethtool(side, &[direction, if on { "on" } else { "off" }]);
        for (tx, rx, expected) in [
            (true, true, &frames),
            (true, false, &frames),
            (false, true, &tagged),
            (false, false, &tagged),
        ] {
            vlan(gen0(&chain), "txvlan", tx);
            vlan(fwd0, "rxvlan", rx);
            let arrived = pass(gen0(&chain), sink0(&chain), &frames);
            assert_same(&arrived, expected, &format!("mode {mode}, txvlan {tx}, rxvlan {rx}"));
        }
        let (_, last) = running.stop();
        last.assert_conserved();
    }
}

fn ethtool((namespace, interface): Side<'_>, features: &[&str]) {
    run(namespace.command("ethtool").args(["-K", interface]).args(features));
}

/// Tags all packets that an interface sends with VLAN 100, like a VLAN device.
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
