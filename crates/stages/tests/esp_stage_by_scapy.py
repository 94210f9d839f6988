"""A reference implementation for esp-seal and esp-open, with scapy and `cryptography`.

The argument is one of:

`cases`    Prints SAs with their frames. Each frame has three forms: plain, sealed by scapy, and
           expected after decapsulation.
`check`    Reads frames that esp-seal has sealed: {"case", "index", "sealed"}. Fails at the first
           frame that differs from the expected encapsulation; otherwise prints the number of frames.
`extras`   Prints unusual frames for esp-open, each with the expected result.
`mss`      Prints TCP packets, each with the packet expected with `tcp_mss = 1200`.
`icmp`     Reads "too big" messages from esp-seal: {"plain", "answer", "tags", "source"}. Checks each
           message, and prints the MTU in it.
`self`     Checks that `check` accepts frames sealed by scapy, and detects changed bytes. Prints the
           number of frames.

Input and output are one JSON object per line, except for the numbers. `check` compares outer headers
byte for byte with those that scapy builds. The seed is fixed.
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
# IP protocol numbers.
HOP_BY_HOP, UDP_, ROUTING, FRAGMENT, ESP_, NO_NEXT_HEADER, DESTINATION_OPTIONS = 0, 17, 43, 44, 50, 59, 60


class Gmac(CryptAlgo):
    """GMAC (RFC 4543). Encrypts nothing. Authenticates the SPI, the sequence number (64 bits with ESN),
    the IV and the text."""

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
    """An SA between scapy and xdpfwd, with its frames. Either side can seal or open them."""

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
        """Returns the SA's keys for esp-seal and for esp-open in TOML, without `key_file`."""
        quoted = json.dumps
        common = f"spi = {self.spi}, transform = {quoted(self.transform)}, mode = {quoted(self.mode)}, esn = {quoted(self.esn)}"
        seal, open_ = common, common
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
        """Returns an ESP packet built by scapy, from SPI to ICV. `number` is the sequence number."""
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
        """Decrypts an ESP packet, which extends from SPI to ICV. Returns the payload and the next header.

        Fails if the packet was not sealed with the key of the SA and this sequence number."""
        spi, low_bits = struct.unpack("!LL", esp[:8])
        assert (spi, low_bits) == (self.spi, number & 0xffffffff), f"{self.name}: SPI {spi}, number {low_bits}, expected SPI {self.spi}, number {number}"
        assert len(esp) % 4 == 0, f"{self.name}: {len(esp)} bytes of ESP"
        self.iv = esp[8:16]
        plain = self.sa.crypt_algo.decrypt(self.sa, ESP(esp), self.sa.crypt_key, esn_en=self.esn, esn=number >> 32)
        # Sealing the payload again with the same IV must have the same result, including padding.
        expected = self.esp(number, bytes(plain.data), plain.nh, iv=self.iv)
        assert esp == expected, f"{self.name}: {esp.hex()}, expected {expected.hex()}"
        return bytes(plain.data), plain.nh

    def header(self, inner, protocol, length, ident=0, ecn=None):
        """Returns scapy's outer header for an inner packet. The outer payload has `length` bytes."""
        source, destination = OUTER[self.outer]
        traffic_class, dont_fragment = copied_fields(inner)
        dscp = traffic_class >> 2 if self.dscp == "copy" else self.dscp
        tos = dscp << 2 | (traffic_class & 3 if ecn is None else ecn)
        if self.outer == 6:
            return bytes(IPv6(src=source, dst=destination, tc=tos, hlim=self.ttl, nh=protocol, plen=length))
        is_df_set = {"copy": dont_fragment, "set": True, "clear": False}[self.df]
        header = IP(src=source, dst=destination, tos=tos, ttl=self.ttl, proto=protocol, len=20 + length, id=ident,
                    flags="DF" if is_df_set else 0)
        return bytes(header)

    def udp_header(self, ip, esp):
        """Returns the UDP header before ESP, or b"" if ESP is not in UDP. Over IPv4, the checksum is 0."""
        if not self.udp:
            return b""
        header = struct.pack("!HHHH", *self.udp, 8 + len(esp), 0)
        if version(ip) == 6:
            computed = in6_chksum(UDP_, IPv6(ip[:40]), header + esp) or 0xffff
            header = header[:6] + struct.pack("!H", computed)
        return header

    def seal(self, packet, number, ecn=None, destination_options_inside=False, tfc=b"", ident=0):
        """Encapsulates an IP packet with scapy. `number` is the sequence number, and `tfc` the TFC padding."""
        if self.mode == "tunnel":
            esp = self.esp(number, packet + tfc, 4 if version(packet) == 4 else 41)
            protocol, length = (UDP_ if self.udp else ESP_), len(esp) + (8 if self.udp else 0)
            header = self.header(packet, protocol, length, ident=ident, ecn=ecn)
        else:
            esp_offset, field = split(packet, destination_options_inside)
            esp = self.esp(number, packet[esp_offset:] + tfc, packet[field])
            header = with_next_header(packet[:esp_offset], field, UDP_ if self.udp else ESP_, len(esp) + (8 if self.udp else 0))
        return header + self.udp_header(header, esp) + esp

    def unseal(self, packet, inner, number):
        """Checks that a packet is the expected encapsulation of the packet `inner`, byte for byte."""
        if self.mode == "tunnel":
            header_len = 20 if version(packet) == 4 else 40
            ident = struct.unpack("!H", packet[4:6])[0]
            expected = self.header(inner, UDP_ if self.udp else ESP_, len(packet) - header_len, ident=ident)
            if self.outer == 6:
                # RFC 6437: the sender chooses the flow label.
                packet = packet[:1] + bytes([packet[1] & 0xf0]) + b"\0\0" + packet[4:]
            assert packet[:header_len] == expected, f"{self.name}: outer header {packet[:header_len].hex()}, expected {expected.hex()} for {inner.hex()}"
        else:
            header_len, field = end_of_headers(packet, {ESP_, UDP_} if self.udp else {ESP_})
            assert packet[field] == (UDP_ if self.udp else ESP_)
        header, esp = packet[:header_len], packet[header_len:]
        if self.udp:
            udp, esp = esp[:8], esp[8:]
            assert udp == self.udp_header(header, esp), f"{self.name}: unexpected UDP header {udp.hex()} before {esp.hex()}"
        data, next_header = self.open_esp(number, esp)
        if self.mode == "tunnel":
            assert next_header == (4 if version(inner) == 4 else 41), f"{self.name}: next header {next_header}"
            opened = data
        else:
            # Without a routing header, destination options may precede or follow ESP (RFC 4303,
            # 3.1.1).
            first, last = (split(inner, inside)[0] for inside in (True, False))
            assert first <= header_len <= last, f"{self.name}: ESP at {header_len}, not from {first} to {last}: {packet.hex()}"
            assert version(header) == 6 or checksum(header) == 0, f"{self.name}: checksum of {header.hex()}"
            opened = with_next_header(header, field, next_header, len(data)) + data
        assert opened == inner, f"{self.name}: decapsulated {opened.hex()}, expected {inner.hex()}"

    def add(self, packet, tags=0, ecn=None, trailer=b"", pad=True, **seal_options):
        """Adds a packet to the case, in a frame with `tags` VLAN tags. With `pad`, the plain frame is
        padded to 60 bytes. `trailer` follows the sealed packet in its frame."""
        number = self.first + len(self.frames)
        inner_ecn = copied_fields(packet)[0] & 3
        if self.mode == "transport":
            ecn, opened = None, packet
        else:
            if ecn is None or after_tunnel(inner_ecn, ecn) is None:
                ecn = inner_ecn
            opened = with_ecn(packet, after_tunnel(inner_ecn, ecn))
        plain = ethernet(packet, tags)
        if pad and len(plain) < 60:
            plain = plain.ljust(60, b"\xee")
        sealed = ethernet(self.seal(packet, number, ecn=ecn, **seal_options), tags) + trailer
        self.frames.append({"plain": plain.hex(), "sealed": sealed.hex(), "opened": ethernet(opened, tags).hex()})
        self.frames[-1]["packet"] = packet

    def check(self, index, sealed):
        """Fails if the frame `sealed` is not the expected encapsulation of the packet at the index."""
        packet = self.frames[index]["packet"]
        # The tags and EtherType are between the MAC addresses (12 bytes) and the packet.
        tags_len = self.frames[index]["plain"][24:].find(packet.hex()) // 2
        l2 = 12 + tags_len
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


