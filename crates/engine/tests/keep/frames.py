"""Frames for root_keep.rs, made with scapy. Each line has a name, the rules that keep the frame, and its bytes in
hexadecimal, separated by tabs.

This host has the MAC address 02:00:00:00:00:01 and the addresses 192.0.2.1, 10.255.0.1 (on lo), 2001:db8::1 and
fe80::1. Another of its interfaces has 172.17.0.1. Its address 2001:db8::7 is tentative. It is in VLAN 300.
The test tries the rules one at a time: arp nd icmp local lldp stp tcp/22 udp/53 vlan/100.
"""

from scapy.all import (
    AH, ARP, GRE, ICMP, IP, LLC, SCTP, SNAP, STP, TCP, UDP,
    Dot1AD, Dot1Q, Dot3, Ether, Raw, fragment, fragment6,
    ICMPv6DestUnreach, ICMPv6EchoRequest, ICMPv6MLReport2,
    ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6ND_Redirect, ICMPv6ND_RS,
    IPOption_LSRR, IPOption_NOP, IPOption_RR, IPOption_SSRR,
    IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting,
    Jumbo, PadN, RouterAlert,
)

MAC, PEER, OTHER, ALL = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03", "ff:ff:ff:ff:ff:ff"
ME, ME_LO, THEM, FAR = "192.0.2.1", "10.255.0.1", "192.0.2.2", "198.51.100.9"
ME6, ME_LL, THEM6, FAR6 = "2001:db8::1", "fe80::1", "2001:db8::2", "2001:db8:ffff::9"
SOLICITED, SOLICITED_MAC = "ff02::1:ff00:1", "33:33:ff:00:00:01"


def eth(dst=MAC, **more):
    return Ether(src=PEER, dst=dst, **more)


def arp(dst=ALL, **more):
    return eth(dst) / ARP(**{"hwsrc": PEER, "psrc": THEM, "pdst": ME, **more})


def own(l4, dst=ME, **more):
    return eth() / IP(src=THEM, dst=dst, **more) / l4


def own6(l4, dst=ME6, src=THEM6, **more):
    return eth() / IPv6(src=src, dst=dst, **more) / l4


def nd(message, dst=SOLICITED, src=THEM6, mac=SOLICITED_MAC, hlim=255, **more):
    return eth(mac) / IPv6(src=src, dst=dst, hlim=hlim, **more) / message


def lldp(dst, **more):
    return eth(dst, type=0x88CC, **more) / Raw(b"\x02\x07\x04" + b"\x02" * 6)


def bpdu(dst, sap=0x42):
    return Dot3(src=PEER, dst=dst) / LLC(dsap=sap, ssap=sap, ctrl=3) / STP()


ssh, dns = TCP(sport=40000, dport=22), UDP(sport=40000, dport=53) / Raw(b"?" * 20)
ping, ping6 = ICMP() / Raw(b"x" * 20), ICMPv6EchoRequest(data=b"x" * 20)
v100, v200 = Dot1Q(vlan=100), Dot1Q(vlan=200)
ip, ip6 = IP(src=THEM, dst=ME), IPv6(src=THEM6, dst=ME6)


def chain(count):
    """Returns ssh after a number of extension headers."""
    middle = b"".join(bytes(IPv6ExtHdrDestOpt(nh=60)) for _ in range(count - 2))
    headers = bytes(IPv6ExtHdrHopByHop(nh=60)) + middle + bytes(IPv6ExtHdrDestOpt(nh=6))
    return own6(Raw(headers + bytes(ssh)), nh=0)


def options(raw):
    return own(ssh, ihl=6, options=[Raw(raw)])


