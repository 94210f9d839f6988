"""Usage: esp_answers_by_scapy.py KIND COUNT

Prints COUNT test cases for src/esp/against_scapy.rs, one JSON object per line.

KIND is "too_big" or "mss". A case has a random "frame", and the "answer" that xdpfwd must give:

too_big  the frame with the ICMP "too big" message about the frame; null if no message is allowed
mss      the frame with a lower MSS; null if the MSS must not change

Scapy builds the answers. The seed is fixed, so only ICMP timestamps differ between runs.
"""

import ipaddress
import json
import random
import sys

from scapy.layers.inet import (
    ICMP, IP, IPOption_NOP, IPOption_RR, IPOption_Timestamp, TCP, UDP)
from scapy.layers.inet6 import (
    ICMPv6DestUnreach, ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6ND_Redirect, ICMPv6PacketTooBig, IPv6,
    IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN, RouterAlert)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

rng = random.Random(20261122)
EXTENSIONS = (IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment)


def often(*choices):
    """Returns the first choice with a probability of 3/4, and otherwise one of the other choices."""
    return choices[0] if rng.random() < 0.75 else rng.choice(choices[1:])


def mac():
    unicast = "%02x" % (rng.randrange(256) & 0xfe) + "".join(":%02x" % rng.randrange(256) for _ in range(5))
    return unicast if rng.random() < 0.95 else rng.choice(["ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01", "01:00:5e:00:00:01"])


def v4():
    unicast = "%d.%d.%d.%d" % (rng.choice([1, 10, 126, 128, 192, 223]), rng.randrange(256), rng.randrange(256), 9)
    return unicast if rng.random() < 0.95 else rng.choice(
        ["0.0.0.0", "127.0.0.1", "224.0.0.5", "239.1.1.1", "240.0.0.1", "255.255.255.255"])


def v6():
    unicast = rng.choice(["2001:db8::%x", "fe80::%x", "fd00::1:%x"]) % rng.randrange(1, 65536)
    return unicast if rng.random() < 0.95 else rng.choice(["::", "::1", "ff02::1", "ff0e::1:2"])


def random_bytes(*limits):
    """Returns a random number of random bytes, with the arguments of `randrange`."""
    return rng.randbytes(rng.randrange(*limits))


def add_tags(frame):
    """Adds none, one or two random VLAN tags."""
    for kind in rng.choice([[], [], [Dot1Q], [Dot1Q, Dot1Q], [Dot1AD, Dot1Q]]):
        frame /= kind(vlan=rng.randrange(4096), prio=rng.randrange(8), id=rng.randrange(2))
    return frame


def ipv4_options():
    return rng.choice([[], [], [IPOption_NOP()], [IPOption_RR(pointer=4, routers=["0.0.0.0"] * rng.randrange(1, 9))],
                       [IPOption_Timestamp(pointer=9), IPOption_NOP()]])


def ipv4_header(**fields):
    flags, frag = often((2, 0), (0, 0), (1, 0), (1, rng.randrange(1, 1000)), (0, rng.randrange(1, 1000)))
    return IP(src=v4(), dst=v4(), tos=rng.randrange(256), id=rng.randrange(65536), ttl=rng.randrange(256),
              flags=flags, frag=frag, options=ipv4_options(), **fields)


def ipv6_headers():
    packet = IPv6(src=v6(), dst=v6(), tc=rng.randrange(256), fl=rng.randrange(1 << 20), hlim=rng.randrange(256))
    if rng.random() < 0.3:
        packet /= IPv6ExtHdrHopByHop(options=[RouterAlert()])
    for _ in range(rng.choice([0, 0, 1, 2])):
        packet /= IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * rng.randrange(60))])
    if rng.random() < 0.2:
        packet /= IPv6ExtHdrRouting(addresses=["2001:db8::99"], segleft=0)
    if rng.random() < 0.3:
        offset, more = rng.choice([(0, 0), (0, 1), (rng.randrange(1, 1000), 1), (rng.randrange(1, 1000), 0)])
        packet /= IPv6ExtHdrFragment(offset=offset, m=more, id=rng.randrange(1 << 32))
    return packet


def with_padding(frame):
    """Returns the bytes of a frame, in some cases followed by padding."""
    return bytes(frame) + (rng.randbytes(rng.randrange(20)) if rng.random() < 0.3 else b"")


def packet(version):
    """Returns a random IP packet with UDP, TCP or ICMP."""
    payload = random_bytes(*rng.choice([(0, 100), (500, 1500), (1200, 1600), (1200, 3400)]))
    upper_layer = rng.choice(["udp", "tcp", "icmp", "icmp"])
    if upper_layer == "udp":
        upper_layer = UDP(sport=rng.randrange(65536), dport=rng.randrange(65536)) / payload
    elif upper_layer == "tcp":
        upper_layer = TCP(sport=rng.randrange(65536), dport=rng.randrange(65536), flags="PA") / payload
    elif version == 4:
        upper_layer = ICMP(type=rng.choice([0, 3, 4, 5, 8, 9, 11, 12, 13, 30]), code=0) / payload
    else:
        upper_layer = rng.choice([
            ICMPv6EchoRequest(data=payload), ICMPv6ND_NS(tgt="fe80::1"), ICMPv6ND_Redirect() / payload,
            ICMPv6DestUnreach() / Raw(payload), ICMPv6PacketTooBig() / Raw(payload)])
    return (ipv4_header() if version == 4 else ipv6_headers()) / upper_layer


