"""Reference for esp-seal and esp-open, by scapy and `cryptography`. JSON, one object per line.

`cases`    SAs and packets: plain frames, sealed by scapy, and as expected after decapsulation.
`check`    reads {"case", "index", "sealed"}: encapsulated frames; fails at the first mismatch.
`extras`   unusual frames for esp-open, each with the expected result.
`mss`      SYNs, and the expected result of `tcp_mss`.
`icmp`     reads {"plain", "answer", "source"}: "too big" messages; prints the MTU of each.
`self`     self-test: scapy seals and opens, and `check` must detect errors.

Scapy rebuilds outer headers, which are compared byte for byte. The seed is fixed.
"""
import json
import random
import struct
import sys

from scapy.layers import ipsec
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting, PadN, in6_chksum)
from scapy.layers.ipsec import CRYPT_ALGOS, CryptAlgo, ESP, SecurityAssociation
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Raw
from scapy.utils import checksum
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import aead

rng = random.Random(4303)

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
OUTER = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8:1::1", "2001:db8:2::2")}
INNER = {4: ("10.1.0.7", "10.2.0.9"), 6: ("fd00:1::7", "fd00:2::9")}
HOP_BY_HOP, IN_IP, UDP_, ROUTING, FRAGMENT, ESP_, NONE, DEST_OPTS = 0, 4, 17, 43, 44, 50, 59, 60


class Gmac(CryptAlgo):
    """RFC 4543: nothing is encrypted; SPI, sequence number (64 bits of it), IV and text are authenticated."""

    def aad(self, esp, text, esn_en, esn):
        number = struct.pack("!LL", esn, esp.seq) if esn_en else struct.pack("!L", esp.seq)
        return struct.pack("!L", esp.spi) + number + text

    def encrypt(self, sa, esp, key, icv_size=None, esn_en=False, esn=0):
        text = esp.iv + esp.data_for_encryption()
        tag = aead.AESGCM(key).encrypt(sa.crypt_salt + esp.iv, b"", self.aad(esp, text, esn_en, esn))
        return ESP(spi=esp.spi, seq=esp.seq, data=text + tag)

    def decrypt(self, sa, esp, key, icv_size=None, esn_en=False, esn=0):
        text, tag = esp.data[:-16], esp.data[-16:]
        try:
            aead.AESGCM(key).decrypt(sa.crypt_salt + text[:8], tag, self.aad(esp, text, esn_en, esn))
        except InvalidTag as error:
            raise ipsec.IPSecIntegrityError(error)
        pad = text[-2]
        return ipsec._ESPPlain(spi=esp.spi, seq=esp.seq, iv=text[:8], data=text[8:len(text) - 2 - pad],
                               padding=text[len(text) - 2 - pad:-2], padlen=pad, nh=text[-1], icv=tag)


CRYPT_ALGOS["GMAC"] = Gmac("GMAC", cipher=aead.AESGCM, mode=None, block_size=1, iv_size=8, key_size=(16, 32),
                           icv_size=16, salt_size=4)
TRANSFORMS = {"aes-128-gcm": ("AES-GCM", 16), "aes-256-gcm": ("AES-GCM", 32),
              "chacha20-poly1305": ("CHACHA20-POLY1305", 32),
              "null-aes-128-gmac": ("GMAC", 16), "null-aes-256-gmac": ("GMAC", 32)}