def copied_fields(packet):
    """Returns the traffic class and the don't-fragment flag (always set for IPv6) of a packet."""
    if version(packet) == 4:
        return packet[1], bool(packet[6] & 0x40)
    return struct.unpack("!H", packet[:2])[0] >> 4 & 0xff, True


def after_tunnel(inner, outer):
    """Returns the ECN field of a decapsulated packet; None if it must be dropped (RFC 6040, figure 4)."""
    not_ect, ect1, ect0, ce = 0, 1, 2, 3
    table = {not_ect: {not_ect: not_ect, ect0: not_ect, ect1: not_ect, ce: None},
             ect0: {not_ect: ect0, ect0: ect0, ect1: ect1, ce: ce},
             ect1: {not_ect: ect1, ect0: ect1, ect1: ect1, ce: ce},
             ce: {not_ect: ce, ect0: ce, ect1: ce, ce: ce}}
    return table[inner][outer]


def with_ecn(packet, ecn):
    """Returns the packet with the given ECN and a valid header checksum."""
    if version(packet) == 4:
        if packet[1] & 3 == ecn:
            return packet
        header = IP(packet[:(packet[0] & 15) * 4])
        header.tos = header.tos & 0xfc | ecn
        del header.chksum
        return bytes(header) + packet[len(bytes(header)):]
    return packet[:1] + bytes([packet[1] & 0xcf | ecn << 4]) + packet[2:]