rows = [
    # ARP
    ("arp request for us", "arp", arp()),
    ("arp request for an address on lo", "arp", arp(pdst=ME_LO)),
    ("arp reply to us", "arp", arp(MAC, op=2, hwdst=MAC)),
    ("arp probe for our address", "arp", arp(psrc="0.0.0.0")),
    ("arp request for us, padded", "arp", arp() / Raw(b"\0" * 18)),
    ("arp request in transit", "", arp(pdst=FAR)),
    ("arp request from our address for another", "", arp(psrc=ME, pdst=FAR)),
    ("gratuitous arp of another", "", arp(pdst=THEM)),
    ("arp reply to us at another's MAC address", "", arp(OTHER, op=2, hwdst=MAC)),
    ("arp with another hardware type", "", arp(hwtype=6)),
    ("arp for a protocol other than IPv4", "", arp(ptype=0x86DD, plen=4)),
    ("arp with long protocol addresses", "", eth() / Raw(bytes.fromhex("0001080006100001") + bytes(52))),
    ("arp with long hardware addresses", "", eth() / Raw(bytes.fromhex("0001080008040001") + bytes(52))),
    ("arp truncated", "", Raw(bytes(arp())[:41])),
    ("arp for an address of ours on another interface", "", arp(pdst="172.17.0.1")),
    ("arp for us in VLAN 300, which we have", "arp", eth(ALL) / Dot1Q(vlan=300) / ARP(hwsrc=PEER, psrc=THEM, pdst=ME)),
    ("arp for us in VLAN 7, which we do not have", "", eth(ALL) / Dot1Q(vlan=7) / ARP(hwsrc=PEER, psrc=THEM, pdst=ME)),
    ("arp for us with a priority and no VLAN", "arp", eth(ALL) / Dot1Q(vlan=0, prio=5) / ARP(hwsrc=PEER, psrc=THEM, pdst=ME)),
    ("arp reply to us in VLAN 7", "arp", eth() / Dot1Q(vlan=7) / ARP(op=2, hwsrc=PEER, psrc=THEM, pdst=ME)),
    ("arp for us in VLAN 100", "vlan/100", eth(ALL) / v100 / ARP(hwsrc=PEER, psrc=THEM, pdst=ME)),
    ("arp in transit in VLAN 100", "", eth(ALL) / v100 / ARP(hwsrc=PEER, psrc=THEM, pdst=FAR)),
    # Neighbor Discovery
    ("solicitation of us", "nd", nd(ICMPv6ND_NS(tgt=ME6))),
    ("solicitation of our link-local address", "nd", nd(ICMPv6ND_NS(tgt=ME_LL))),
    ("solicitation of us, unicast", "nd icmp local", nd(ICMPv6ND_NS(tgt=ME6), dst=ME6, mac=MAC)),
    ("duplicate address detection of our address", "nd", nd(ICMPv6ND_NS(tgt=ME6), src="::")),
    ("solicitation of another in the same group", "", nd(ICMPv6ND_NS(tgt="2001:db8:0:7::1"))),
    ("solicitation in transit", "", nd(ICMPv6ND_NS(tgt=FAR6), dst="ff02::1:ff00:9", mac="33:33:ff:00:00:09")),
    ("solicitation of us that came through a router", "", nd(ICMPv6ND_NS(tgt=ME6), hlim=254)),
    ("solicitation of us sent to another", "", nd(ICMPv6ND_NS(tgt=ME6), dst=FAR6, mac=MAC)),
    ("solicitation of us with a code", "", nd(ICMPv6ND_NS(tgt=ME6, code=1))),
    ("solicitation of us without its target", "", Raw(bytes(nd(ICMPv6ND_NS(tgt=ME6)))[:74])),
    ("solicitation whose target is beyond the payload", "", nd(ICMPv6ND_NS(tgt=ME6), plen=20)),
    ("advertisement to us", "nd icmp local", nd(ICMPv6ND_NA(tgt=THEM6), dst=ME6, mac=MAC)),
    ("advertisement of our address to all", "nd", nd(ICMPv6ND_NA(tgt=ME6), dst="ff02::1", mac="33:33:00:00:00:01")),
    ("advertisement of another to all", "", nd(ICMPv6ND_NA(tgt=THEM6), dst="ff02::1", mac="33:33:00:00:00:01")),
    ("router advertisement to all", "", nd(ICMPv6ND_RA(), src="fe80::2", dst="ff02::1", mac="33:33:00:00:00:01")),
    ("router advertisement to us", "nd icmp local", nd(ICMPv6ND_RA(), src="fe80::2", dst=ME_LL, mac=MAC)),
    ("router solicitation to all routers", "", nd(ICMPv6ND_RS(), src="fe80::2", dst="ff02::2", mac="33:33:00:00:00:02")),
    ("router solicitation to us", "nd icmp local", nd(ICMPv6ND_RS(), src="fe80::2", dst=ME_LL, mac=MAC)),
    ("redirect to us", "nd icmp local", nd(ICMPv6ND_Redirect(tgt=THEM6, dst=FAR6), src="fe80::2", dst=ME6, mac=MAC)),
    ("redirect to another", "", nd(ICMPv6ND_Redirect(tgt=ME6, dst=ME6), src="fe80::2", dst=FAR6, mac=MAC)),
    ("solicitation of our tentative address", "nd", nd(ICMPv6ND_NS(tgt="2001:db8::7"), src="::")),
    ("ping6 of our tentative address", "", own6(ping6, dst="2001:db8::7")),
    ("solicitation of us in VLAN 100", "vlan/100",
     eth(SOLICITED_MAC) / v100 / IPv6(src=THEM6, dst=SOLICITED, hlim=255) / ICMPv6ND_NS(tgt=ME6)),
    ("solicitation of another in VLAN 100", "",
     eth(SOLICITED_MAC) / v100 / IPv6(src=THEM6, dst=SOLICITED, hlim=255) / ICMPv6ND_NS(tgt=FAR6)),
    ("fragmented solicitation of us", "",
     nd(IPv6ExtHdrFragment(id=5, m=1, nh=58) / Raw(bytes(ICMPv6ND_NS(tgt=ME6))))),
    ("multicast listener report", "",
     eth("33:33:00:00:00:16") / IPv6(src="fe80::2", dst="ff02::16", hlim=1)
     / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / ICMPv6MLReport2()),
    # ICMP
    ("ping", "icmp local", own(ping)),
    ("ping of an address on lo", "icmp local", own(ping, dst=ME_LO)),
    ("ping to all MAC addresses", "icmp local", eth(ALL) / ip / ping),
    ("echo reply", "icmp local", own(ICMP(type=0))),
    ("port unreachable about our packet", "icmp local", own(ICMP(type=3, code=3) / IP(src=ME, dst=THEM) / UDP())),
    ("ping in transit", "", own(ping, dst=FAR)),
    ("ping from our address", "", eth() / IP(src=ME, dst=FAR) / ping),
    ("ping of us at another's MAC address", "", eth(OTHER) / ip / ping),
    ("ping of the broadcast address", "", eth(ALL) / IP(src=THEM, dst="255.255.255.255") / ping),
    ("ping of the subnet's broadcast address", "", eth(ALL) / IP(src=THEM, dst="192.0.2.255") / ping),
    ("ping of a group", "", eth("01:00:5e:00:00:01") / IP(src=THEM, dst="224.0.0.1") / ping),
    ("ping of localhost", "", own(ping, dst="127.0.0.1")),
    ("ping6", "icmp local", own6(ping6)),
    ("ping6 in transit", "", own6(ping6, dst=FAR6)),
    ("ping6 of all nodes", "", eth("33:33:00:00:00:01") / IPv6(src=THEM6, dst="ff02::1") / ping6),
    ("destination unreachable about our packet", "icmp local",
     own6(ICMPv6DestUnreach() / IPv6(src=ME6, dst=THEM6) / UDP())),
    ("ICMPv6 over IPv4", "local", own(Raw(b"\x80\0\0\0\0\0\0\0"), proto=58)),
    ("ICMP over IPv6", "local", own6(Raw(b"\x08\0\0\0\0\0\0\0"), nh=1)),
    ("ping, a later fragment alone", "local", own(Raw(b"x" * 32), proto=1, frag=4)),
    ("ping6, a later fragment alone", "local", own6(IPv6ExtHdrFragment(id=6, offset=50, nh=58) / Raw(b"x" * 40))),
    # TCP and UDP
    ("ssh", "tcp/22 local", own(ssh)),
    ("ssh over IPv6", "tcp/22 local", own6(ssh)),
    ("ssh to our link-local address", "tcp/22 local", own6(ssh, dst=ME_LL, src="fe80::2")),
    ("ssh to another's link-local address", "", own6(ssh, dst="fe80::9", src="fe80::2")),
    ("ssh to an address of ours on another interface", "tcp/22 local", own(ssh, dst="172.17.0.1")),
    ("ssh in transit", "", own(ssh, dst=FAR)),
    ("ssh over IPv6 in transit", "", own6(ssh, dst=FAR6)),
    ("ssh from us in transit", "", eth() / IP(src=ME, dst=FAR) / ssh),
    ("ssh at another's MAC address", "", eth(OTHER) / ip / ssh),
    ("from port 22", "local", own(TCP(sport=22, dport=40000))),
    ("tcp to port 53", "local", own(TCP(dport=53))),
    ("udp to port 22", "local", own(UDP(dport=22))),
    ("tcp to port 22 + 256", "local", own(TCP(dport=278))),
    ("tcp to port 22 * 256", "local", own(TCP(dport=22 << 8))),
    ("dns", "udp/53 local", own(dns)),
    ("dns over IPv6", "udp/53 local", own6(dns)),
    ("dns in transit", "", own(dns, dst=FAR)),
    ("dhcp to all", "", eth(ALL) / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67)),
    ("sctp to port 22", "local", own(SCTP(dport=22))),
    ("gre", "local", own(GRE() / IP(src=THEM, dst=FAR) / ssh)),
    ("ssh inside IP in IP to another", "", own(ip / ssh, dst=FAR)),
    ("ssh with the ports cut off", "local", own(Raw(b"\x9c\x40\0"), proto=6)),
    ("ssh with its port in the padding", "local", own(Raw(b"\x9c\x40"), proto=6, len=22) / Raw(b"\0\x16" * 20)),
    ("tcp header truncated after the ports", "tcp/22 local", own(Raw(b"\x9c\x40\0\x16"), proto=6)),
    # IPv4 headers
    ("ssh after options", "tcp/22 local", own(ssh, options=[IPOption_NOP(), IPOption_RR(routers=["0.0.0.0"] * 5)])),
    ("ssh after 40 bytes of options", "tcp/22 local", own(ssh, options=[IPOption_NOP()] * 40)),
    ("ssh with a loose source route", "", own(ssh, options=[IPOption_LSRR(routers=[FAR])])),
    ("ssh with a strict source route", "", own(ssh, options=[IPOption_NOP()] * 3 + [IPOption_SSRR(routers=[FAR])])),
    ("ssh with a completed source route", "", own(ssh, options=[IPOption_LSRR(routers=[FAR], pointer=8)])),
    ("ssh after an option without a length", "", options(b"\x01\x01\x01\x07")),
    ("ssh after an option of length 1", "", options(b"\x07\x01\x00\x00")),
    ("ssh after an option of length 0", "", options(b"\x07\x00\x00\x00")),
    ("ssh after an option that is too long", "", options(b"\x07\x05\x00\x00")),
    ("ssh after the end of options and a source route", "tcp/22 local", options(b"\x00\x83\x03\x04")),
    ("ssh with a header length of 16", "", own(ssh, ihl=4)),
    ("ssh with a header length beyond the packet", "", own(ssh, ihl=15)),
    ("ssh with IP version 5", "", own(ssh, version=5)),
    ("ssh with IP version 6 instead of 4", "", own(ssh, version=6)),
    ("ssh with a total length beyond the frame", "", own(ssh, len=1000)),
    ("ssh with a total length of 0", "", own(ssh, len=0)),
    ("ssh with a wrong checksum", "tcp/22 local", own(ssh, chksum=0xDEAD)),
    # IPv6 headers
    ("ssh after hop-by-hop options", "tcp/22 local",
     own6(IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 12)]) / ssh)),
    ("ssh after four kinds of extension headers", "tcp/22 local",
     own6(IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(type=3, segleft=0, nh=51)
          / AH(nh=6, payloadlen=4, icv=b"\0" * 12) / ssh)),
    ("ssh after eight extension headers", "tcp/22 local", chain(8)),
    ("ssh after nine extension headers", "", chain(9)),
    ("ssh after a routing header with segments left", "",
     own6(IPv6ExtHdrRouting(type=0, addresses=[FAR6], segleft=1) / ssh)),
    ("ssh after a routing header without segments left", "tcp/22 local",
     own6(IPv6ExtHdrRouting(type=0, addresses=[FAR6], segleft=0) / ssh)),
    ("ssh after hop-by-hop options in second place", "",
     own6(Raw(bytes(IPv6ExtHdrDestOpt(nh=0)) + bytes(IPv6ExtHdrHopByHop(nh=6)) + bytes(ssh)), nh=60)),
    ("ssh after an extension header that is too long", "", own6(IPv6ExtHdrDestOpt(len=200, nh=6) / ssh)),
    ("ssh after an AH that is too short", "", own6(Raw(b"\x06\0\0\0\0\0\0\0" + bytes(ssh)), nh=51)),
    ("ssh with an IPv6 payload length beyond the frame", "", own6(ssh, plen=1000)),
    ("ssh with an IPv6 payload length of 0", "local", own6(ssh, plen=0)),
    ("jumbogram", "", own6(IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=70000)]) / ssh, plen=0)),
    ("ssh with IP version 4 instead of 6", "", own6(ssh, version=4)),
    ("mobility header", "local", own6(Raw(b"\x3b\0\0\0\0\0\0\0"), nh=135)),
    ("atomic fragment of ssh", "tcp/22 local", own6(IPv6ExtHdrFragment(m=0, offset=0, id=7) / ssh)),
    ("two fragment headers", "",
     own6(Raw(bytes(IPv6ExtHdrFragment(nh=44)) + bytes(IPv6ExtHdrFragment(nh=6)) + bytes(ssh)), nh=44)),
    # VLANs
    ("ssh in VLAN 100", "tcp/22 local vlan/100", eth() / v100 / ip / ssh),
    ("ssh in VLAN 200", "tcp/22 local", eth() / v200 / ip / ssh),
    ("ssh with priority in VLAN 100", "tcp/22 local vlan/100", eth() / Dot1Q(vlan=100, prio=7) / ip / ssh),
    ("transit in VLAN 100", "", eth() / v100 / IP(src=THEM, dst=FAR) / ssh),
    ("udp in VLAN 100", "local vlan/100", eth() / v100 / ip / UDP(dport=9)),
    ("udp in VLAN 100 at another's MAC address", "", eth(OTHER) / v100 / ip / UDP(dport=9)),
    ("broadcast in VLAN 100", "", eth(ALL) / v100 / IP(src=THEM, dst="255.255.255.255") / UDP(dport=9)),
    ("no IP packet, in VLAN 100", "", eth() / Dot1Q(vlan=100, type=0x88B5) / Raw(b"x" * 40)),
    ("service tag 100, customer tag 200", "tcp/22 local vlan/100", eth() / Dot1AD(vlan=100) / v200 / ip / ssh),
    ("service tag 200, customer tag 100", "tcp/22 local", eth() / Dot1AD(vlan=200) / v100 / ip / ssh),
    ("two customer tags", "tcp/22 local vlan/100", eth() / v100 / v200 / ip6 / ssh),
    ("dns in VLAN 100 over IPv6", "udp/53 local vlan/100", eth() / v100 / ip6 / dns),
    ("three tags", "", eth() / v100 / v200 / v100 / ip / ssh),
    ("a tag truncated", "", Raw(bytes(eth() / v100)[:16])),
    # LLDP and spanning tree
    ("lldp to the nearest bridge", "lldp", lldp("01:80:c2:00:00:0e")),
    ("lldp to the nearest customer bridge", "lldp", lldp("01:80:c2:00:00:00")),
    ("lldp to the nearest non-TPMR bridge", "lldp", lldp("01:80:c2:00:00:03")),
    ("EtherType of lldp to another group", "", lldp("01:80:c2:00:00:10")),
    ("EtherType of lldp to all", "", lldp(ALL)),
    ("EtherType of lldp to us", "", lldp(MAC)),
    ("lldp in a VLAN", "", eth("01:80:c2:00:00:0e") / Dot1Q(vlan=100, type=0x88CC) / Raw(b"\x02\x07\x04\x02")),
    ("spanning tree", "stp", bpdu("01:80:c2:00:00:00")),
    ("spanning tree of a provider bridge", "stp", bpdu("01:80:c2:00:00:08")),
    ("spanning tree to us", "", bpdu(MAC)),
    ("another protocol over LLC", "", bpdu("01:80:c2:00:00:00", sap=0xFE)),
    ("spanning tree per VLAN (PVST+)", "",
     Dot3(src=PEER, dst="01:00:0c:cc:cc:cd") / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0xC, code=0x10B)
     / Raw(b"\0" * 36)),
    ("spanning tree truncated", "", Raw(bytes(bpdu("01:80:c2:00:00:00"))[:16])),
    # Others
    ("a pause frame", "", eth("01:80:c2:00:00:01", type=0x8808) / Raw(b"\0\x01\xff\xff")),
    ("lacp", "", eth("01:80:c2:00:00:02", type=0x8809) / Raw(b"\x01\x01")),
    ("mpls to us", "", eth(type=0x8847) / Raw(b"\0\x01\x01\x40") / ip / ssh),
    ("Ethernet header only", "", eth(type=0x0800)),
    ("zeros", "", Raw(b"\0" * 60)),
    ("ones", "", Raw(b"\xff" * 60)),
]