class Case:
    """An SA between scapy and xdpfwd, in either direction."""

    def __init__(self, name, transform="aes-128-gcm", mode="tunnel", outer=4, udp=None, esn=True, first=1, dscp="copy",
                 ttl=64, df="copy", spi=None, selector=None):
        self.name, self.transform, self.mode, self.outer, self.udp = name, transform, mode, outer, udp
        self.esn, self.first, self.dscp, self.ttl, self.df = esn, first, dscp, ttl, df
        self.selector = selector
        algorithm, length = TRANSFORMS[transform]
        self.key = bytes(rng.randrange(256) for _ in range(length + 4))
        self.spi = spi or rng.randrange(256, 1 << 32)
        self.sa = SecurityAssociation(ESP, spi=self.spi, crypt_algo=algorithm, crypt_key=self.key, esn_en=esn)
        self.frames = []

    def tables(self):
        """Returns the SA's TOML tables for esp-seal and esp-open, without the key file."""
        quoted = json.dumps
        both = f"spi = {self.spi}, transform = {quoted(self.transform)}, mode = {quoted(self.mode)}, esn = {quoted(self.esn)}"
        seal, open_ = both, both
        if self.mode == "tunnel":
            source, destination = OUTER[self.outer]
            seal += f", source = {quoted(source)}, destination = {quoted(destination)}"
            seal += f", dscp = {quoted(self.dscp)}, ttl = {self.ttl}, df = {quoted(self.df)}"
            open_ += f", destination = {quoted(destination)}"
        if self.udp:
            seal += f", udp_ports = {quoted(list(self.udp))}"
            open_ += f", udp_port = {self.udp[1]}"
        return seal, open_

    def esp(self, number, payload, next_header, pad=None, padlen=None, iv=None):
        """Returns scapy's ESP packet, from SPI to ICV."""
        iv = iv or bytes(rng.randrange(256) for _ in range(8))
        plain = ipsec._ESPPlain(spi=self.spi, seq=number & 0xffffffff, iv=iv)
        plain.data, plain.nh = Raw(payload), next_header
        plain = self.sa.crypt_algo.pad(plain)
        if pad is not None:
            plain.padding, plain.padlen = pad, len(pad)
        if padlen is not None:
            plain.padlen = padlen
        return bytes(self.sa.crypt_algo.encrypt(self.sa, plain, self.sa.crypt_key, esn_en=self.esn, esn=number >> 32))

    def open_esp(self, number, esp):
        """Decrypts an ESP packet; fails if this key did not seal it."""
        spi, low = struct.unpack("!LL", esp[:8])
        assert (spi, low) == (self.spi, number & 0xffffffff), f"{self.name}: SPI {spi}, number {low}, expected SPI {self.spi}, number {number}"
        assert len(esp) % 4 == 0, f"{self.name}: {len(esp)} bytes of ESP"
        self.iv = esp[8:16]
        plain = self.sa.crypt_algo.decrypt(self.sa, ESP(esp), self.sa.crypt_key, esn_en=self.esn, esn=number >> 32)
        # Compare padding, too: sealing with this IV has only one result.
        expected = self.esp(number, bytes(plain.data), plain.nh, iv=self.iv)
        assert esp == expected, f"{self.name}: {esp.hex()}, expected {expected.hex()}"
        return bytes(plain.data), plain.nh

    def header(self, inner, protocol, length, ident=0, ecn=None):
        """Returns scapy's outer header for an inner packet and this many following bytes."""
        source, destination = OUTER[self.outer]
        traffic_class, dont_fragment = of_inner(inner)
        dscp = traffic_class >> 2 if self.dscp == "copy" else self.dscp
        tos = dscp << 2 | (traffic_class & 3 if ecn is None else ecn)
        if self.outer == 6:
            return bytes(IPv6(src=source, dst=destination, tc=tos, hlim=self.ttl, nh=protocol, plen=length))
        flags = {"copy": dont_fragment, "set": True, "clear": False}[self.df]
        header = IP(src=source, dst=destination, tos=tos, ttl=self.ttl, proto=protocol, len=20 + length, id=ident,
                    flags="DF" if flags else 0)
        return bytes(header)

    def udp_header(self, ip, esp):
        """Returns the UDP header of the SA, if any: checksum 0 over IPv4, computed over IPv6."""
        if not self.udp:
            return b""
        header = struct.pack("!HHHH", *self.udp, 8 + len(esp), 0)
        if version(ip) == 6:
            sum_ = in6_chksum(UDP_, IPv6(ip[:40]), header + esp) or 0xffff
            header = header[:6] + struct.pack("!H", sum_)
        return header

    def seal(self, packet, number, ecn=None, destination_options_inside=False, tfc=b"", ident=0):
        """Encapsulates an IP packet with scapy."""
        if self.mode == "tunnel":
            esp = self.esp(number, packet + tfc, 4 if version(packet) == 4 else 41)
            protocol, length = (UDP_ if self.udp else ESP_), len(esp) + (8 if self.udp else 0)
            header = self.header(packet, protocol, length, ident=ident, ecn=ecn)
        else:
            at, field = split(packet, destination_options_inside)
            esp = self.esp(number, packet[at:] + tfc, packet[field])
            header = with_next_header(packet[:at], field, UDP_ if self.udp else ESP_, len(esp) + (8 if self.udp else 0))
        return header + self.udp_header(header, esp) + esp

    def unseal(self, packet, inner, number):
        """Checks and decapsulates an encapsulated packet; fails on any mismatch."""
        if self.mode == "tunnel":
            at = 20 if version(packet) == 4 else 40
            ident = struct.unpack("!H", packet[4:6])[0]
            expected = self.header(inner, UDP_ if self.udp else ESP_, len(packet) - at, ident=ident)
            if self.outer == 6:
                # RFC 6437: the sender chooses the flow label.
                packet = packet[:1] + bytes([packet[1] & 0xf0]) + b"\0\0" + packet[4:]
            assert packet[:at] == expected, f"{self.name}: outer header {packet[:at].hex()}, expected {expected.hex()} for {inner.hex()}"
        else:
            at, field = end_of_headers(packet, {ESP_, UDP_} if self.udp else {ESP_})
            assert packet[field] == (UDP_ if self.udp else ESP_)
        header, rest = packet[:at], packet[at:]
        if self.udp:
            udp, rest = rest[:8], rest[8:]
            assert udp == self.udp_header(header, rest), f"{self.name}: unexpected UDP header {udp.hex()} before {rest.hex()}"
        data, next_header = self.open_esp(number, rest)
        if self.mode == "tunnel":
            assert next_header == (4 if version(inner) == 4 else 41), f"{self.name}: next header {next_header}"
            opened = data
        else:
            # Without a routing header, destination options may precede or follow ESP (RFC 4303,
            # 3.1.1).
            first, last = (split(inner, inside)[0] for inside in (True, False))
            assert first <= at <= last, f"{self.name}: ESP at {at}, not from {first} to {last}: {packet.hex()}"
            assert version(header) == 6 or checksum(header) == 0, f"{self.name}: checksum of {header.hex()}"
            opened = with_next_header(header, field, next_header, len(data)) + data
        assert opened == inner, f"{self.name}: decapsulated {opened.hex()}, expected {inner.hex()}"

    def add(self, packet, tags=0, ecn=None, trailer=b"", pad=True, **more):
        """Adds a packet to seal and open, in a frame with tags, as received by a NIC."""
        number = self.first + len(self.frames)
        inner_ecn = of_inner(packet)[0] & 3
        if self.mode == "transport":
            ecn, opened = None, packet
        else:
            if ecn is None or after_tunnel(inner_ecn, ecn) is None:
                ecn = inner_ecn
            opened = with_ecn(packet, after_tunnel(inner_ecn, ecn))
        plain = ethernet(packet, tags)
        if pad and len(plain) < 60:
            plain = plain.ljust(60, b"\xee")
        sealed = ethernet(self.seal(packet, number, ecn=ecn, **more), tags) + trailer
        self.frames.append({"plain": plain.hex(), "sealed": sealed.hex(), "opened": ethernet(opened, tags).hex()})
        self.frames[-1]["packet"] = packet

    def check(self, index, sealed):
        """Fails if a frame is not the expected encapsulation of the packet."""
        packet = self.frames[index]["packet"]
        tags = self.frames[index]["plain"][24:].find(packet.hex()) // 2
        l2 = 12 + tags
        plain = bytes.fromhex(self.frames[index]["plain"])
        assert sealed[:l2 - 2] == plain[:l2 - 2], f"{self.name}: addresses or tags: {sealed[:l2].hex()}"
        outer = self.outer if self.mode == "tunnel" else version(packet)
        assert sealed[l2 - 2:l2] == (b"\x08\0" if outer == 4 else b"\x86\xdd"), f"{self.name}: {sealed[:l2].hex()}"
        ip = sealed[l2:]
        assert ip_length(ip) == len(ip), f"{self.name}: {len(ip)} bytes, but the IP header states {ip_length(ip)}"
        self.unseal(ip, packet, self.first + index)

    def json(self):
        seal, open_ = self.tables()
        frames = [{k: v for k, v in frame.items() if k != "packet"} for frame in self.frames]
        return {"name": self.name, "transform": self.transform, "key": self.key.hex(), "spi": self.spi, "seal": seal,
                "open": open_, "first": self.first, "frames": frames}