def with_next_header(header, field, protocol, payload_len):
    """Returns the IP headers with the byte at the offset `field` set to `protocol`, and with the length
    field set for a payload of `payload_len` bytes."""
    header = bytearray(header)
    header[field] = protocol
    if version(header) == 4:
        header[2:4] = struct.pack("!H", len(header) + payload_len)
        header[10:12] = b"\0\0"
        header[10:12] = struct.pack("!H", checksum(bytes(header)))
    else:
        header[4:6] = struct.pack("!H", len(header) - 40 + payload_len)
    return bytes(header)


def extensions(packet):
    """Returns the IPv6 extension headers and the upper header. Each is a tuple: offset of the header,
    offset of the field with its type, type."""
    offset, field, found = 40, 6, []
    while packet[field] in (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS):
        found.append((offset, field, packet[field]))
        length = 8 if packet[field] == FRAGMENT else (packet[offset + 1] + 1) * 8
        field, offset = offset, offset + length
    return found + [(offset, field, packet[field])]


def split(packet, destination_options_inside):
    """Returns two offsets for transport mode: where to insert ESP, and of the field to set to ESP."""
    if version(packet) == 4:
        return (packet[0] & 15) * 4, 9
    found = extensions(packet)
    offset, field, _ = found[-1]
    # All headers up to the last header for routers stay before ESP. This includes destination options
    # before a routing header, because each node in the routing header processes them.
    last_before_esp = max([index for index, (_, _, kind) in enumerate(found) if kind in (HOP_BY_HOP, ROUTING, FRAGMENT)], default=-1)
    inside = [header for header in found[last_before_esp + 1:] if header[2] == DESTINATION_OPTIONS]
    if destination_options_inside and inside:
        offset, field, _ = inside[0]
    return offset, field


def end_of_headers(packet, protocols):
    """Returns the offset of the upper header, and that of the field with its type, which must be one of
    `protocols`."""
    if version(packet) == 4:
        return (packet[0] & 15) * 4, 9
    offset, field, kind = extensions(packet)[-1]
    assert kind in protocols, f"protocol {kind} in {packet.hex()}"
    return offset, field


def ethernet(packet, tags):
    """Returns a frame with the packet and 0 to 2 VLAN tags."""
    frame = Ether(**MACS)
    if tags == 2:
        frame = Ether(type=0x88a8, **MACS) / Dot1AD(vlan=7, prio=1)
    if tags:
        frame = frame / Dot1Q(vlan=9, prio=5)
    frame.lastlayer().type = 0x0800 if version(packet) == 4 else 0x86dd
    return bytes(frame) + packet


def random_bytes(count):
    return bytes(rng.randrange(256) for _ in range(count))


def v4(size, **fields):
    source, destination = INNER[4]
    fields = {"tos": rng.randrange(256), "ttl": rng.randrange(1, 256), "id": rng.randrange(65536), "flags": rng.choice(["DF", 0]),
              "src": source, "dst": destination, **fields}
    return bytes(IP(**fields) / UDP(sport=1000, dport=2000) / Raw(random_bytes(size)))


def v6(size, extension=None, **fields):
    source, destination = INNER[6]
    packet = IPv6(**{"src": source, "dst": destination, "tc": rng.randrange(256), "fl": rng.randrange(1 << 20),
                     "hlim": rng.randrange(1, 256), **fields})
    if extension is not None:
        packet = packet / extension
    return bytes(packet / UDP(sport=1000, dport=2000) / Raw(random_bytes(size)))


def options():
    return [IPOption_NOP(), IPOption_RR(pointer=4, routers=["0.0.0.0"] * rng.randrange(1, 4))]


def chains():
    hop, dest = IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0\0\0\0")]), IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)])
    routing = IPv6ExtHdrRouting(addresses=["fd00:3::1"], segleft=0)
    atomic = IPv6ExtHdrFragment(offset=0, m=0, id=77)
    return [hop, dest, hop / dest, routing, hop / dest / routing, atomic, hop / routing / atomic, routing / dest,
            hop / dest / routing / atomic / dest]


SIZES = (0, 1, 2, 3, 4, 18, 64, 333, 1400)


def fill(case):
    """Adds every kind of packet that the SA accepts to the case."""
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
        seal_options = {} if tunnel else {"destination_options_inside": bool(index % 2)}
        trailer = random_bytes(index % 5) if index % 3 == 0 else b""
        case.add(packet, tags=index % 3, ecn=rng.randrange(4), trailer=trailer, **seal_options)


