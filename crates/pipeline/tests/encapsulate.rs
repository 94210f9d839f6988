//! Headers that a stage adds before a packet, or removes.

#![cfg(feature = "testing")]

use xdpfwd_pipeline::testing::{Disposition, TestBench};
use xdpfwd_pipeline::{Cx, PacketMut, Reason, Stage, View};
use xdpfwd_wire::{Header, HeaderStack, Headers, MacAddr, ethernet, gtpu, ipv4, ipv6, udp};

/// Length of the tunnel's headers in bytes: Ethernet, IPv4, UDP, GTP-U.
const TUNNEL_LEN: usize = 14 + 20 + 8 + 8;

/// Tunnel endpoint identifier in GTP-U.
const TEID: u32 = 7;

fn tunnel() -> [Header<'static>; 4] {
    let ethernet = ethernet::Repr::new(MacAddr::default(), MacAddr([2; 6]));
    let ip = ipv4::Repr { source: [172, 16, 0, 1].into(), ..ipv4::Repr::default() };
    gtpu::tunnel(ethernet, ip, TEID, &[]) // no extension headers
}

/// Returns an IPv6 packet of 53 bytes, from port 53 to port 4000.
fn user_packet() -> Vec<u8> {
    let udp = udp::Repr::new(53, 4000);
    HeaderStack(&[ipv6::Repr::default().into(), udp.into()]).packet(b"hello").unwrap()
}

/// Returns [`user_packet`] in an Ethernet frame with 9 bytes of padding.
fn user_frame() -> Vec<u8> {
    let ethernet = Header::from(ethernet::Repr::default());
    let ip = ipv6::Repr::default();
    let mut frame = HeaderStack(&[ethernet, ip.into()]).packet(b"").unwrap();
    // Keep only the Ethernet header. `packet` has set its EtherType to IPv6.
    frame.truncate(14);
    frame.extend(user_packet());
    frame.extend([0xee; 9]);
    frame
}

struct ForEach<F>(F);

impl<F: FnMut(&mut PacketMut<'_>) + 'static> Stage for ForEach<F> {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        view.packets().for_each(|mut packet| (self.0)(&mut packet));
    }
}

/// Replaces the headers before the IP packet by the headers of [`tunnel`].
fn replace_outer_headers(packet: &mut PacketMut<'_>) {
    let headers = packet.meta.headers;
    if let Err(reason) = packet.cut_to_ip(headers).and_then(|()| packet.encapsulate(&tunnel())) {
        packet.drop(reason);
    }
}

/// Asserts that `encapsulate` fails with this reason, and changes neither frame nor parsed headers.
fn assert_refused(packet: &mut PacketMut<'_>, headers: &[Header<'_>], reason: Reason) {
    let (bytes, headroom) = (packet.frame.to_vec(), packet.frame.headroom());
    let parsed = packet.meta.headers;
    assert_eq!(packet.encapsulate(headers), Err(reason));
    assert_eq!(packet.frame[..], bytes);
    assert_eq!(packet.frame.headroom(), headroom);
    assert_eq!(packet.meta.headers, parsed);
}

#[test]
fn encapsulate_adds_valid_headers_and_parses_them() {
    let mut bench = TestBench::new(ForEach(|packet: &mut PacketMut<'_>| {
        replace_outer_headers(packet);
        let headers = packet.meta.headers;
        assert_eq!(headers, Headers::parse(packet.frame));
        assert_eq!((headers.l3_offset, headers.l4_offset), (14, 34));
        assert_eq!(headers.destination_port, gtpu::PORT);
    }));
    let sent = bench.send("lan", &user_frame()).expect_sent("wan");
    assert_eq!(sent, HeaderStack(&tunnel()).packet(&user_packet()).unwrap());

    let outer = ipv4::Packet::new_checked(&sent[14..]).unwrap();
    assert!(outer.verify_checksum());
    let datagram = udp::Packet::new_checked(outer.payload()).unwrap();
    let message = gtpu::Packet::new_checked(datagram.payload()).unwrap();
    assert_eq!((datagram.checksum(), message.teid()), (0, TEID));
    assert_eq!(message.payload(), user_packet());
}

#[test]
fn encapsulate_without_headroom_returns_no_room() {
    let mut bench = TestBench::new(ForEach(|packet: &mut PacketMut<'_>| {
        // Leave one byte too few for the headers.
        let excess = packet.frame.headroom() - (TUNNEL_LEN - 1);
        packet.frame.prepend(excess).unwrap().fill(0xee);
        assert_refused(packet, &tunnel(), Reason::NO_ROOM);

        packet.frame.trim_front(1);
        assert_eq!(packet.encapsulate(&tunnel()), Ok(()));
        assert_eq!(packet.frame.headroom(), 0);
        assert_refused(packet, &tunnel()[..1], Reason::NO_ROOM);
        assert_eq!(packet.encapsulate(&[]), Ok(()));
        // Drop the packet, as a stage does after `NO_ROOM`.
        packet.drop(Reason::NO_ROOM);
    }));
    let disposition = bench.send("lan", &user_frame());
    assert_eq!(disposition, Disposition::dropped(Reason::NO_ROOM));
}

#[test]
fn encapsulate_with_headers_in_invalid_order_returns_malformed() {
    let mut bench = TestBench::new(ForEach(|packet: &mut PacketMut<'_>| {
        let [ethernet, ip, udp, gtpu] = tunnel();
        assert_refused(packet, &[ethernet, udp, gtpu], Reason::MALFORMED);
        assert_refused(packet, &[ethernet, ip, gtpu], Reason::MALFORMED);
        assert_refused(packet, &[udp], Reason::MALFORMED);
    }));
    assert_eq!(bench.send("lan", &user_frame()), Disposition::sent("wan", user_frame()));
}

#[test]
fn cut_to_ip_of_arp_packet_returns_not_ip() {
    let arp = [[0xff; 12].as_slice(), &[0x08, 0x06], &[0; 46]].concat();
    let mut bench = TestBench::new(ForEach(|packet: &mut PacketMut<'_>| {
        assert_eq!(packet.cut_to_ip(packet.meta.headers), Err(Reason::NOT_IP));
    }));
    assert_eq!(
        bench.send("lan", &arp),
        Disposition::sent("wan", arp),
        "`cut_to_ip` changed the frame"
    );
}

#[cfg(feature = "count-allocations")]
#[test]
fn encapsulate_does_not_allocate() {
    let mut bench = TestBench::new(ForEach(replace_outer_headers));
    assert_eq!(bench.assert_no_allocation("lan", vec![user_frame(); 100]), 100);
}