def version(packet):
    return packet[0] >> 4


def ip_length(packet):
    if version(packet) == 4:
        return struct.unpack("!H", packet[2:4])[0]
    return 40 + struct.unpack("!H", packet[4:6])[0]


def of_inner(packet):
    """Returns traffic class and don't-fragment flag (always set for IPv6)."""
    if version(packet) == 4:
        return packet[1], bool(packet[6] & 0x40)
    return struct.unpack("!H", packet[:2])[0] >> 4 & 0xff, True


def after_tunnel(inner, outer):
    """RFC 6040, figure 4, row by row; None: dropped."""
    not_ect, ect1, ect0, ce = 0, 1, 2, 3
    table = {not_ect: {not_ect: not_ect, ect0: not_ect, ect1: not_ect, ce: None},
             ect0: {not_ect: ect0, ect0: ect0, ect1: ect1, ce: ce},
             ect1: {not_ect: ect1, ect0: ect1, ect1: ect1, ce: ce},
             ce: {not_ect: ce, ect0: ce, ect1: ce, ce: ce}}
    return table[inner][outer]


def with_ecn(packet, ecn):
    """Returns the packet with this ECN; scapy computes the checksum."""
    if version(packet) == 4:
        if packet[1] & 3 == ecn:
            return packet
        header = IP(packet[:(packet[0] & 15) * 4])
        header.tos = header.tos & 0xfc | ecn
        del header.chksum
        return bytes(header) + packet[len(bytes(header)):]
    return packet[:1] + bytes([packet[1] & 0xcf | ecn << 4]) + packet[2:]


def with_next_header(header, field, protocol, behind):
    """Returns headers followed by another protocol and this many bytes."""
    header = bytearray(header)
    header[field] = protocol
    if version(header) == 4:
        header[2:4] = struct.pack("!H", len(header) + behind)
        header[10:12] = b"\0\0"
        header[10:12] = struct.pack("!H", checksum(bytes(header)))
    else:
        header[4:6] = struct.pack("!H", len(header) - 40 + behind)
    return bytes(header)


def extensions(packet):
    """Returns (offset, type's offset, type) of IPv6 extension headers and upper protocol."""
    at, field, found = 40, 6, []
    while packet[field] in (HOP_BY_HOP, ROUTING, FRAGMENT, DEST_OPTS):
        found.append((at, field, packet[field]))
        length = 8 if packet[field] == FRAGMENT else (packet[at + 1] + 1) * 8
        field, at = at, at + length
    return found + [(at, field, packet[field])]


def split(packet, destination_options_inside):
    """Returns the offsets of ESP in transport mode and of the protocol field to replace."""
    if version(packet) == 4:
        return (packet[0] & 15) * 4, 9
    found = extensions(packet)
    at, field, _ = found[-1]
    # Each node in a routing header processes the destination options in front of it.
    stays = max([index for index, (_, _, kind) in enumerate(found) if kind in (HOP_BY_HOP, ROUTING, FRAGMENT)], default=-1)
    inside = [place for place in found[stays + 1:] if place[2] == DEST_OPTS]
    if destination_options_inside and inside:
        at, field, _ = inside[0]
    return at, field


def end_of_headers(packet, wanted):
    """Returns the offsets of the first of these protocols and of its type."""
    if version(packet) == 4:
        return (packet[0] & 15) * 4, 9
    at, field, kind = extensions(packet)[-1]
    assert kind in wanted, f"{kind} in {packet.hex()}"
    return at, field


def ethernet(packet, tags):
    frame = Ether(**MACS)
    if tags == 2:
        frame = Ether(type=0x88a8, **MACS) / Dot1AD(vlan=7, prio=1)
    if tags:
        frame = frame / Dot1Q(vlan=9, prio=5)
    frame.lastlayer().type = 0x0800 if version(packet) == 4 else 0x86dd
    return bytes(frame) + packet


def bytes_(count):
    return bytes(rng.randrange(256) for _ in range(count))