# Fragments: the later ones follow the first.
for index, part in enumerate(fragment(IP(src=THEM, dst=ME, id=77) / UDP(dport=53) / Raw(b"x" * 1200), fragsize=400)):
    rows.append((f"dns, fragment {index}", "udp/53 local", eth() / part))
for index, part in enumerate(fragment6(ip6 / IPv6ExtHdrFragment(id=99) / UDP(dport=53) / Raw(b"x" * 3000), 1280)):
    rows.append((f"dns over IPv6, fragment {index}", "udp/53 local", eth() / part))


for index, part in enumerate(fragment(IP(src=THEM, dst=ME, id=81) / ICMP() / Raw(b"x" * 1200), fragsize=400)):
    rows.append((f"ping, fragment {index}", "icmp local", eth() / part))
options6 = bytes(IPv6ExtHdrDestOpt(nh=17)) + bytes(UDP(sport=40000, dport=53, len=48, chksum=1)) + b"x" * 40
rows += [
    ("dns after options after the fragment header, fragment 0", "udp/53 local",
     own6(IPv6ExtHdrFragment(id=82, m=1, nh=60) / Raw(options6[:32]))),
    ("dns after options after the fragment header, fragment 1", "udp/53 local",
     own6(IPv6ExtHdrFragment(id=82, offset=4, nh=60) / Raw(options6[32:]))),
    ("later fragment with options, of another datagram", "local",
     own6(IPv6ExtHdrFragment(id=83, offset=4, nh=60) / Raw(options6[32:]))),
]


