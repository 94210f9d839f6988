"""Prints random packets and the fields that scapy reads in them, one JSON object per line, for
wire_against_scapy.rs.

scapy builds each packet and parses its bytes; the script prints the parsed fields. The seed is fixed:
each run prints the same packets.
"""

import json
import random
import sys

from scapy.layers.inet import (
    ICMP, IP, IPOption_NOP, IPOption_RR, IPOption_Timestamp, TCP, UDP, in4_chksum)
from scapy.layers.inet6 import (
    ICMPv6EchoRequest, ICMPv6ND_NS, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting, PadN, RouterAlert, in6_chksum)
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import NoPayload, Padding, Raw, bind_layers
from scapy.utils import checksum

rng = random.Random(20240229)
V6_EXTENSIONS = (IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, AH)

# Types of outer VLAN tags that switches used before 802.1ad; scapy does not know them.
OLD_TAG_TYPES = (0x9100, 0x9200, 0x9300)
for tag_type in OLD_TAG_TYPES:
    bind_layers(Ether, Dot1Q, type=tag_type)
    bind_layers(Dot1Q, Dot1Q, type=tag_type)
    bind_layers(Dot1AD, Dot1Q, type=tag_type)

# Without this, scapy parses only encapsulated IP packets after AH, but neither TCP nor UDP.
bind_layers(AH, TCP, nh=6)
bind_layers(AH, UDP, nh=17)

ICMPV6 = 58
UPPER_NUMBERS = {TCP: 6, UDP: 17, ESP: 50, Raw: 253}


def mac():
    return ":".join("%02x" % rng.randrange(256) for _ in range(6))


def v4():
    return ".".join(str(rng.randrange(256)) for _ in range(4))


def v6():
    return ":".join("%x" % rng.randrange(65536) for _ in range(8))


def data(limit=40):
    return bytes(rng.randrange(256) for _ in range(rng.randrange(limit)))


def port():
    return rng.randrange(65536)


def upper(version):
    kind = rng.choice(["udp", "udp", "tcp", "tcp", "icmp", "esp", "raw"])
    if kind == "udp":
        checksum_field = {"chksum": 0} if version == 4 and rng.random() < 0.2 else {}
        return UDP(sport=port(), dport=port(), **checksum_field) / data()
    if kind == "tcp":
        options = rng.sample([("MSS", 1460), ("NOP", None), ("WScale", 7), ("Timestamp", (1, 2))],
                             rng.randrange(4))
        return TCP(sport=port(), dport=port(), seq=rng.randrange(1 << 32), ack=rng.randrange(1 << 32),
                   flags=rng.randrange(256), options=options) / data()
    if kind == "icmp":
        if version == 4:
            return ICMP(type=rng.choice([0, 3, 8, 11]), code=rng.randrange(4), id=port(), seq=port()) / data()
        return rng.choice([ICMPv6EchoRequest(id=port(), seq=port(), data=data()), ICMPv6ND_NS(tgt=v6())])
    if kind == "esp":
        return ESP(spi=rng.randrange(1 << 32), seq=rng.randrange(1 << 32), data=b"x" + data())
    return Raw(data())


def packet4():
    options = rng.sample([IPOption_NOP(), IPOption_RR(pointer=4, routers=["0.0.0.0"] * rng.randrange(1, 4)),
                          IPOption_Timestamp(pointer=9)], rng.choice([0, 0, 1, 2]))
    flags, frag = rng.choice([(0, 0), (0, 0), (2, 0), (1, 0), (1, rng.randrange(1, 1000)), (0, rng.randrange(1, 1000))])
    upper_layer = upper(4)
    # Raw data has protocol 253 (experimentation), so that no parser mistakes it for a header.
    proto = {"proto": 253} if isinstance(upper_layer, Raw) else {}
    return IP(src=v4(), dst=v4(), tos=rng.randrange(256), id=port(), ttl=rng.randrange(256), flags=flags,
              frag=frag, options=options, **proto) / upper_layer