def v4(size, **fields):
    source, destination = INNER[4]
    fields = {"tos": rng.randrange(256), "ttl": rng.randrange(1, 256), "id": rng.randrange(65536), "flags": rng.choice(["DF", 0]),
              "src": source, "dst": destination, **fields}
    return bytes(IP(**fields) / UDP(sport=1000, dport=2000) / Raw(bytes_(size)))


def v6(size, extension=None, **fields):
    source, destination = INNER[6]
    packet = IPv6(**{"src": source, "dst": destination, "tc": rng.randrange(256), "fl": rng.randrange(1 << 20),
                     "hlim": rng.randrange(1, 256), **fields})
    if extension is not None:
        packet = packet / extension
    return bytes(packet / UDP(sport=1000, dport=2000) / Raw(bytes_(size)))


def options():
    return [IPOption_NOP(), IPOption_RR(pointer=4, routers=["0.0.0.0"] * rng.randrange(1, 4))]


def chains():
    """Returns chains of extension headers."""
    hop, dest = IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0\0\0\0")]), IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)])
    routing = IPv6ExtHdrRouting(addresses=["fd00:3::1"], segleft=0)
    atomic = IPv6ExtHdrFragment(offset=0, m=0, id=77)
    return [hop, dest, hop / dest, routing, hop / dest / routing, atomic, hop / routing / atomic, routing / dest,
            hop / dest / routing / atomic / dest]


SIZES = (0, 1, 2, 3, 4, 18, 64, 333, 1400)


def fill(case):
    """Returns every kind of packet that the SA accepts."""
    tunnel = case.mode == "tunnel"
    packets = []
    for size in SIZES:
        packets += [v4(size), v6(size)]
    packets += [v4(size, options=options()) for size in (0, 5)]
    if tunnel or not case.udp:
        packets += [v6(7, chain) for chain in chains()]
    else:
        # A routing header changes the pseudo-header of UDP's checksum.
        packets += [v6(7, chain) for chain in chains() if IPv6ExtHdrRouting not in chain]
    if tunnel:
        packets += [v4(8, flags="MF"), v4(30, frag=100), v6(8, IPv6ExtHdrFragment(offset=0, m=1, id=5)),
                    v6(8, IPv6ExtHdrFragment(offset=99, m=0, id=5))]
        packets += [bytes(IP(src="10.1.0.7", dst="10.2.0.9") / ICMP(id=1, seq=2) / b"ping"),
                    bytes(IPv6(src="fd00:1::7", dst="fd00:2::9") / ICMPv6EchoRequest(data=b"ping")),
                    bytes(IP(src="10.1.0.7", dst="10.2.0.9", proto=253))]
    if tunnel and not case.udp:
        packets += [bytes(IP(src="10.1.0.7", dst="10.2.0.9", tos=ecn) / UDP(sport=1000, dport=2000) / b"ECN") for ecn in range(4)]
    for index, packet in enumerate(packets):
        more = {} if tunnel else {"destination_options_inside": bool(index % 2)}
        trailer = bytes_(index % 5) if index % 3 == 0 else b""
        case.add(packet, tags=index % 3, ecn=rng.randrange(4), trailer=trailer, **more)