def all_cases():
    cases = []
    for transform in TRANSFORMS:
        for mode, outer in [("tunnel", 4), ("tunnel", 6), ("transport", 0)]:
            for udp in (None, (4500, 4500)):
                for esn in (True, False):
                    name = f"{transform} {mode} {outer} {'udp ' if udp else ''}{'esn' if esn else ''}"
                    cases.append(Case(name, transform, mode, outer, udp, esn))
                    fill(cases[-1])
    # Sequence numbers that cross a multiple of 2^32, large numbers, and the last numbers without ESN.
    for transform in TRANSFORMS:
        for name, first, esn in [("across", (1 << 32) - 4, True), ("again", (7 << 32) - 4, True), ("far", (5 << 32) + 77, True),
                                 ("last", (1 << 32) - 8, False)]:
            cases.append(Case(f"{transform} {name}", transform, first=first, esn=esn))
            for index in range(8):
                cases[-1].add(v4(index * 3), tags=index % 3)
    # Every payload size up to 1400 bytes for AES-GCM, and every seventh size for the others.
    for transform in ("aes-128-gcm", "null-aes-128-gmac", "chacha20-poly1305"):
        cases.append(Case(f"{transform} sizes", transform, outer=6, udp=(5000, 6000)))
        for size in range(1401):
            if transform == "aes-128-gcm" or size % 7 == 0:
                cases[-1].add(v4(size) if size % 2 else v6(size), tags=size // 2 % 3)
    # Fields of the outer header.
    inner_packets = lambda: [v4(3, tos=tos, flags=flags) for tos in (0, 0x2e << 2 | 1, 0xff) for flags in (0, "DF")] + [v6(3, tc=0xb9)]
    for outer in (4, 6):
        for dscp in ("copy", 0, 46, 63):
            for ttl in (1, 64, 255):
                for df in ("copy", "set", "clear"):
                    cases.append(Case(f"outer {outer}: {dscp} {ttl} {df}", outer=outer, dscp=dscp, ttl=ttl, df=df))
                    for inner in inner_packets():
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
    """Prints {"name", "open": SAs, "keys", "bypass", "frames": [{"what", "frame", "opened" or "dropped"}]}.

    "opened" is the frame expected after decapsulation; "dropped" lists the allowed drop reasons."""
    for make in (ordinary_extras, transport_extras, natt_extras, unprotected_extras):
        print(json.dumps(make()))


class Extras:
    """Frames for one esp-open stage, each with the expected result."""
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


def extras_case(name, extra="", **options):
    case = Case(name, **options)
    # Further configuration keys of the SA in esp-open.
    case.extra = extra
    return case


def ordinary_extras():
    case = extras_case("tunnel", extra=', selector = ["10.1.0.0/16", "fd00:1::/32"], window = 64')
    case6 = extras_case("tunnel over IPv6", outer=6, transform="null-aes-128-gmac")
    wrong_queue = extras_case("wrong queue", extra=", queue = 1")
    group = Extras("tunnel", [case, case6, wrong_queue])

    def outer(esp, **fields):
        return bytes(IP(**{"src": "192.0.2.1", "dst": "192.0.2.2", "proto": ESP_, **fields}) / Raw(esp))

    inner = v4(20, tos=0)
    # Traffic-flow-confidentiality (TFC) padding, for both IP versions.
    for size in (1, 2, 3, 4, 100, 1000):
        for packet in (v4(33), v6(33)):
            group.opened(f"TFC padding of {size}", case.seal(packet, group.next(), tfc=random_bytes(size)), packet, tags=size % 3)
            group.opened(f"TFC padding of {size} over IPv6", case6.seal(packet, group.next(), tfc=bytes(size)), packet)
    # Longer padding than required.
    for pad in (4, 8, 100, 252):
        esp = case.esp(group.next(), inner, 4, pad=bytes(range(1, 1 + pad + (-len(inner) - 2) % 4)))
        group.opened(f"{pad} bytes more padding than required", outer(esp), inner)
    group.dropped("padding of zeros", outer(case.esp(group.next(), inner, 4, pad=bytes((-len(inner) - 2) % 4 + 4))), "bad_padding")
    group.dropped("padding that begins with 0", outer(case.esp(group.next(), inner, 4, pad=bytes(range((-len(inner) - 2) % 4 + 4)))),
                 "bad_padding")
    group.dropped("padding longer than the packet", outer(case.esp(group.next(), inner, 4, padlen=255)), "bad_padding")
    # ESP with two bytes before the pad length, which states three bytes of padding.
    group.dropped("padding longer than the packet, by one byte", outer(case.esp(group.next(), b"\1\2", 4, pad=b"", padlen=3)), "bad_padding")
    # Dummy packets.
    for payload in (b"", bytes(1), random_bytes(100), inner):
        group.dropped("dummy", outer(case.esp(group.next(), payload, NO_NEXT_HEADER)), "dummy")
    # Truncated and extended ESP packets.
    good = case.esp(group.next(), inner, 4)
    for cut in range(0, len(good)):
        reason = ("bad_tag",) if cut >= 36 and cut % 4 == 0 else ("bad_length", "malformed") if cut < 8 else ("bad_length",)
        group.dropped(f"ESP truncated to {cut} of {len(good)} bytes", outer(good[:cut]), *reason)
    for more in (1, 2, 3, 5):
        group.dropped(f"ESP with {more} bytes more", outer(good + bytes(more)), "bad_length")
    group.dropped("ESP with four bytes more", outer(good + bytes(4)), "bad_tag")
    group.opened("the same ESP, not truncated", outer(good), inner)
    group.dropped("the same ESP again", outer(good), "replay")
    group.dropped("sequence number 0", outer(case.esp(0, inner, 4)), "late", "bad_tag")
    last = group.next()
    group.opened("the next sequence number", outer(case.esp(last, inner, 4)), inner)
    group.number += 100
    far = group.next()
    group.opened("a sequence number that skips 100", outer(case.esp(far, inner, 4)), inner)
    group.opened("the lowest number in the window", outer(case.esp(far - 63, inner, 4)), inner)
    group.dropped("one number below the window", outer(case.esp(far - 64, inner, 4)), "late", "bad_tag")
    group.dropped("far below the window", outer(case.esp(last + 1, inner, 4)), "late", "bad_tag")
    group.dropped("below the window, and received before", outer(case.esp(last, inner, 4)), "late", "bad_tag")
    # Another key.
    other = extras_case("other", spi=case.spi)
    group.dropped("another key", outer(other.esp(group.next(), inner, 4)), "bad_tag")
    group.dropped("no SA", outer(extras_case("unknown").esp(1, inner, 4)), "no_sa")
    group.dropped("no SA with this destination", outer(case.esp(group.next(), inner, 4), dst="192.0.2.3"), "no_sa")
    group.dropped("no SA over IPv6", case6.seal(inner, group.next())[:24] + bytes(16) + case6.esp(1, inner, 4), "no_sa", "malformed")
    group.dropped("an SA of another queue", wrong_queue.seal(inner, 1), "wrong_queue")
    # ECN: congestion marks on packets with and without ECN capability.
    for packet in (v4(3, tos=0), v6(3, tc=0xb8)):
        group.dropped("CE in the outer header, not ECN-capable in the inner header", case.seal(packet, group.next(), ecn=3), "ecn")
        group.dropped("the same over IPv6", case6.seal(packet, group.next(), ecn=3), "ecn")
    for inner_ecn in range(4):
        for outer_ecn in range(4):
            for packet in (v4(3, tos=0xb8 | inner_ecn), v6(3, tc=0x48 | inner_ecn)):
                after = after_tunnel(inner_ecn, outer_ecn)
                for sa in (case, case6):
                    sealed = sa.seal(packet, group.next(), ecn=outer_ecn)
                    if after is None:
                        group.dropped(f"outer ECN {outer_ecn}, inner ECN {inner_ecn}", sealed, "ecn")
                    else:
                        group.opened(f"outer ECN {outer_ecn}, inner ECN {inner_ecn}", sealed, with_ecn(packet, after))
    # Drops as `policy`: source addresses outside the selector, and next headers other than IP.
    for packet in (v4(3, tos=0, src="10.0.255.255"), v4(3, tos=0, src="10.2.0.0"), v6(3, tc=0, src="fd00:2::1")):
        group.dropped("a source outside the selector", case.seal(packet, group.next()), "policy")
    for packet in (v4(3, tos=0, src="10.1.255.255"), v4(3, tos=0, src="10.1.0.0"), v6(3, tc=0, src="fd00:1:ffff::1")):
        group.opened("the first or last source in the selector", case.seal(packet, group.next()), packet)
    for protocol in (6, 17, 50, 1, 255):
        group.dropped(f"next header {protocol} in tunnel mode", outer(case.esp(group.next(), inner[20:], protocol)), "policy")
    # Invalid inner packets.
    six = v6(3, tc=0)
    bad = [("IPv6 as IPv4", six, 4), ("IPv4 as IPv6", inner, 41), ("IPv4, truncated in its header", inner[:19], 4),
           ("IPv4, truncated after its header", inner[:-1], 4), ("IPv6, truncated in its header", six[:39], 41), ("IPv6, truncated after its header", six[:-1], 41),
           ("empty IPv4", b"", 4), ("empty IPv6", b"", 41), ("one byte of IPv4", b"\x45", 4),
           ("an IPv4 header length of 16", b"\x44" + inner[1:], 4), ("IPv4 options beyond the end", b"\x4f" + inner[1:30], 4),
           ("an IPv4 total length shorter than the header", inner[:2] + b"\0\x13" + inner[4:], 4)]
    for what, packet, protocol in bad:
        group.dropped(what, outer(case.esp(group.next(), packet, protocol)), "malformed", "policy")
    # Fragments of ESP: there is no reassembly.
    esp = case.esp(group.next(), inner, 4)
    group.dropped("a first fragment", outer(esp, flags="MF"), "esp_fragment")
    group.dropped("a later fragment", outer(esp, frag=3), "esp_fragment")
    group.dropped("a fragment in the middle", outer(esp, frag=3, flags="MF"), "esp_fragment")
    source, destination = OUTER[6]
    esp6 = case6.esp(group.next(), inner, 4)
    for offset, more in ((0, 1), (5, 0), (5, 1)):
        fragment = bytes(IPv6(src=source, dst=destination) / IPv6ExtHdrFragment(nh=ESP_, offset=offset, m=more, id=9) / Raw(esp6))
        group.dropped(f"an IPv6 fragment with offset {offset}, more {more}", fragment, "esp_fragment")
    # Outer headers with options or extension headers.
    whole = bytes(IPv6(src=source, dst=destination) / IPv6ExtHdrFragment(nh=ESP_, id=9) / Raw(esp6))
    group.opened("an atomic fragment", whole, inner)
    group.opened("options in the outer header", outer(case.esp(group.next(), inner, 4), options=options()), inner)
    after_hop_by_hop = bytes(IPv6(src=source, dst=destination) / IPv6ExtHdrHopByHop(nh=ESP_, options=[PadN(optdata=bytes(4))])
                   / Raw(case6.esp(group.next(), inner, 4)))
    group.opened("an outer hop-by-hop header", after_hop_by_hop, inner)
    # Malformed outer headers.
    sealed = case.seal(inner, group.next())
    frame = ethernet(sealed, 0)
    for cut in (15, 20, 33, 34, 50, len(frame) - 1):
        group.frame_dropped(f"frame truncated to {cut} bytes", frame[:cut], "malformed", "bad_length")
    group.dropped("an outer header length of 16", b"\x44" + sealed[1:], "malformed")
    group.dropped("an outer total length beyond the frame", sealed[:2] + b"\x05\xdc" + sealed[4:], "malformed")
    group.dropped("outer version 5", b"\x55" + sealed[1:], "malformed")
    group.opened("the same packet, unchanged", sealed, inner)
    return group.json()


def mark_ce(packet):
    """Returns the IPv4 packet with the ECN field set to CE ("congestion experienced")."""
    marked = IP(packet)
    marked.tos |= 3
    del marked.chksum
    return bytes(marked)


def transport_extras():
    """Returns frames for transport mode. None has TFC padding: the receiver can remove it only if the
    payload states its own length."""
    case = extras_case("transport", mode="transport", transform="chacha20-poly1305")
    group = Extras("transport", [case])
    group.dropped("a dummy", case.seal(v4(3)[:9] + bytes([NO_NEXT_HEADER]) + v4(3)[10:], group.next()), "dummy")
    packet = v4(9)
    group.opened("a packet", case.seal(packet, group.next()), packet)
    packet = v6(9)
    group.opened("a packet", case.seal(packet, group.next()), packet)
    # ECN marks that routers set stay, because the packet has only one IP header.
    packet = v4(9, tos=0)
    group.opened("a packet marked by the path", mark_ce(case.seal(packet, group.next())), mark_ce(packet))
    return group.json()


def natt_extras():
    plain = extras_case("without UDP")
    case = extras_case("NAT-T", udp=(4500, 4500))
    over6 = extras_case("NAT-T over IPv6", udp=(1234, 4500), outer=6, transform="aes-256-gcm")
    group = Extras("NAT-T", [plain, case, over6], bypass=["ike"])
    inner = v4(30, tos=0)
    ip, ip6 = IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src=OUTER[6][0], dst=OUTER[6][1])
    udp = lambda payload, **ports: bytes(ip / UDP(**{"sport": 4500, "dport": 4500, **ports}) / Raw(payload))
    group.dropped("keepalive", udp(b"\xff"), "dummy")
    group.dropped("keepalive without a checksum", udp(b"\xff", chksum=0), "dummy")
    group.dropped("keepalive over IPv6", bytes(ip6 / UDP(sport=4500, dport=4500) / Raw(b"\xff")), "dummy")
    group.dropped("keepalive from another port", udp(b"\xff", sport=1024), "dummy")
    # A NAT changes the source address and port.
    sealed = case.seal(inner, group.next())
    group.opened("from another port and address", bytes([*sealed[:10], 0, 0, 198, 51, 100, 9, *sealed[16:20], 9, 9, *sealed[22:]]), inner)
    with_sum = case.seal(inner, group.next())
    group.opened("with a checksum", bytes(ip / UDP(sport=4500, dport=4500) / Raw(with_sum[28:])), inner)
    group.opened("over IPv6", over6.seal(inner, group.next()), inner)
    # Packets that bypass ESP, or that no SA matches.
    marker = bytes(4)
    for what, packet in [("IKE", udp(random_bytes(40), sport=500, dport=500)),
                         ("IKE to 500", udp(random_bytes(40), sport=9999, dport=500)), ("IKE after a marker", udp(marker + random_bytes(40))),
                         ("IKE after a marker, to 4500", udp(marker + random_bytes(40), sport=7)),
                         ("IKE over IPv6", bytes(ip6 / UDP(sport=500, dport=500) / Raw(random_bytes(28))))]:
        group.passed(what, packet)
    # IKE arrives at port 500 or 4500, whatever port NAT gave to the peer.
    group.dropped("from 500 to another port", udp(random_bytes(40), sport=500, dport=9999), "unprotected")
    group.dropped("from 4500 to another port, after a marker", udp(marker + random_bytes(40), dport=7), "unprotected")
    group.dropped("from 4500 without a marker", udp(b"\1" + random_bytes(40), dport=7), "unprotected")
    group.dropped("ESP in UDP for an SA without UDP", udp(plain.esp(1, inner, 4)), "no_sa")
    group.dropped("malformed ESP without UDP for an SA with UDP", bytes(ip / Raw(case.esp(group.next(), inner, 4)))[:9] + b"\x32" + bytes(10 + 60), "malformed", "no_sa")
    without_udp = bytes(IP(src="192.0.2.1", dst="192.0.2.2", proto=ESP_) / Raw(case.esp(group.next(), inner, 4)))
    group.dropped("ESP without UDP for an SA with UDP", without_udp, "no_sa")
    group.dropped("UDP to another port", udp(case.esp(group.next(), inner, 4), sport=9, dport=4501), "unprotected")
    for size in (0, 2, 3, 4, 5, 7):
        group.dropped(f"{size} bytes in UDP", udp(b"\xfe" * size), "bad_length", "malformed", "no_sa", "unprotected", "dummy")
    whole = case.seal(inner, group.next())
    # With an invalid UDP length, the ports are unknown. So the packet is not recognized as ESP.
    for length in (0, 7, 101, 1500):
        group.dropped(f"UDP length {length}", whole[:24] + struct.pack("!H", length) + whole[26:], "malformed", "unprotected")
    group.opened("ESP without UDP", plain.seal(inner, 1), inner)
    first = IP(bytes(IP(whole)))
    first.flags, first.chksum = "MF", None
    group.dropped("a first fragment of UDP", bytes(first), "esp_fragment")
    group.opened("the same packet, unfragmented", whole, inner)
    return group.json()