def later(src=THEM, dst=ME, id=77, proto=17):
    return eth() / IP(src=src, dst=dst, id=id, frag=50, proto=proto) / Raw(b"x" * 400)


rows += [
    ("later fragment of another datagram", "local", later(id=78)),
    ("later fragment of another sender", "local", later(src=FAR)),
    ("later fragment of tcp", "local", later(proto=6)),
    ("later fragment in transit", "", later(dst=FAR)),
    ("later fragment to another address of ours", "local", later(dst=ME_LO)),
    ("first fragment without ports", "local", own(Raw(b"\x9c\x40"), id=79, flags="MF", proto=17)),
    ("later fragment of a datagram without ports", "local", later(id=79)),
    ("first fragment to another port", "local", own(UDP(dport=54) / Raw(b"x" * 32), id=80, flags="MF")),
    ("later fragment of a datagram to another port", "local", later(id=80)),
    ("later fragment of another IPv6 datagram", "local", own6(IPv6ExtHdrFragment(id=98, offset=50, nh=17) / Raw(b"x" * 400))),
    ("later fragment of tcp over IPv6", "local", own6(IPv6ExtHdrFragment(id=99, offset=50, nh=6) / Raw(b"x" * 400))),
]

for name, rules, packet in rows:
    print(name, rules, bytes(packet).hex(), sep="\t")