def all_cases():
    cases = []
    for transform in TRANSFORMS:
        for mode, outer in [("tunnel", 4), ("tunnel", 6), ("transport", 0)]:
            for udp in (None, (4500, 4500)):
                for esn in (True, False):
                    name = f"{transform} {mode} {outer} {'udp ' if udp else ''}{'esn' if esn else ''}"
                    cases.append(Case(name, transform, mode, outer, udp, esn))
                    fill(cases[-1])
    # Sequence numbers across 2^32, at the end of 32 bits, and large.
    for transform in TRANSFORMS:
        for name, first, esn in [("across", (1 << 32) - 4, True), ("again", (7 << 32) - 4, True), ("far", (5 << 32) + 77, True),
                                 ("last", (1 << 32) - 8, False)]:
            cases.append(Case(f"{transform} {name}", transform, first=first, esn=esn))
            for index in range(8):
                cases[-1].add(v4(index * 3), tags=index % 3)
    # Every size.
    for transform in ("aes-128-gcm", "null-aes-128-gmac", "chacha20-poly1305"):
        cases.append(Case(f"{transform} sizes", transform, outer=6, udp=(5000, 6000)))
        for size in range(1401):
            if transform == "aes-128-gcm" or size % 7 == 0:
                cases[-1].add(v4(size) if size % 2 else v6(size), tags=size // 2 % 3)
    # Fields of the outer header.
    inners = lambda: [v4(3, tos=tos, flags=flags) for tos in (0, 0x2e << 2 | 1, 0xff) for flags in (0, "DF")] + [v6(3, tc=0xb9)]
    for outer in (4, 6):
        for dscp in ("copy", 0, 46, 63):
            for ttl in (1, 64, 255):
                for df in ("copy", "set", "clear"):
                    cases.append(Case(f"outer {outer}: {dscp} {ttl} {df}", outer=outer, dscp=dscp, ttl=ttl, df=df))
                    for inner in inners():
                        cases[-1].add(inner)
    return cases


def cases():
    for case in all_cases():
        print(json.dumps(case.json()))


def check():
    by_name = {case.name: case for case in all_cases()}
    count, ivs = 0, {}
    for line in sys.stdin:
        line = json.loads(line)
        case, sealed = by_name[line["case"]], bytes.fromhex(line["sealed"])
        case.check(line["index"], sealed)
        seen = ivs.setdefault(case.name, set())
        assert case.iv not in seen, f"{case.name}: an IV was used twice"
        seen.add(case.iv)
        count += 1
    print(count)


def extras():
    """For esp-open: {"name", "open": SAs, "keys", "bypass", "frames": [{"what", "frame", "opened" or "dropped"}]}."""
    for make in (ordinary_extras, transport_extras, natt_extras, unprotected_extras):
        print(json.dumps(make()))


class Extras:
    def __init__(self, name, cases, bypass=()):
        self.name, self.cases, self.bypass, self.frames = name, cases, list(bypass), []
        self.number = 0

    def next(self):
        self.number += 1
        return self.number

    def opened(self, what, packet, inner, tags=0):
        self.frames.append({"what": what, "frame": ethernet(packet, tags).hex(), "opened": ethernet(inner, tags).hex()})

    def passed(self, what, packet):
        self.opened(what, packet, packet)

    def dropped(self, what, packet, *reasons):
        self.frames.append({"what": what, "frame": ethernet(packet, 0).hex(), "dropped": reasons})

    def frame_dropped(self, what, frame, *reasons):
        self.frames.append({"what": what, "frame": frame.hex(), "dropped": reasons})

    def frame_passed(self, what, frame):
        self.frames.append({"what": what, "frame": frame.hex(), "opened": frame.hex()})

    def json(self):
        return {"name": self.name, "open": [case.tables()[1] + case.extra for case in self.cases],
                "keys": [case.key.hex() for case in self.cases], "bypass": self.bypass, "frames": self.frames}


def some_case(name, extra="", **more):
    case = Case(name, **more)
    case.extra = extra
    return case


def ordinary_extras():
    case = some_case("tunnel", extra=', selector = ["10.1.0.0/16", "fd00:1::/32"], window = 64')
    case6 = some_case("tunnel over IPv6", outer=6, transform="null-aes-128-gmac")
    wrong_queue = some_case("wrong queue", extra=", queue = 1")
    all_ = Extras("tunnel", [case, case6, wrong_queue])

    def outer(esp, **fields):
        return bytes(IP(**{"src": "192.0.2.1", "dst": "192.0.2.2", "proto": ESP_, **fields}) / Raw(esp))

    inner = v4(20, tos=0)
    # Traffic-flow-confidentiality padding, for both versions.
    for size in (1, 2, 3, 4, 100, 1000):
        for packet in (v4(33), v6(33)):
            all_.opened(f"TFC padding of {size}", case.seal(packet, all_.next(), tfc=bytes_(size)), packet, tags=size % 3)
            all_.opened(f"TFC padding of {size} over IPv6", case6.seal(packet, all_.next(), tfc=bytes(size)), packet)
    # Longer padding than required.
    for pad in (4, 8, 100, 252):
        esp = case.esp(all_.next(), inner, 4, pad=bytes(range(1, 1 + pad + (-len(inner) - 2) % 4)))
        all_.opened(f"padding of {pad} more", outer(esp), inner)
    all_.dropped("padding of zeros", outer(case.esp(all_.next(), inner, 4, pad=bytes((-len(inner) - 2) % 4 + 4))), "bad_padding")
    all_.dropped("padding that begins with 0", outer(case.esp(all_.next(), inner, 4, pad=bytes(range((-len(inner) - 2) % 4 + 4)))),
                 "bad_padding")
    all_.dropped("padding longer than all", outer(case.esp(all_.next(), inner, 4, padlen=255)), "bad_padding")
    # Only a trailer, whose pad length exceeds the packet by one byte.
    all_.dropped("padding longer than nothing", outer(case.esp(all_.next(), b"\1\2", 4, pad=b"", padlen=3)), "bad_padding")
    # Dummy packets.
    for payload in (b"", bytes(1), bytes_(100), inner):
        all_.dropped("dummy", outer(case.esp(all_.next(), payload, NONE)), "dummy")
    # Lengths.
    good = case.esp(all_.next(), inner, 4)
    for cut in range(0, len(good)):
        reason = ("bad_tag",) if cut >= 36 and cut % 4 == 0 else ("bad_length", "malformed") if cut < 8 else ("bad_length",)
        all_.dropped(f"{cut} bytes of {len(good)}", outer(good[:cut]), *reason)
    for more in (1, 2, 3, 5):
        all_.dropped(f"{more} bytes more", outer(good + bytes(more)), "bad_length")
    all_.dropped("four bytes more", outer(good + bytes(4)), "bad_tag")
    all_.opened("and whole", outer(good), inner)
    all_.dropped("again", outer(good), "replay")
    all_.dropped("number 0", outer(case.esp(0, inner, 4)), "late", "bad_tag")
    last = all_.next()
    all_.opened("the next", outer(case.esp(last, inner, 4)), inner)
    all_.number += 100
    far = all_.next()
    all_.opened("100 numbers later", outer(case.esp(far, inner, 4)), inner)
    all_.opened("the last of the window", outer(case.esp(far - 63, inner, 4)), inner)
    all_.dropped("one behind the window", outer(case.esp(far - 64, inner, 4)), "late", "bad_tag")
    all_.dropped("far behind the window", outer(case.esp(last + 1, inner, 4)), "late", "bad_tag")
    all_.dropped("a number that was there", outer(case.esp(last, inner, 4)), "late", "bad_tag")
    # Another key.
    other = some_case("other", spi=case.spi)
    all_.dropped("another key", outer(other.esp(all_.next(), inner, 4)), "bad_tag")
    all_.dropped("no SA", outer(some_case("unknown").esp(1, inner, 4)), "no_sa")
    all_.dropped("no SA to there", outer(case.esp(all_.next(), inner, 4), dst="192.0.2.3"), "no_sa")
    all_.dropped("no SA over IPv6", case6.seal(inner, all_.next())[:24] + bytes(16) + case6.esp(1, inner, 4), "no_sa", "malformed")
    all_.dropped("the queue of another", wrong_queue.seal(inner, 1), "wrong_queue")
    # ECN: congestion marks on packets with and without ECN capability.
    for packet in (v4(3, tos=0), v6(3, tc=0xb8)):
        all_.dropped("CE outside, not ECN-capable inside", case.seal(packet, all_.next(), ecn=3), "ecn")
        all_.dropped("the same over IPv6", case6.seal(packet, all_.next(), ecn=3), "ecn")
    for inner_ecn in range(4):
        for outer_ecn in range(4):
            for packet in (v4(3, tos=0xb8 | inner_ecn), v6(3, tc=0x48 | inner_ecn)):
                after = after_tunnel(inner_ecn, outer_ecn)
                for by in (case, case6):
                    sealed = by.seal(packet, all_.next(), ecn=outer_ecn)
                    if after is None:
                        all_.dropped(f"ECN {outer_ecn} around {inner_ecn}", sealed, "ecn")
                    else:
                        all_.opened(f"ECN {outer_ecn} around {inner_ecn}", sealed, with_ecn(packet, after))
    # Policy: source addresses, and protocols that are not IP.
    for packet in (v4(3, tos=0, src="10.0.255.255"), v4(3, tos=0, src="10.2.0.0"), v6(3, tc=0, src="fd00:2::1")):
        all_.dropped("a source outside the selector", case.seal(packet, all_.next()), "policy")
    for packet in (v4(3, tos=0, src="10.1.255.255"), v4(3, tos=0, src="10.1.0.0"), v6(3, tc=0, src="fd00:1:ffff::1")):
        all_.opened("a source at the selector's edge", case.seal(packet, all_.next()), packet)
    for protocol in (6, 17, 50, 1, 255):
        all_.dropped("of transport mode", outer(case.esp(all_.next(), inner[20:], protocol)), "policy")
    # Invalid inner packets.
    six = v6(3, tc=0)
    bad = [("IPv6 as IPv4", six, 4), ("IPv4 as IPv6", inner, 41), ("cut in its header", inner[:19], 4),
           ("cut behind it", inner[:-1], 4), ("IPv6 cut in its header", six[:39], 41), ("IPv6 cut behind it", six[:-1], 41),
           ("nothing", b"", 4), ("nothing at all", b"", 41), ("one byte", b"\x45", 4),
           ("a header of 16 bytes", b"\x44" + inner[1:], 4), ("options beyond its end", b"\x4f" + inner[1:30], 4),
           ("shorter than its header", inner[:2] + b"\0\x13" + inner[4:], 4)]
    for what, packet, protocol in bad:
        all_.dropped(what, outer(case.esp(all_.next(), packet, protocol)), "malformed", "policy")
    # Fragments of ESP: there is no reassembly.
    esp = case.esp(all_.next(), inner, 4)
    all_.dropped("a first fragment", outer(esp, flags="MF"), "esp_fragment")
    all_.dropped("a later fragment", outer(esp, frag=3), "esp_fragment")
    all_.dropped("a fragment in the middle", outer(esp, frag=3, flags="MF"), "esp_fragment")
    source, destination = OUTER[6]
    esp6 = case6.esp(all_.next(), inner, 4)
    for offset, more in ((0, 1), (5, 0), (5, 1)):
        fragment = bytes(IPv6(src=source, dst=destination) / IPv6ExtHdrFragment(nh=ESP_, offset=offset, m=more, id=9) / Raw(esp6))
        all_.dropped(f"a fragment over IPv6: {offset} {more}", fragment, "esp_fragment")
    # Outer headers with options or extension headers.
    whole = bytes(IPv6(src=source, dst=destination) / IPv6ExtHdrFragment(nh=ESP_, id=9) / Raw(esp6))
    all_.opened("an atomic fragment", whole, inner)
    all_.opened("outer options", outer(case.esp(all_.next(), inner, 4), options=options()), inner)
    behind = bytes(IPv6(src=source, dst=destination) / IPv6ExtHdrHopByHop(nh=ESP_, options=[PadN(optdata=bytes(4))])
                   / Raw(case6.esp(all_.next(), inner, 4)))
    all_.opened("an outer hop-by-hop header", behind, inner)
    # Malformed outer headers.
    sealed = case.seal(inner, all_.next())
    frame = ethernet(sealed, 0)
    for cut in (15, 20, 33, 34, 50, len(frame) - 1):
        all_.frame_dropped(f"{cut} bytes of the frame", frame[:cut], "malformed", "bad_length")
    all_.dropped("a header of 16 bytes", b"\x44" + sealed[1:], "malformed")
    all_.dropped("a length beyond the frame", sealed[:2] + b"\x05\xdc" + sealed[4:], "malformed")
    all_.dropped("version 5", b"\x55" + sealed[1:], "malformed")
    all_.opened("and whole", sealed, inner)
    return all_.json()


def transport_extras():
    """Transport mode: TFC padding is only removable if the inner packet states its length."""
    case = some_case("transport", mode="transport", transform="chacha20-poly1305")
    all_ = Extras("transport", [case])
    all_.dropped("a dummy", case.seal(v4(3)[:9] + bytes([NONE]) + v4(3)[10:], all_.next()), "dummy")
    packet = v4(9)
    all_.opened("whole", case.seal(packet, all_.next()), packet)
    packet = v6(9)
    all_.opened("whole", case.seal(packet, all_.next()), packet)
    # ECN marks of the path stay: there is only one header.
    marked = case.seal(v4(9, tos=0), all_.next())
    return all_.json()


def natt_extras():
    plain = some_case("without UDP")
    case = some_case("NAT-T", udp=(4500, 4500))
    over6 = some_case("NAT-T over IPv6", udp=(1234, 4500), outer=6, transform="aes-256-gcm")
    all_ = Extras("NAT-T", [plain, case, over6], bypass=["ike"])
    inner = v4(30, tos=0)
    ip, ip6 = IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src=OUTER[6][0], dst=OUTER[6][1])
    udp = lambda payload, **ports: bytes(ip / UDP(**{"sport": 4500, "dport": 4500, **ports}) / Raw(payload))
    all_.dropped("keepalive", udp(b"\xff"), "dummy")
    all_.dropped("keepalive without a checksum", udp(b"\xff", chksum=0), "dummy")
    all_.dropped("keepalive over IPv6", bytes(ip6 / UDP(sport=4500, dport=4500) / Raw(b"\xff")), "dummy")
    all_.dropped("keepalive from another port", udp(b"\xff", sport=1024), "dummy")
    # A NAT changes the source.
    sealed = case.seal(inner, all_.next())
    all_.opened("from another port and address", bytes([*sealed[:10], 0, 0, 198, 51, 100, 9, *sealed[16:20], 9, 9, *sealed[22:]]), inner)
    with_sum = case.seal(inner, all_.next())
    all_.opened("with a checksum", bytes(ip / UDP(sport=4500, dport=4500) / Raw(with_sum[28:])), inner)
    all_.opened("over IPv6", over6.seal(inner, all_.next()), inner)
    # Packets that are not for an SA.
    marker = bytes(4)
    for what, packet in [("IKE", udp(bytes_(40), sport=500, dport=500)), ("IKE from 500", udp(bytes_(40), sport=500, dport=9999)),
                         ("IKE to 500", udp(bytes_(40), sport=9999, dport=500)), ("IKE behind a marker", udp(marker + bytes_(40))),
                         ("IKE behind a marker, to 4500", udp(marker + bytes_(40), sport=7)),
                         ("IKE behind a marker, from 4500", udp(marker + bytes_(40), dport=7)),
                         ("IKE over IPv6", bytes(ip6 / UDP(sport=500, dport=500) / Raw(bytes_(28))))]:
        all_.passed(what, packet)
    all_.dropped("from 4500 without a marker", udp(b"\1" + bytes_(40), dport=7), "unprotected")
    all_.dropped("an SA that is not for UDP", udp(plain.esp(1, inner, 4)), "no_sa")
    all_.dropped("an SA that is for UDP", bytes(ip / Raw(case.esp(all_.next(), inner, 4)))[:9] + b"\x32" + bytes(10 + 60), "malformed", "no_sa")
    bare = bytes(IP(src="192.0.2.1", dst="192.0.2.2", proto=ESP_) / Raw(case.esp(all_.next(), inner, 4)))
    all_.dropped("an SA that is for UDP", bare, "no_sa")
    all_.dropped("UDP to another port", udp(case.esp(all_.next(), inner, 4), sport=9, dport=4501), "unprotected")
    for size in (0, 2, 3, 4, 5, 7):
        all_.dropped(f"{size} bytes in UDP", udp(b"\xfe" * size), "bad_length", "malformed", "no_sa", "unprotected", "dummy")
    whole = case.seal(inner, all_.next())
    # With unreadable ports, the packet is not recognized as ESP.
    for length in (0, 7, 101, 1500):
        all_.dropped(f"UDP's length {length}", whole[:24] + struct.pack("!H", length) + whole[26:], "malformed", "unprotected")
    all_.opened("without UDP", plain.seal(inner, 1), inner)
    first = IP(bytes(IP(whole)))
    first.flags, first.chksum = "MF", None
    all_.dropped("a first fragment of UDP", bytes(first), "esp_fragment")
    all_.opened("and whole", whole, inner)
    return all_.json()