def layers(raw):
    """Splits a frame. Returns the link-layer headers as bytes, and the IP packet parsed by scapy."""
    layer, offset = Ether(raw), 0
    while isinstance(layer, (Ether, Dot1Q, Dot1AD)):
        offset += len(layer) - len(layer.payload)
        layer = layer.payload
    return raw[:offset], layer


def message(raw, mtu, source4, source6):
    """Returns the frame with the ICMP message about the frame `raw`; None if no message is allowed.

    `source4` and `source6` are the source addresses of messages; None for the packet's destination.
    """
    link, ip = layers(raw)
    if not isinstance(ip, (IP, IPv6)):
        return None
    destination_mac, source_mac = link[:6], link[6:12]
    source, destination = ipaddress.ip_address(ip.src), ipaddress.ip_address(ip.dst)
    if source_mac[0] & 1 or source.is_multicast or source.is_unspecified or source.is_loopback:
        return None
    l3 = len(link)
    if isinstance(ip, IP):
        if ip.frag or source.is_reserved:
            return None
        if destination_mac[0] & 1 or destination.is_multicast or destination.is_reserved \
                or destination.is_unspecified or destination.is_loopback:
            return None
        l4 = l3 + ip.ihl * 4
        if ip.proto == 1 and raw[l4] in (3, 4, 5, 11, 12):
            return None
        original = raw[l3:l3 + ip.len]
        answer = IP(src=source4 or ip.dst, dst=ip.src, tos=0xc0, id=0, ttl=64) \
            / ICMP(type="dest-unreach", code="fragmentation-needed", nexthopmtu=mtu) / Raw(original[:576 - 28])
    else:
        if not source6 and (destination.is_multicast or destination.is_unspecified or destination.is_loopback):
            return None
        layer, l4, protocol = ip.payload, l3 + 40, ip.nh
        while isinstance(layer, EXTENSIONS):
            if isinstance(layer, IPv6ExtHdrFragment) and layer.offset:
                return None
            l4 += len(layer) - len(layer.payload)
            protocol, layer = layer.nh, layer.payload
        if protocol == 58 and (raw[l4] < 128 or raw[l4] == 137):
            return None
        original = raw[l3:l3 + 40 + ip.plen]
        mtu = max(mtu, 1280)
        answer = IPv6(src=source6 or ip.dst, dst=ip.src, hlim=64) \
            / ICMPv6PacketTooBig(mtu=mtu) / Raw(original[:1280 - 48])
    if len(original) <= mtu:
        return None
    if destination_mac[0] & 1:
        destination_mac = bytes([destination_mac[0] & 0xfe | 2]) + destination_mac[1:]
    return source_mac + destination_mac + link[12:] + bytes(answer)


def too_big_case():
    frame = add_tags(Ether(src=mac(), dst=mac()))
    random_number = rng.random()
    raw = with_padding(frame / (ARP() if random_number < 0.03 else packet(4 if random_number < 0.5 else 6)))
    mtu = rng.choice([68, 576, 1200, 1280, 1400, 1438])
    source4, source6 = rng.choice([None, "192.0.2.254"]), rng.choice([None, "2001:db8:ffff::1"])
    answer = message(raw, mtu, source4, source6)
    kind = "none"
    if answer:
        _, ip = layers(answer)
        kind = "v4" if isinstance(ip, IP) else "v6"
        assert isinstance(ip.payload, (ICMP, ICMPv6PacketTooBig)), ip.show(dump=True)
    return {"frame": raw.hex(), "mtu": mtu, "v4": source4, "v6": source6, "kind": kind,
            "answer": answer.hex() if answer else None}


def tcp_options():
    options = [("MSS", rng.choice([0, 88, 536, 1220, 1299, 1300, 1301, 1440, 1460, 8960, 65535]))] \
        if rng.random() < 0.8 else []
    options += rng.sample([("NOP", None), ("NOP", None), ("WScale", 7), ("Timestamp", (rng.randrange(1 << 32), 2)),
                           ("SAckOK", b""), (254, rng.randbytes(3))], rng.randrange(5))
    rng.shuffle(options)
    if rng.random() < 0.1:
        options.append(("MSS", 9000))
    return options


def mss_case():
    frame = add_tags(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02"))
    segment = TCP(sport=rng.randrange(65536), dport=rng.randrange(65536), seq=rng.randrange(1 << 32),
                  flags=often("S", "SA", "SEC", "A", "PA", "F"), options=tcp_options()) / random_bytes(40)
    max_mss = rng.choice([88, 1220, 1300, 1460])
    version = rng.choice([4, 6])
    ip = (IP(src="192.0.2.1", dst="198.51.100.2", options=ipv4_options()) if version == 4
            else IPv6(src="2001:db8::1", dst="2001:db8::2"))
    if version == 6 and rng.random() < 0.4:
        ip /= IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * rng.randrange(20))])
    raw = bytes(frame / ip / segment)
    expected = None
    if segment.flags.S:
        lowered = segment.copy()
        lowered.options = [(kind, min(value, max_mss) if kind == "MSS" else value) for kind, value in segment.options]
        if lowered.options != segment.options:
            expected = bytes(frame / ip / lowered)
    padding = rng.randbytes(rng.randrange(20)) if rng.random() < 0.3 else b""
    return {"frame": (raw + padding).hex(), "max_mss": max_mss, "kind": "v%d" % version,
            "answer": (expected + padding).hex() if expected else None}


def main():
    kind, count = sys.argv[1], int(sys.argv[2])
    make_case = {"too_big": too_big_case, "mss": mss_case}[kind]
    for _ in range(count):
        print(json.dumps(make_case()))


main()