def unprotected_extras():
    case = extras_case("tunnel")
    group = Extras("unprotected", [case], bypass=[])
    for what, packet in [("UDP", v4(30)), ("UDP over IPv6", v6(30)), ("IKE", bytes(IP(dst="192.0.2.2") / UDP(sport=500, dport=500) / b"x")),
                         ("with extension headers", v6(30, IPv6ExtHdrHopByHop())), ("a later fragment of UDP", v4(30, frag=7)),
                         ("AH", bytes(IP(dst="192.0.2.2", proto=51) / Raw(bytes(40)))),
                         ("IP in IP", bytes(IP(dst="192.0.2.2") / IP(v4(3))))]:
        group.dropped(what, packet, "unprotected")
    group.frame_dropped("ARP", bytes(Ether(**MACS, type=0x806)) + bytes(46), "unprotected")
    group.frame_dropped("not IP", bytes(Ether(**MACS, type=0x88b5)) + bytes(46), "unprotected")
    packet = v4(3)
    group.opened("ESP", case.seal(packet, 1), packet)
    return group.json()


def mss():
    def syn(ip, flags="S", options=(("MSS", 1460),), payload=b""):
        return ip / TCP(sport=1, dport=2, flags=flags, seq=7, options=list(options)) / Raw(payload)

    for ip in (lambda: IP(src="10.1.0.7", dst="10.2.0.9", id=5), lambda: IPv6(src="fd00:1::7", dst="fd00:2::9"),
               lambda: IP(src="10.1.0.7", dst="10.2.0.9", id=5, options=[IPOption_NOP()]),
               lambda: IPv6(src="fd00:1::7", dst="fd00:2::9") / IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))])):
        for flags in ("S", "SA", "A", "SEC"):
            for value in (88, 536, 1199, 1200, 1201, 1460, 65535):
                for options_before, options_after in (([], []), ([("NOP", None), ("NOP", None)], [("WScale", 7)]), ([("NOP", None)], [("SAckOK", b"")]),
                                      ([("Timestamp", (1, 2))], [])):
                    for payload in (b"", b"x"):
                        make = lambda mss_: syn(ip(), flags, [*options_before, ("MSS", mss_), *options_after], payload)
                        lowered = min(value, 1200) if "S" in flags else value
                        print(json.dumps({"plain": bytes(make(value)).hex(), "expected": bytes(make(lowered)).hex()}))
        for options_ in ([], [("NOP", None)], [("WScale", 7)]):
            packet = bytes(syn(ip(), "S", options_)).hex()
            print(json.dumps({"plain": packet, "expected": packet}))
        # Invalid options: a truncated MSS option, an MSS option of another length, and an MSS option
        # after the end of options.
        for raw_options in (b"\x02", b"\x02\x04\xff", b"\x02\x03\xff\xff", b"\x02\x00\xff\xff", b"\x05\x00\x00\x00", b"\x00\x02\x04\xff\xff",
                            b"\x03\xff\x02\x04\xff\xff"):
            raw_options = raw_options.ljust(len(raw_options) + -len(raw_options) % 4, b"\0")
            packet = ip() / TCP(sport=1, dport=2, flags="S", dataofs=5 + len(raw_options) // 4) / Raw(raw_options)
            if raw_options == b"\x02\x04\xff\0":
                # The padding completes the option: the MSS is 0xff00.
                fixed = ip() / TCP(sport=1, dport=2, flags="S", dataofs=6) / Raw(b"\x02\x04\x04\xb0")
                print(json.dumps({"plain": bytes(packet).hex(), "expected": bytes(fixed).hex()}))
            else:
                print(json.dumps({"plain": bytes(packet).hex(), "expected": bytes(packet).hex()}))


def icmp():
    for line in sys.stdin:
        line = json.loads(line)
        plain, answer = bytes.fromhex(line["plain"]), bytes.fromhex(line["answer"])
        l2 = 14 + 4 * line["tags"]
        assert answer[:6] == plain[6:12] and answer[6:12] == plain[:6], f"addresses: {answer[:14].hex()}"
        assert answer[12:l2] == plain[12:l2], f"tags and type: {answer[:l2].hex()}"
        original, packet = plain[l2:], answer[l2:]
        original = original[:ip_length(original)]
        if len(answer) > 60:
            assert ip_length(packet) == len(packet), f"{len(packet)} bytes, but the IP header states {ip_length(packet)}"
        packet = packet[:ip_length(packet)]
        if version(original) == 4:
            parsed, parsed_original = IP(packet), IP(original)
            assert checksum(packet[:20]) == 0 and packet[0] == 0x45, f"checksum of {packet.hex()}"
            assert (parsed.src, parsed.dst, parsed.proto) == (line["source"] or parsed_original.dst, parsed_original.src, 1), parsed.summary()
            assert parsed.frag == 0 and not parsed.flags.MF and parsed.ttl >= 32
            message = packet[20:]
            assert (message[0], message[1]) == (3, 4) and checksum(message) == 0, f"{message.hex()}"
            assert len(packet) <= 576
            mtu = ICMP(message).nexthopmtu
            assert message[4:6] == b"\0\0"
            quoted = message[8:]
            min_quoted = (original[0] & 15) * 4 + 8
        else:
            parsed, parsed_original = IPv6(packet), IPv6(original)
            assert (parsed.src, parsed.dst, parsed.nh) == (line["source"] or parsed_original.dst, parsed_original.src, 58), parsed.summary()
            assert parsed.hlim >= 32
            message = packet[40:]
            assert (message[0], message[1]) == (2, 0), f"{message.hex()}"
            assert in6_chksum(58, IPv6(packet[:40]), message) == 0, f"checksum of {message.hex()}"
            assert len(packet) <= 1280
            mtu = ICMPv6PacketTooBig(message).mtu
            quoted = message[8:]
            # RFC 4443, 2.4 (c): the message quotes as much as fits into 1280 bytes.
            min_quoted = min(len(original), 1280 - 48)
        assert quoted == original[:len(quoted)] and len(quoted) >= min_quoted, f"{len(quoted)} bytes quoted: {quoted.hex()}"
        print(mtu)


def self_check():
    count = 0
    for case in all_cases():
        for index, frame in enumerate(case.frames):
            packet = frame["packet"]
            l2 = len(frame["opened"]) // 2 - len(packet)
            seal_options = {} if case.mode == "tunnel" else {"destination_options_inside": bool(index % 2)}
            sealed = bytes.fromhex(frame["plain"])[:l2 - 2] + ethernet(case.seal(packet, case.first + index, ident=index, **seal_options), 0)[12:]
            case.check(index, sealed)
            count += 1
            # Change each byte of the first three packets, and one byte of every other packet.
            offsets = [offset for offset in range(len(sealed)) if index < 3 or offset == (count * 31) % len(sealed)]
            for offset in offsets:
                if case.mode == "tunnel" and (
                        case.outer == 4 and offset - l2 in (4, 5, 10, 11) or case.outer == 6 and offset - l2 in (1, 2, 3)):
                    continue  # not compared: identification and checksum of IPv4, flow label of IPv6
                changed = bytearray(sealed)
                changed[offset] ^= 1 << count % 8
                try:
                    case.check(index, bytes(changed))
                except (AssertionError, ipsec.IPSecIntegrityError, InvalidTag):
                    continue
                except (IndexError, struct.error):
                    continue
                raise AssertionError(f"{case.name}: changed byte {offset - l2} of packet {index} was not detected: {sealed.hex()}")
    print(count)


{"cases": cases, "check": check, "extras": extras, "mss": mss, "icmp": icmp, "self-check": self_check}[sys.argv[1]]()