def unprotected_extras():
    case = some_case("tunnel")
    all_ = Extras("unprotected", [case], bypass=[])
    for what, packet in [("UDP", v4(30)), ("UDP over IPv6", v6(30)), ("IKE", bytes(IP(dst="192.0.2.2") / UDP(sport=500, dport=500) / b"x")),
                         ("with extension headers", v6(30, IPv6ExtHdrHopByHop())), ("a later fragment of UDP", v4(30, frag=7)),
                         ("AH", bytes(IP(dst="192.0.2.2", proto=51) / Raw(bytes(40)))),
                         ("IP in IP", bytes(IP(dst="192.0.2.2") / IP(v4(3))))]:
        all_.dropped(what, packet, "unprotected")
    all_.frame_dropped("ARP", bytes(Ether(**MACS, type=0x806)) + bytes(46), "unprotected")
    all_.frame_dropped("no IP", bytes(Ether(**MACS, type=0x88b5)) + bytes(46), "unprotected")
    packet = v4(3)
    all_.opened("ESP", case.seal(packet, 1), packet)
    return all_.json()


def mss():
    """SYNs, and their expected form with `tcp_mss = 1200`."""
    def syn(ip, flags="S", options=(("MSS", 1460),), payload=b""):
        return ip / TCP(sport=1, dport=2, flags=flags, seq=7, options=list(options)) / Raw(payload)

    for ip in (lambda: IP(src="10.1.0.7", dst="10.2.0.9", id=5), lambda: IPv6(src="fd00:1::7", dst="fd00:2::9"),
               lambda: IP(src="10.1.0.7", dst="10.2.0.9", id=5, options=[IPOption_NOP()]),
               lambda: IPv6(src="fd00:1::7", dst="fd00:2::9") / IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))])):
        for flags in ("S", "SA", "A", "SEC"):
            for value in (88, 536, 1199, 1200, 1201, 1460, 65535):
                for front, behind in (([], []), ([("NOP", None), ("NOP", None)], [("WScale", 7)]), ([("NOP", None)], [("SAckOK", b"")]),
                                      ([("Timestamp", (1, 2))], [])):
                    for payload in (b"", b"x"):
                        make = lambda mss_: syn(ip(), flags, [*front, ("MSS", mss_), *behind], payload)
                        lowered = min(value, 1200) if "S" in flags else value
                        print(json.dumps({"plain": bytes(make(value)).hex(), "expected": bytes(make(lowered)).hex()}))
        for options_ in ([], [("NOP", None)], [("WScale", 7)]):
            packet = bytes(syn(ip(), "S", options_)).hex()
            print(json.dumps({"plain": packet, "expected": packet}))
        # Invalid options: a truncated MSS, an MSS of another length, an MSS after the end of
        # options.
        for raw_options in (b"\x02", b"\x02\x04\xff", b"\x02\x03\xff\xff", b"\x02\x00\xff\xff", b"\x05\x00\x00\x00", b"\x00\x02\x04\xff\xff",
                            b"\x03\xff\x02\x04\xff\xff"):
            raw_options = raw_options.ljust(len(raw_options) + -len(raw_options) % 4, b"\0")
            packet = ip() / TCP(sport=1, dport=2, flags="S", dataofs=5 + len(raw_options) // 4) / Raw(raw_options)
            if raw_options == b"\x02\x04\xff\0":
                # The next byte completes the option: 0xff00.
                fixed = ip() / TCP(sport=1, dport=2, flags="S", dataofs=6) / Raw(b"\x02\x04\x04\xb0")
                print(json.dumps({"plain": bytes(packet).hex(), "expected": bytes(fixed).hex()}))
            else:
                print(json.dumps({"plain": bytes(packet).hex(), "expected": bytes(packet).hex()}))


def icmp():
    """Checks the fields, destination and quoted packet of "packet too big" messages."""
    for line in sys.stdin:
        line = json.loads(line)
        plain, answer = bytes.fromhex(line["plain"]), bytes.fromhex(line["answer"])
        l2 = 14 + 4 * line["tags"]
        assert answer[:6] == plain[6:12] and answer[6:12] == plain[:6], f"addresses: {answer[:14].hex()}"
        assert answer[12:l2] == plain[12:l2], f"tags and type: {answer[:l2].hex()}"
        about, packet = plain[l2:], answer[l2:]
        about = about[:ip_length(about)]
        if len(answer) > 60:
            assert ip_length(packet) == len(packet), f"{ip_length(packet)} of {len(packet)} bytes"
        packet = packet[:ip_length(packet)]
        if version(about) == 4:
            read, of = IP(packet), IP(about)
            assert checksum(packet[:20]) == 0 and packet[0] == 0x45, f"checksum of {packet.hex()}"
            assert (read.src, read.dst, read.proto) == (line["source"] or of.dst, of.src, 1), read.summary()
            assert read.frag == 0 and not read.flags.MF and read.ttl >= 32
            message = packet[20:]
            assert (message[0], message[1]) == (3, 4) and checksum(message) == 0, f"{message.hex()}"
            assert len(packet) <= 576
            mtu = ICMP(message).nexthopmtu
            assert message[4:6] == b"\0\0"
            quoted = message[8:]
            least = (about[0] & 15) * 4 + 8
        else:
            read, of = IPv6(packet), IPv6(about)
            assert (read.src, read.dst, read.nh) == (line["source"] or of.dst, of.src, 58), read.summary()
            assert read.hlim >= 32
            message = packet[40:]
            assert (message[0], message[1]) == (2, 0), f"{message.hex()}"
            assert in6_chksum(58, IPv6(packet[:40]), message) == 0, f"checksum of {message.hex()}"
            assert len(packet) <= 1280
            mtu = ICMPv6PacketTooBig(message).mtu
            quoted = message[8:]
            # RFC 4443, 2.4 (c): as much as fits.
            least = min(len(about), 1280 - 48)
        assert quoted == about[:len(quoted)] and len(quoted) >= least, f"{len(quoted)} bytes quoted: {quoted.hex()}"
        print(mtu)


def self_check():
    count = 0
    for case in all_cases():
        for index, frame in enumerate(case.frames):
            packet = frame["packet"]
            l2 = len(frame["opened"]) // 2 - len(packet)
            inside = {} if case.mode == "tunnel" else {"destination_options_inside": bool(index % 2)}
            sealed = bytes.fromhex(frame["plain"])[:l2 - 2] + ethernet(case.seal(packet, case.first + index, ident=index, **inside), 0)[12:]
            case.check(index, sealed)
            count += 1
            # Self-test: a changed byte must be detected, except in the identification.
            places = [place for place in range(len(sealed)) if index < 3 or place == (count * 31) % len(sealed)]
            for place in places:
                if case.mode == "tunnel" and (
                        case.outer == 4 and place - l2 in (4, 5, 10, 11) or case.outer == 6 and place - l2 in (1, 2, 3)):
                    continue  # the identification and with it the checksum; the flow label
                wrong = bytearray(sealed)
                wrong[place] ^= 1 << count % 8
                try:
                    case.check(index, bytes(wrong))
                except (AssertionError, ipsec.IPSecIntegrityError, InvalidTag):
                    continue
                except (IndexError, struct.error):
                    continue
                raise AssertionError(f"{case.name}: changed byte {place - l2} of packet {index} was not detected: {sealed.hex()}")
    print(count)


{"cases": cases, "check": check, "extras": extras, "mss": mss, "icmp": icmp, "self": self_check}[sys.argv[1]]()