def packet6():
    packet = IPv6(src=v6(), dst=v6(), tc=rng.randrange(256), fl=rng.randrange(1 << 20), hlim=rng.randrange(256))
    if rng.random() < 0.3:
        packet /= IPv6ExtHdrHopByHop(options=[RouterAlert()])
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        packet /= IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * rng.randrange(12))])
    if rng.random() < 0.3:
        # With no segments left, the pseudo header has the destination of the IPv6 header, as in
        # xdpfwd_wire::checksum.
        packet /= IPv6ExtHdrRouting(addresses=[v6() for _ in range(rng.randrange(1, 3))], segleft=0)
    if rng.random() < 0.3:
        offset, more = rng.choice([(0, 0), (0, 1), (rng.randrange(1, 1000), 1), (rng.randrange(1, 1000), 0)])
        packet /= IPv6ExtHdrFragment(offset=offset, m=more, id=rng.randrange(1 << 32))
    upper_layer = upper(6)
    if rng.random() < 0.2:
        icv = b"\0" * rng.choice([12, 16, 20, 32])
        # scapy does not compute the fields nh and payloadlen of AH.
        packet /= AH(nh=UPPER_NUMBERS.get(type(upper_layer), ICMPV6), payloadlen=1 + len(icv) // 4, spi=1, seq=2, icv=icv)
    packet /= upper_layer
    if isinstance(upper_layer, Raw):
        # No next header (59), or experimentation (253): no parser mistakes the data for a header.
        packet.lastlayer().underlayer.nh = rng.choice([59, 253])
    return packet


def frame():
    packet = Ether(src=mac(), dst=mac())
    tags = rng.choice(["", "", "q", "dq", "qq", "o", "oq", "qo"])
    for tag in tags:
        kind = Dot1AD if tag == "d" else Dot1Q
        if tag == "o":
            packet.lastlayer().type = rng.choice(OLD_TAG_TYPES)
        packet /= kind(vlan=rng.randrange(4096), prio=rng.randrange(8), id=rng.randrange(2))
    roll = rng.random()
    if roll < 0.05:
        return packet / ARP(psrc=v4(), pdst=v4())
    return packet / (packet4() if roll < 0.5 else packet6())


def header_len(layer):
    """Returns the length of one layer without its payload, in bytes."""
    return len(layer) - len(layer.payload)


def expected_fields(raw):
    packet = Ether(raw)
    layer, at, vlans = packet, 0, []
    while isinstance(layer, (Ether, Dot1Q, Dot1AD)):
        if not isinstance(layer, Ether):
            vlans.append(layer.vlan)
        ethertype = layer.type
        at += header_len(layer)
        layer = layer.payload
    expected = {"frame": raw.hex(), "vlans": vlans, "ethertype": ethertype, "l3_offset": at}
    if not isinstance(layer, (IP, IPv6)):
        return {**expected, "version": 0}

    ip = layer
    expected.update(src=ip.src, dst=ip.dst)
    if isinstance(ip, IP):
        # scapy computes a missing checksum when it builds the packet.
        rebuilt = ip.copy()
        del rebuilt.chksum
        expected.update(version=4, protocol=ip.proto, l3_end=at + ip.len, l4_offset=at + ip.ihl * 4, ttl=ip.ttl,
                    header_checksum=ip.chksum, header_checksum_computed=IP(bytes(rebuilt)).chksum)
        offset, more = ip.frag, bool(ip.flags.MF)
        layer = ip.payload
    else:
        at += header_len(ip)
        offset, more, protocol = 0, False, ip.nh
        layer = ip.payload
        while isinstance(layer, V6_EXTENSIONS):
            if isinstance(layer, IPv6ExtHdrFragment):
                offset, more = layer.offset, bool(layer.m)
            protocol = layer.nh
            at += header_len(layer)
            layer = layer.payload
        expected.update(version=6, protocol=protocol, l3_end=expected["l3_offset"] + 40 + ip.plen, l4_offset=at)
    expected["fragment"] = "later" if offset else "first" if more else "whole"
    if isinstance(layer, (UDP, TCP)):
        expected.update(sport=layer.sport, dport=layer.dport)
        if isinstance(layer, TCP):
            expected.update(flags=int(layer.flags) & 0xff, seq=layer.seq, header_len=layer.dataofs * 4)
    if expected["fragment"] == "whole" and not isinstance(layer, (NoPayload, Padding)):
        l4_bytes = raw[expected["l4_offset"]:expected["l3_end"]]
        if isinstance(layer, ICMP):
            expected.update(type=layer.type, code=layer.code, sum=checksum(l4_bytes))
        elif isinstance(layer, (UDP, TCP)) or protocol_is_icmp6(expected):
            if isinstance(ip, IP):
                expected["sum"] = in4_chksum(ip.proto, ip, l4_bytes)
            else:
                expected["sum"] = in6_chksum(expected["protocol"], IPv6(src=ip.src, dst=ip.dst), l4_bytes)
            if protocol_is_icmp6(expected):
                expected.update(type=l4_bytes[0], code=l4_bytes[1])
    return expected


def protocol_is_icmp6(expected):
    return expected["version"] == 6 and expected["protocol"] == ICMPV6


def main():
    for _ in range(int(sys.argv[1])):
        raw = bytes(frame())
        roll = rng.random()
        if roll < 0.3:
            raw = raw.ljust(60, b"\0")
        elif roll < 0.4:
            raw += data()
        expected = expected_fields(raw)
        if "sum" in expected and rng.random() < 0.2:
            # Invert a bit in one of the last two bytes, which contain no length field.
            at = expected["l3_end"] - 1 - rng.randrange(2)
            expected = expected_fields(raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1:])
        print(json.dumps(expected))


main()
