//! Checks that no packet causes a log line; otherwise senders could fill the disk. A `tracing`
//! subscriber counts lines of all levels.

#[path = "support/esp.rs"]
mod esp;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use esp::EspFiles as _;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use xdpfwd_pipeline::{Cx, PortId, Reason, Stage, Verdict, View};
use xdpfwd_stages::{MacSwap, SetMac, Ttl};
use xdpfwd_testkit::wires::{cross_connect_on, packet, umem_config};
use xdpfwd_wire::MacAddr;
use xdpfwd_xsk::fake_kernel::FakeKernelConfig;
use xdpfwd_xsk::{Frame, Umem, UmemConfig};

#[derive(Clone, Default)]
struct LineCounter(Arc<AtomicU64>);

impl Subscriber for LineCounter {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1 + self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// A stage that causes seven different failures, with 7 of every 16 packets.
#[derive(Default)]
struct FaultyStage {
    /// Frames of another UMEM, which replace received frames.
    foreign: Vec<Frame>,
    /// Frames that the stage never returns.
    held: Vec<Frame>,
    count: usize,
}

impl Stage for FaultyStage {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        for index in 0..view.len() {
            self.count += 1;
            let Some(mut packet) = view.packet(index) else { continue };
            match self.count % 16 {
                0 => packet.frame.truncate(13),
                1 => packet.frame.trim_front(usize::MAX),
                2 => assert!(packet.frame.prepend(5000).is_err()),
                3 => packet.send_to(PortId(200)),
                4 => packet.drop(Reason::NO_ROOM),
                5 => {
                    if let Some(foreign) = self.foreign.pop() {
                        drop(std::mem::replace(packet.frame, foreign)); // leaks the received frame
                    }
                }
                6 => match view.hold(index, cx) {
                    Some(frame) => self.held.push(frame),
                    None => view.set_verdict(index, Verdict::Drop(Reason::HOLD_QUOTA)),
                },
                _ => {}
            }
        }
    }
}

#[test]
fn packets_cause_no_log_line() {
    let counter = LineCounter::default();
    let events = || counter.0.load(Ordering::Relaxed);
    let (_other_umem, mut other_pool) = Umem::new(&umem_config()).unwrap();
    let foreign = std::iter::from_fn(|| other_pool.alloc()).take(200).map(|mut frame| {
        frame.append(60).unwrap().fill(1);
        frame
    });
    let faulty = |foreign| FaultyStage { foreign, ..FaultyStage::default() };
    let set_mac = || SetMac { source: Some(MacAddr([2, 0, 0, 0, 0, 1])), destination: None };
    let lan_to_wan = (faulty(foreign.collect()), Ttl::default(), MacSwap, set_mac());
    let wan_to_lan = (faulty(vec![]), Ttl::default(), MacSwap, set_mac());

    // Enough frames to fill an egress queue, even if many are held or lost.
    let umem = UmemConfig { frames: 4096, ..umem_config() };
    tracing::subscriber::with_default(counter.clone(), || {
        let (mut worker, wires) =
            cross_connect_on(&umem, lan_to_wan, wan_to_lan, FakeKernelConfig::default());
        let (mut delivered, mut invalid_sent) = (0u64, 0);
        let mut lost = 0;
        let before = events();
        for round in 0..2000u64 {
            // For 50 rounds each, the kernel sends frames, sends none, returns errors, or completes
            // no transmission.
            let errors = [16, 11, 105, 100]; // EBUSY, EAGAIN, ENOBUFS, ENETDOWN
            wires.wan.set(match round / 50 % 4 {
                0 => FakeKernelConfig::default(),
                1 => FakeKernelConfig { budget: 0, ..FakeKernelConfig::default() },
                2 => FakeKernelConfig { errors: errors.into(), ..FakeKernelConfig::default() },
                _ => FakeKernelConfig { completion_delay: None, ..FakeKernelConfig::default() },
            });
            for n in 0..40 {
                delivered += 1;
                let frame = if n % 2 == 0 { malformed(delivered / 2) } else { packet(n) };
                lost += u64::from(wires.lan.deliver(&frame).is_err());
                lost += u64::from(wires.wan.deliver(&packet(n)).is_err());
            }
            lost += u64::from(wires.lan.deliver(&[0; 3000]).is_err());
            // Invalid descriptors: outside of the UMEM, across the end of a chunk, and too long.
            for (address, len) in [(u64::MAX, 60), (2048 + 2000, 60), (0, u32::MAX)] {
                invalid_sent += u64::from(wires.lan.deliver_descriptor(address, len));
            }
            invalid_sent += u64::from(wires.lan.complete_address(2048 * 9));
            worker.poll_once();
        }
        let report = worker.report();
        assert_eq!(events(), before, "{report:?}");

        for reason in [
            Reason::EGRESS_FULL,
            Reason::MALFORMED,
            Reason::TTL_EXPIRED,
            Reason::RUNT,
            Reason::NO_SUCH_PORT,
            Reason::NO_ROOM,
            Reason::HOLD_QUOTA,
            Reason::FOREIGN_FRAME,
        ] {
            assert!(report.drops[reason] > 0, "{}: {report:?}", reason.name());
        }
        let counters = report.queues.iter().map(|queue| queue.counters);
        let [invalid, retries, dropped] =
            counters.fold([0; 3], |[invalid, retries, dropped], port| {
                [
                    invalid + port.invalid_descriptors,
                    retries + port.tx_retries,
                    dropped + port.tx_dropped,
                ]
            });
        assert!(
            invalid > 0 && invalid_sent > 0 && retries > 0 && dropped > 0 && lost > 0,
            "{report:?}"
        );
        assert!(report.frames.leaked > 0, "{report:?}");

        // Check that the subscriber counts log lines at all.
        drop(worker);
        drop(wires);
        tracing::trace!("one");
        assert!(events() > before);
    });
}

