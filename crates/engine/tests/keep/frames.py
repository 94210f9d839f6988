"""Makes frames with scapy and prints them for root_keep.rs. Each line has three columns, separated by tabs: the name
of the frame, the rules that must keep the frame, and the bytes of the frame in hexadecimal.

In the names, "us" is the host that runs xdpfwd. The interface of the port has the MAC address 02:00:00:00:00:01. The
host has the addresses 192.0.2.1, 10.255.0.1 (on lo), 2001:db8::1 and fe80::1. Another interface of the host has the
address 172.17.0.1. The address 2001:db8::7 is tentative. The host has an interface in VLAN 300. A packet "in transit"
is addressed to another host.
Each of these rules is tested alone: arp nd icmp local lldp stp tcp/22 udp/53 vlan/100.
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

HOST_MAC, NEIGHBOR_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
OTHER_MAC, BROADCAST = "02:00:00:00:00:03", "ff:ff:ff:ff:ff:ff"
HOST, HOST_LO, NEIGHBOR, REMOTE = "192.0.2.1", "10.255.0.1", "192.0.2.2", "198.51.100.9"
HOST6, HOST_LINK_LOCAL, NEIGHBOR6, REMOTE6 = "2001:db8::1", "fe80::1", "2001:db8::2", "2001:db8:ffff::9"
SOLICITED, SOLICITED_MAC = "ff02::1:ff00:1", "33:33:ff:00:00:01"


def eth(dst=HOST_MAC, **fields):
    return Ether(src=NEIGHBOR_MAC, dst=dst, **fields)


def arp(dst=BROADCAST, **fields):
    return eth(dst) / ARP(**{"hwsrc": NEIGHBOR_MAC, "psrc": NEIGHBOR, "pdst": HOST, **fields})


def ipv4(l4, dst=HOST, **fields):
    return eth() / IP(src=NEIGHBOR, dst=dst, **fields) / l4


def ipv6(l4, dst=HOST6, src=NEIGHBOR6, **fields):
    return eth() / IPv6(src=src, dst=dst, **fields) / l4


def nd(message, dst=SOLICITED, src=NEIGHBOR6, mac=SOLICITED_MAC, hlim=255, **fields):
    return eth(mac) / IPv6(src=src, dst=dst, hlim=hlim, **fields) / message


def lldp(dst, **fields):
    return eth(dst, type=0x88CC, **fields) / Raw(b"\x02\x07\x04" + b"\x02" * 6)


def bpdu(dst, sap=0x42):
    return Dot3(src=NEIGHBOR_MAC, dst=dst) / LLC(dsap=sap, ssap=sap, ctrl=3) / STP()


ssh, dns = TCP(sport=40000, dport=22), UDP(sport=40000, dport=53) / Raw(b"?" * 20)
ping, ping6 = ICMP() / Raw(b"x" * 20), ICMPv6EchoRequest(data=b"x" * 20)
tag100, tag200 = Dot1Q(vlan=100), Dot1Q(vlan=200)
ip, ip6 = IP(src=NEIGHBOR, dst=HOST), IPv6(src=NEIGHBOR6, dst=HOST6)


def with_extension_headers(count):
    """Returns an SSH packet with `count` extension headers."""
    middle = b"".join(bytes(IPv6ExtHdrDestOpt(nh=60)) for _ in range(count - 2))
    headers = bytes(IPv6ExtHdrHopByHop(nh=60)) + middle + bytes(IPv6ExtHdrDestOpt(nh=6))
    return ipv6(Raw(headers + bytes(ssh)), nh=0)


def with_options(raw):
    """Returns an SSH packet with these four bytes as its IPv4 options."""
    return ipv4(ssh, ihl=6, options=[Raw(raw)])


# The rows of the output: frame name, rules that must keep the frame, and the frame.
rows = [
    # ARP
    ("arp request for us", "arp", arp()),
    ("arp request for an address on lo", "arp", arp(pdst=HOST_LO)),
    ("arp reply to us", "arp", arp(HOST_MAC, op=2, hwdst=HOST_MAC)),
    ("arp probe for our address", "arp", arp(psrc="0.0.0.0")),
    ("arp request for us, padded", "arp", arp() / Raw(b"\0" * 18)),
    ("arp request in transit", "", arp(pdst=REMOTE)),
    ("arp request from our address for another host", "", arp(psrc=HOST, pdst=REMOTE)),
    ("gratuitous arp of another host", "", arp(pdst=NEIGHBOR)),
    ("arp reply to us to another host's MAC address", "", arp(OTHER_MAC, op=2, hwdst=HOST_MAC)),
    ("arp with another hardware type", "", arp(hwtype=6)),
    ("arp for a protocol other than IPv4", "", arp(ptype=0x86DD, plen=4)),
    ("arp with long protocol addresses", "", eth() / Raw(bytes.fromhex("0001080006100001") + bytes(52))),
    ("arp with long hardware addresses", "", eth() / Raw(bytes.fromhex("0001080008040001") + bytes(52))),
    ("truncated arp request", "", Raw(bytes(arp())[:41])),
    ("arp request for our address on another interface", "", arp(pdst="172.17.0.1")),
    ("arp request for us in VLAN 300, in which we have an interface", "arp",
     eth(BROADCAST) / Dot1Q(vlan=300) / ARP(hwsrc=NEIGHBOR_MAC, psrc=NEIGHBOR, pdst=HOST)),
    ("arp request for us in VLAN 7, in which we have no interface", "",
     eth(BROADCAST) / Dot1Q(vlan=7) / ARP(hwsrc=NEIGHBOR_MAC, psrc=NEIGHBOR, pdst=HOST)),
    ("arp request for us with a priority tag (VLAN 0)", "arp",
     eth(BROADCAST) / Dot1Q(vlan=0, prio=5) / ARP(hwsrc=NEIGHBOR_MAC, psrc=NEIGHBOR, pdst=HOST)),
    ("arp request for us with a priority tag in VLAN 300, in which we have an interface", "arp",
     eth(BROADCAST) / Dot1Q(vlan=0) / Dot1Q(vlan=300) / ARP(hwsrc=NEIGHBOR_MAC, psrc=NEIGHBOR, pdst=HOST)),
    ("arp request for us with a priority tag in VLAN 200", "",
     eth(BROADCAST) / Dot1Q(vlan=0) / tag200 / ARP(hwsrc=NEIGHBOR_MAC, psrc=NEIGHBOR, pdst=HOST)),
    ("arp reply to us in VLAN 7", "arp",
     eth() / Dot1Q(vlan=7) / ARP(op=2, hwsrc=NEIGHBOR_MAC, psrc=NEIGHBOR, pdst=HOST)),
    ("arp request for us in VLAN 100", "vlan/100",
     eth(BROADCAST) / tag100 / ARP(hwsrc=NEIGHBOR_MAC, psrc=NEIGHBOR, pdst=HOST)),
    ("arp request in transit in VLAN 100", "",
     eth(BROADCAST) / tag100 / ARP(hwsrc=NEIGHBOR_MAC, psrc=NEIGHBOR, pdst=REMOTE)),
    # Neighbor Discovery. A "solicitation" or "advertisement" without "router" is a neighbor solicitation or neighbor
    # advertisement.
    ("solicitation of us", "nd", nd(ICMPv6ND_NS(tgt=HOST6))),
    ("solicitation of our link-local address", "nd", nd(ICMPv6ND_NS(tgt=HOST_LINK_LOCAL))),
    ("solicitation of us, unicast", "nd icmp local", nd(ICMPv6ND_NS(tgt=HOST6), dst=HOST6, mac=HOST_MAC)),
    ("duplicate address detection of our address", "nd", nd(ICMPv6ND_NS(tgt=HOST6), src="::")),
    ("solicitation of another host in the same multicast group", "", nd(ICMPv6ND_NS(tgt="2001:db8:0:7::1"))),
    ("solicitation in transit", "", nd(ICMPv6ND_NS(tgt=REMOTE6), dst="ff02::1:ff00:9", mac="33:33:ff:00:00:09")),
    ("solicitation of us with a hop limit of 254", "", nd(ICMPv6ND_NS(tgt=HOST6), hlim=254)),
    ("solicitation of us to the address of another host", "", nd(ICMPv6ND_NS(tgt=HOST6), dst=REMOTE6, mac=HOST_MAC)),
    ("solicitation of us with ICMPv6 code 1", "", nd(ICMPv6ND_NS(tgt=HOST6, code=1))),
    ("solicitation of us without its target", "", Raw(bytes(nd(ICMPv6ND_NS(tgt=HOST6)))[:74])),
    ("solicitation whose target is beyond the payload", "", nd(ICMPv6ND_NS(tgt=HOST6), plen=20)),
    ("advertisement to us", "nd icmp local", nd(ICMPv6ND_NA(tgt=NEIGHBOR6), dst=HOST6, mac=HOST_MAC)),
    ("advertisement of our address to all nodes", "nd",
     nd(ICMPv6ND_NA(tgt=HOST6), dst="ff02::1", mac="33:33:00:00:00:01")),
    ("advertisement of another host to all nodes", "",
     nd(ICMPv6ND_NA(tgt=NEIGHBOR6), dst="ff02::1", mac="33:33:00:00:00:01")),
    ("router advertisement to all nodes", "", nd(ICMPv6ND_RA(), src="fe80::2", dst="ff02::1", mac="33:33:00:00:00:01")),
    ("router advertisement to us", "nd icmp local",
     nd(ICMPv6ND_RA(), src="fe80::2", dst=HOST_LINK_LOCAL, mac=HOST_MAC)),
    ("router solicitation to all routers", "",
     nd(ICMPv6ND_RS(), src="fe80::2", dst="ff02::2", mac="33:33:00:00:00:02")),
    ("router solicitation to us", "nd icmp local",
     nd(ICMPv6ND_RS(), src="fe80::2", dst=HOST_LINK_LOCAL, mac=HOST_MAC)),
    ("redirect to us", "nd icmp local",
     nd(ICMPv6ND_Redirect(tgt=NEIGHBOR6, dst=REMOTE6), src="fe80::2", dst=HOST6, mac=HOST_MAC)),
    ("redirect to another host", "",
     nd(ICMPv6ND_Redirect(tgt=HOST6, dst=HOST6), src="fe80::2", dst=REMOTE6, mac=HOST_MAC)),
    ("solicitation of our tentative address", "nd", nd(ICMPv6ND_NS(tgt="2001:db8::7"), src="::")),
    ("ping6 of our tentative address", "", ipv6(ping6, dst="2001:db8::7")),
    ("solicitation of us in VLAN 100", "vlan/100",
     eth(SOLICITED_MAC) / tag100 / IPv6(src=NEIGHBOR6, dst=SOLICITED, hlim=255) / ICMPv6ND_NS(tgt=HOST6)),
    ("solicitation of another host in VLAN 100", "",
     eth(SOLICITED_MAC) / tag100 / IPv6(src=NEIGHBOR6, dst=SOLICITED, hlim=255) / ICMPv6ND_NS(tgt=REMOTE6)),
    ("fragmented solicitation of us", "",
     nd(IPv6ExtHdrFragment(id=5, m=1, nh=58) / Raw(bytes(ICMPv6ND_NS(tgt=HOST6))))),
    ("multicast listener report", "",
     eth("33:33:00:00:00:16") / IPv6(src="fe80::2", dst="ff02::16", hlim=1)
     / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / ICMPv6MLReport2()),
    # ICMP
    ("ping", "icmp local", ipv4(ping)),
    ("ping of an address on lo", "icmp local", ipv4(ping, dst=HOST_LO)),
    ("ping of us to the broadcast MAC address", "icmp local", eth(BROADCAST) / ip / ping),
    ("echo reply", "icmp local", ipv4(ICMP(type=0))),
    ("port unreachable about our packet", "icmp local",
     ipv4(ICMP(type=3, code=3) / IP(src=HOST, dst=NEIGHBOR) / UDP())),
    ("ping in transit", "", ipv4(ping, dst=REMOTE)),
    ("ping from our address", "", eth() / IP(src=HOST, dst=REMOTE) / ping),
    ("ping of us to another host's MAC address", "", eth(OTHER_MAC) / ip / ping),
    ("ping of the broadcast address", "", eth(BROADCAST) / IP(src=NEIGHBOR, dst="255.255.255.255") / ping),
    ("ping of the subnet's broadcast address", "", eth(BROADCAST) / IP(src=NEIGHBOR, dst="192.0.2.255") / ping),
    ("ping of a multicast group", "", eth("01:00:5e:00:00:01") / IP(src=NEIGHBOR, dst="224.0.0.1") / ping),
    ("ping of localhost", "", ipv4(ping, dst="127.0.0.1")),
    ("ping6", "icmp local", ipv6(ping6)),
    ("ping6 in transit", "", ipv6(ping6, dst=REMOTE6)),
    ("ping6 of all nodes", "", eth("33:33:00:00:00:01") / IPv6(src=NEIGHBOR6, dst="ff02::1") / ping6),
    ("destination unreachable about our packet", "icmp local",
     ipv6(ICMPv6DestUnreach() / IPv6(src=HOST6, dst=NEIGHBOR6) / UDP())),
    ("ICMPv6 over IPv4", "local", ipv4(Raw(b"\x80\0\0\0\0\0\0\0"), proto=58)),
    ("ICMP over IPv6", "local", ipv6(Raw(b"\x08\0\0\0\0\0\0\0"), nh=1)),
    ("ping, later fragment without a first fragment", "local", ipv4(Raw(b"x" * 32), proto=1, frag=4)),
    ("ping6, later fragment without a first fragment", "local",
     ipv6(IPv6ExtHdrFragment(id=6, offset=50, nh=58) / Raw(b"x" * 40))),
    # TCP and UDP
    ("ssh", "tcp/22 local", ipv4(ssh)),
    ("ssh over IPv6", "tcp/22 local", ipv6(ssh)),
    ("ssh to our link-local address", "tcp/22 local", ipv6(ssh, dst=HOST_LINK_LOCAL, src="fe80::2")),
    ("ssh to the link-local address of another host", "", ipv6(ssh, dst="fe80::9", src="fe80::2")),
    ("ssh to our address on another interface", "tcp/22 local", ipv4(ssh, dst="172.17.0.1")),
    ("ssh in transit", "", ipv4(ssh, dst=REMOTE)),
    ("ssh over IPv6 in transit", "", ipv6(ssh, dst=REMOTE6)),
    ("ssh from our address in transit", "", eth() / IP(src=HOST, dst=REMOTE) / ssh),
    ("ssh to another host's MAC address", "", eth(OTHER_MAC) / ip / ssh),
    ("tcp from port 22", "local", ipv4(TCP(sport=22, dport=40000))),
    ("tcp to port 53", "local", ipv4(TCP(dport=53))),
    ("udp to port 22", "local", ipv4(UDP(dport=22))),
    ("tcp to port 22 + 256", "local", ipv4(TCP(dport=278))),
    ("tcp to port 22 * 256", "local", ipv4(TCP(dport=22 << 8))),
    ("dns", "udp/53 local", ipv4(dns)),
    ("dns over IPv6", "udp/53 local", ipv6(dns)),
    ("dns in transit", "", ipv4(dns, dst=REMOTE)),
    ("dhcp broadcast", "", eth(BROADCAST) / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67)),
    ("sctp to port 22", "local", ipv4(SCTP(dport=22))),
    ("gre", "local", ipv4(GRE() / IP(src=NEIGHBOR, dst=REMOTE) / ssh)),
    ("ssh to us in an IP-in-IP tunnel to another host", "", ipv4(ip / ssh, dst=REMOTE)),
    ("tcp header truncated within the ports", "local", ipv4(Raw(b"\x9c\x40\0"), proto=6)),
    ("tcp header whose destination port is beyond the IP packet", "local",
     ipv4(Raw(b"\x9c\x40"), proto=6, len=22) / Raw(b"\0\x16" * 20)),
    ("tcp header truncated after the ports", "tcp/22 local", ipv4(Raw(b"\x9c\x40\0\x16"), proto=6)),
    # IPv4 headers
    ("ssh with IPv4 options", "tcp/22 local",
     ipv4(ssh, options=[IPOption_NOP(), IPOption_RR(routers=["0.0.0.0"] * 5)])),
    ("ssh with 40 bytes of IPv4 options", "tcp/22 local", ipv4(ssh, options=[IPOption_NOP()] * 40)),
    ("ssh with a loose source route", "", ipv4(ssh, options=[IPOption_LSRR(routers=[REMOTE])])),
    ("ssh with a strict source route", "", ipv4(ssh, options=[IPOption_NOP()] * 3 + [IPOption_SSRR(routers=[REMOTE])])),
    ("ssh with a completed source route", "", ipv4(ssh, options=[IPOption_LSRR(routers=[REMOTE], pointer=8)])),
    ("ssh with an IPv4 option without a length", "", with_options(b"\x01\x01\x01\x07")),
    ("ssh with an IPv4 option of length 1", "", with_options(b"\x07\x01\x00\x00")),
    ("ssh with an IPv4 option of length 0", "", with_options(b"\x07\x00\x00\x00")),
    ("ssh with an IPv4 option that is longer than the header", "", with_options(b"\x07\x05\x00\x00")),
    ("ssh with a source route after the end of options", "tcp/22 local", with_options(b"\x00\x83\x03\x04")),
    ("ssh with a header length of 16", "", ipv4(ssh, ihl=4)),
    ("ssh with a header length beyond the packet", "", ipv4(ssh, ihl=15)),
    ("ssh with IP version 5", "", ipv4(ssh, version=5)),
    ("ssh with IP version 6 instead of 4", "", ipv4(ssh, version=6)),
    ("ssh with a total length beyond the frame", "", ipv4(ssh, len=1000)),
    ("ssh with a total length of 0", "", ipv4(ssh, len=0)),
    ("ssh with an invalid IPv4 checksum", "tcp/22 local", ipv4(ssh, chksum=0xDEAD)),
    # IPv6 headers
    ("ssh after hop-by-hop options", "tcp/22 local",
     ipv6(IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 12)]) / ssh)),
    ("ssh after four kinds of extension headers", "tcp/22 local",
     ipv6(IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(type=3, segleft=0, nh=51)
          / AH(nh=6, payloadlen=4, icv=b"\0" * 12) / ssh)),
    ("ssh after eight extension headers", "tcp/22 local", with_extension_headers(8)),
    ("ssh after nine extension headers", "", with_extension_headers(9)),
    ("ssh after a routing header with segments left", "",
     ipv6(IPv6ExtHdrRouting(type=0, addresses=[REMOTE6], segleft=1) / ssh)),
    ("ssh after a routing header without segments left", "tcp/22 local",
     ipv6(IPv6ExtHdrRouting(type=0, addresses=[REMOTE6], segleft=0) / ssh)),
    ("ssh with hop-by-hop options that are not the first header", "",
     ipv6(Raw(bytes(IPv6ExtHdrDestOpt(nh=0)) + bytes(IPv6ExtHdrHopByHop(nh=6)) + bytes(ssh)), nh=60)),
    ("ssh with an extension header that is longer than the packet", "", ipv6(IPv6ExtHdrDestOpt(len=200, nh=6) / ssh)),
    ("ssh with an AH that is too short", "", ipv6(Raw(b"\x06\0\0\0\0\0\0\0" + bytes(ssh)), nh=51)),
    ("ssh with an IPv6 payload length beyond the frame", "", ipv6(ssh, plen=1000)),
    ("ssh with an IPv6 payload length of 0", "local", ipv6(ssh, plen=0)),
    ("jumbogram", "", ipv6(IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=70000)]) / ssh, plen=0)),
    ("ssh with IP version 4 instead of 6", "", ipv6(ssh, version=4)),
    ("mobility header", "local", ipv6(Raw(b"\x3b\0\0\0\0\0\0\0"), nh=135)),
    ("ssh after a mobility header", "tcp/22 local", ipv6(Raw(b"\x06\0\0\0\0\0\0\0" + bytes(ssh)), nh=135)),
    ("ssh after HIP", "tcp/22 local", ipv6(Raw(b"\x06\0\0\0\0\0\0\0" + bytes(ssh)), nh=139)),
    ("ssh after shim6", "tcp/22 local", ipv6(Raw(b"\x06\1" + bytes(14) + bytes(ssh)), nh=140)),
    ("atomic fragment of ssh", "tcp/22 local", ipv6(IPv6ExtHdrFragment(m=0, offset=0, id=7) / ssh)),
    ("two fragment headers", "",
     ipv6(Raw(bytes(IPv6ExtHdrFragment(nh=44)) + bytes(IPv6ExtHdrFragment(nh=6)) + bytes(ssh)), nh=44)),
    # VLANs
    ("ssh in VLAN 100", "tcp/22 local vlan/100", eth() / tag100 / ip / ssh),
    ("ssh in VLAN 200", "tcp/22 local", eth() / tag200 / ip / ssh),
    ("ssh with priority in VLAN 100", "tcp/22 local vlan/100", eth() / Dot1Q(vlan=100, prio=7) / ip / ssh),
    ("ssh with a priority tag in VLAN 100", "tcp/22 local vlan/100", eth() / Dot1Q(vlan=0) / tag100 / ip / ssh),
    ("ssh in VLAN 100, then a priority tag", "tcp/22 local vlan/100", eth() / tag100 / Dot1Q(vlan=0) / ip / ssh),
    ("ssh in VLAN 100 of tag type 0x9100", "tcp/22 local vlan/100", eth(type=0x9100) / tag100 / ip / ssh),
    ("ssh in VLAN 100 of tag type 0x9200", "tcp/22 local vlan/100", eth(type=0x9200) / tag100 / ip / ssh),
    ("ssh in VLAN 100 of tag type 0x9300", "tcp/22 local vlan/100", eth(type=0x9300) / tag100 / ip / ssh),
    ("tag types 0x9100 and 0x9300", "tcp/22 local", eth(type=0x9100) / Dot1Q(vlan=200, type=0x9300) / tag100 / ip / ssh),
    ("ssh in transit in VLAN 100", "", eth() / tag100 / IP(src=NEIGHBOR, dst=REMOTE) / ssh),
    ("udp in VLAN 100", "local vlan/100", eth() / tag100 / ip / UDP(dport=9)),
    ("udp in VLAN 100 to another host's MAC address", "", eth(OTHER_MAC) / tag100 / ip / UDP(dport=9)),
    ("broadcast in VLAN 100", "", eth(BROADCAST) / tag100 / IP(src=NEIGHBOR, dst="255.255.255.255") / UDP(dport=9)),
    ("EtherType other than ARP and IP in VLAN 100", "", eth() / Dot1Q(vlan=100, type=0x88B5) / Raw(b"x" * 40)),
    ("service tag 100, customer tag 200", "tcp/22 local vlan/100", eth() / Dot1AD(vlan=100) / tag200 / ip / ssh),
    ("service tag 200, customer tag 100", "tcp/22 local", eth() / Dot1AD(vlan=200) / tag100 / ip / ssh),
    ("two customer tags", "tcp/22 local vlan/100", eth() / tag100 / tag200 / ip6 / ssh),
    ("dns in VLAN 100 over IPv6", "udp/53 local vlan/100", eth() / tag100 / ip6 / dns),
    ("three VLAN tags", "", eth() / tag100 / tag200 / tag100 / ip / ssh),
    ("truncated VLAN tag", "", Raw(bytes(eth() / tag100)[:16])),
    # LLDP and spanning tree
    ("lldp to the nearest bridge", "lldp", lldp("01:80:c2:00:00:0e")),
    ("lldp to the nearest customer bridge", "lldp", lldp("01:80:c2:00:00:00")),
    ("lldp to the nearest non-TPMR bridge", "lldp", lldp("01:80:c2:00:00:03")),
    ("lldp to a multicast address whose frames bridges forward", "", lldp("01:80:c2:00:00:10")),
    ("lldp to the broadcast address", "", lldp(BROADCAST)),
    ("lldp to us", "", lldp(HOST_MAC)),
    ("lldp in a VLAN", "", eth("01:80:c2:00:00:0e") / Dot1Q(vlan=100, type=0x88CC) / Raw(b"\x02\x07\x04\x02")),
    ("spanning tree", "stp", bpdu("01:80:c2:00:00:00")),
    ("spanning tree of a provider bridge", "stp", bpdu("01:80:c2:00:00:08")),
    ("spanning tree to us", "", bpdu(HOST_MAC)),
    ("LLC protocol other than spanning tree", "", bpdu("01:80:c2:00:00:00", sap=0xFE)),
    ("spanning tree per VLAN (PVST+)", "",
     Dot3(src=NEIGHBOR_MAC, dst="01:00:0c:cc:cc:cd") / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0xC, code=0x10B)
     / Raw(b"\0" * 36)),
    ("truncated spanning tree frame", "", Raw(bytes(bpdu("01:80:c2:00:00:00"))[:16])),
    # Other frames
    ("pause frame", "", eth("01:80:c2:00:00:01", type=0x8808) / Raw(b"\0\x01\xff\xff")),
    ("lacp", "", eth("01:80:c2:00:00:02", type=0x8809) / Raw(b"\x01\x01")),
    ("mpls to us", "", eth(type=0x8847) / Raw(b"\0\x01\x01\x40") / ip / ssh),
    ("Ethernet header only", "", eth(type=0x0800)),
    ("all bits clear", "", Raw(b"\0" * 60)),
    ("all bits set", "", Raw(b"\xff" * 60)),
]

# Fragments of several datagrams. Their order matters: by the rules icmp, tcp and udp, the XDP program keeps a later
# fragment only after the first fragment of the same datagram.
dns_datagram = IP(src=NEIGHBOR, dst=HOST, id=77) / UDP(dport=53) / Raw(b"x" * 1200)
for index, part in enumerate(fragment(dns_datagram, fragsize=400)):
    rows.append((f"dns, fragment {index}", "udp/53 local", eth() / part))
for index, part in enumerate(fragment6(ip6 / IPv6ExtHdrFragment(id=99) / UDP(dport=53) / Raw(b"x" * 3000), 1280)):
    rows.append((f"dns over IPv6, fragment {index}", "udp/53 local", eth() / part))
for index, part in enumerate(fragment(IP(src=NEIGHBOR, dst=HOST, id=81) / ICMP() / Raw(b"x" * 1200), fragsize=400)):
    rows.append((f"ping, fragment {index}", "icmp local", eth() / part))
options_and_dns = bytes(IPv6ExtHdrDestOpt(nh=17)) + bytes(UDP(sport=40000, dport=53, len=48, chksum=1)) + b"x" * 40
rows += [
    ("dns with destination options after the fragment header, fragment 0", "udp/53 local",
     ipv6(IPv6ExtHdrFragment(id=82, m=1, nh=60) / Raw(options_and_dns[:32]))),
    ("dns with destination options after the fragment header, fragment 1", "udp/53 local",
     ipv6(IPv6ExtHdrFragment(id=82, offset=4, nh=60) / Raw(options_and_dns[32:]))),
    ("later fragment with destination options, without a first fragment", "local",
     ipv6(IPv6ExtHdrFragment(id=83, offset=4, nh=60) / Raw(options_and_dns[32:]))),
]


# The default ID is that of `dns_datagram`.
def later_fragment(src=NEIGHBOR, dst=HOST, id=77, proto=17):
    return eth() / IP(src=src, dst=dst, id=id, frag=50, proto=proto) / Raw(b"x" * 400)


rows += [
    ("later fragment of another datagram", "local", later_fragment(id=78)),
    ("later fragment from another sender", "local", later_fragment(src=REMOTE)),
    ("later fragment of tcp", "local", later_fragment(proto=6)),
    ("later fragment in transit", "", later_fragment(dst=REMOTE)),
    ("later fragment to another of our addresses", "local", later_fragment(dst=HOST_LO)),
    ("first fragment without destination port", "local", ipv4(Raw(b"\x9c\x40"), id=79, flags="MF", proto=17)),
    ("later fragment of a datagram whose first fragment lacks the destination port", "local", later_fragment(id=79)),
    ("first fragment to another port", "local", ipv4(UDP(dport=54) / Raw(b"x" * 32), id=80, flags="MF")),
    ("later fragment of a datagram to another port", "local", later_fragment(id=80)),
    ("later fragment of another IPv6 datagram", "local",
     ipv6(IPv6ExtHdrFragment(id=98, offset=50, nh=17) / Raw(b"x" * 400))),
    ("later fragment of tcp over IPv6", "local", ipv6(IPv6ExtHdrFragment(id=99, offset=50, nh=6) / Raw(b"x" * 400))),
]

for name, rules, packet in rows:
    print(name, rules, bytes(packet).hex(), sep="\t")
