"""Prints the fields that scapy reads in frames, one JSON object per line, for the Rust
test emit_against_scapy. Reads the frames in hexadecimal from standard input, one per line.

"layers" has the fields of each layer. "rebuilt" is the frame that scapy builds from these fields,
with recomputed lengths and checksums. With the argument "types", scapy also recomputes the fields
that state the type of the next layer.
"""

import json
import sys

from scapy.contrib.gtp import (
    GTP_U_Header, GTPErrorIndication, GTPPDUSessionContainer, IE_GSNAddress, IE_TEIDI)
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import NoPayload, Padding, Raw

FIELDS = {
    Ether: ["dst", "src", "type"],
    Dot1Q: ["vlan", "prio", "id", "type"],
    Dot1AD: ["vlan", "prio", "id", "type"],
    ARP: ["op", "hwsrc", "psrc", "hwdst", "pdst"],
    IP: ["src", "dst", "tos", "id", "flags", "ttl", "proto", "len"],
    IPv6: ["src", "dst", "tc", "fl", "nh", "hlim", "plen"],
    IPv6ExtHdrDestOpt: ["nh"],
    TCP: ["sport", "dport", "seq", "ack", "flags", "window", "urgptr", "dataofs"],
    UDP: ["sport", "dport", "len"],
    ICMP: ["type", "code", "id", "seq"],
    ICMPv6EchoRequest: ["type", "code", "id", "seq"],
    ICMPv6EchoReply: ["type", "code", "id", "seq"],
    GTP_U_Header: ["gtp_type", "length", "teid", "S", "PN", "E", "seq", "npdu"],
    GTPPDUSessionContainer: [
        "type", "QFI", "RQI", "PPI", "dlSendTime", "dlQFISeqNum", "dlSendTimeRpt", "dlRecvTime",
        "ulSendTime", "dlDelayRslt", "ulDelayRslt", "UlQFISeqNum", "N3N9DelayRslt", "NextExtHdr"],
}

# Lengths and checksums that scapy recomputes.
COMPUTED = {
    IP: ["len", "chksum"],
    IPv6: ["plen"],
    TCP: ["chksum"],
    UDP: ["len", "chksum"],
    ICMP: ["chksum"],
    ICMPv6EchoRequest: ["cksum"],
    ICMPv6EchoReply: ["cksum"],
    GTP_U_Header: ["length"],
    GTPPDUSessionContainer: ["ExtHdrLen"],
}

TYPES = {Ether: "type", Dot1Q: "type", Dot1AD: "type", IP: "proto", IPv6: "nh"}


def value(raw):
    return raw if isinstance(raw, str) else int(raw)


def layer_fields(layer):
    fields = {"layer": type(layer).__name__}
    for name in FIELDS.get(type(layer), []):
        if is_present(layer, name):
            fields[name] = value(layer.getfieldval(name))
    if isinstance(layer, GTPErrorIndication):
        for element in layer.IE_list:
            if isinstance(element, IE_TEIDI):
                fields["teid"] = element.TEIDI
            if isinstance(element, IE_GSNAddress):
                is_ipv4 = element.length == 4
                fields["peer"] = element.ipv4_address if is_ipv4 else element.ipv6_address
    if isinstance(layer, (Raw, Padding)):
        fields["load"] = layer.load.hex()
    return fields


def is_present(layer, name):
    """Returns whether the layer contains the field, as its flags state."""
    condition = getattr(layer.get_field(name), "cond", None)
    return condition is None or condition(layer)


def main():
    # Read all input first: the caller reads no output until it has written all.
    for line in sys.stdin.readlines():
        raw = bytes.fromhex(line)
        packet = Ether(raw)
        layers, layer = [], packet
        while not isinstance(layer, NoPayload):
            layers.append(layer_fields(layer))
            # Keep a UDP checksum of 0 (no checksum), which scapy would replace by a computed one.
            is_over_ipv4 = isinstance(layer.underlayer, IP)
            has_no_checksum = isinstance(layer, UDP) and layer.chksum == 0 and is_over_ipv4
            for name in [] if has_no_checksum else COMPUTED.get(type(layer), []):
                layer.delfieldval(name)
            if "types" in sys.argv and type(layer) in TYPES:
                layer.delfieldval(TYPES[type(layer)])
            layer = layer.payload
        print(json.dumps({"layers": layers, "rebuilt": bytes(packet).hex()}))


main()