#[test]
fn valid_and_invalid_packets_in_esp_stages_cause_no_log_line() {
    let folder = esp::Folder::new();
    let key = folder.key("key", esp::KEY_128);
    let plans = [
        (
            "esp-seal",
            "source = '192.0.2.1', destination = '192.0.2.2', soft_packets = 5, hard_packets = 700",
            ", icmp_rate = 10",
        ),
        ("esp-open", "destination = '192.0.2.2', soft_bytes = 5, hard_bytes = 40000", ""),
    ]
    .map(|(kind, sa, other_keys)| {
        let state = folder.state(&format!("{kind}.state"));
        let sa = format!("spi = 4096, transform = 'aes-128-gcm', key_file = '{key}', {sa}");
        esp::plan(
            kind,
            &format!("{{ lab = true, state_file = '{state}', sa = [{{ {sa} }}]{other_keys} }}"),
        )
    });
    let counter = LineCounter::default();
    tracing::subscriber::with_default(counter.clone(), || {
        let [mut seal, mut open] =
            plans.each_ref().map(|plan| esp::EspBench::new(vec![esp::build(plan)]));
        let (mut first, before) = (None, counter.0.load(Ordering::Relaxed));
        for n in 0..600_u64 {
            let frames = [
                malformed(n),
                esp::udp_v4(n as usize),
                esp::ipv4(17, esp::SOURCE_V4, esp::DESTINATION_V4, 0x4000, &[0; 1480]),
            ];
            let sealed = seal.send(&frames).0;
            open.send(&frames);
            for mut frame in sealed {
                // Replay the first packet, then send this one forged.
                open.send(&[first.get_or_insert(frame.clone()).clone()]);
                let byte = frame.len() - 1 - (n as usize) % (frame.len() - 14);
                frame[byte] ^= 1;
                open.send(&[frame]);
            }
        }
        assert_eq!(counter.0.load(Ordering::Relaxed), before);
        let drops = [seal.drops(), open.drops()].concat();
        for reason in
            ["malformed", "no_sa", "too_big", "sa_limit", "bad_tag", "replay", "unprotected"]
        {
            assert!(
                drops.iter().any(|(dropped_as, _)| *dropped_as == reason),
                "{reason}: {drops:?}"
            );
        }
        // `maintain`, which is not called on the data path, warns only once of a soft limit.
        plans.iter().for_each(esp::maintain);
        let after = counter.0.load(Ordering::Relaxed);
        assert!(after > before, "`maintain` logged no warning of a soft limit");
        plans.iter().for_each(esp::maintain);
        assert_eq!(counter.0.load(Ordering::Relaxed), after, "a warning was logged twice");
    });
}

/// Returns a frame of at least 14 bytes, mostly malformed. `n` determines length and headers.
fn malformed(n: u64) -> Vec<u8> {
    let mut packet = vec![(n % 251) as u8; 14 + (n % 97) as usize];
    packet[..12].copy_from_slice(b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01");
    let headers: &[u8] = match n % 6 {
        0 => b"\x08\0\x45\0\0\x14\0\0\0\0\x01\x11\0\0\0\0\0\0\0\0\0\0",
        1 => b"\x08\0\x45\0\0\x14\0\0\0\0\x40\x11\0\0\0\0\0\0\0\0\0\0",
        2 => b"\x86\xdd\x60\0\0\0\0\0\x3b\x01",
        3 => b"\x81\0\0\x64\x08\0\x45",
        4 => b"\x88\xa8\0\x64\x81\0\0\x64\x81\0\0\x64\x08\0",
        _ => b"\x08\0\xff\xff",
    };
    for (byte, header_byte) in packet[12..].iter_mut().zip(headers) {
        *byte = *header_byte;
    }
    packet
}
