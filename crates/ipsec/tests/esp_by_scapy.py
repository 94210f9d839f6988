"""Encapsulates and decapsulates ESP packets with scapy. Each packet is one line of fields:
transform, key, salt, spi, extended, high, low, packet (with ESP), inner packet. `high` and `low` are
the halves of the sequence number. Keys, salts and packets are hexadecimal; all numbers are decimal.

`seal`: prints lines with packets that scapy encapsulates.
`open`: reads such lines and decapsulates the packets. Fails at the first packet whose content differs
from the inner packet; otherwise prints the number of packets.
"""
import sys

from scapy.all import ESP, IP, UDP, IPv6, Raw, raw
from scapy.layers.ipsec import SecurityAssociation

ALGORITHMS = {"aes-128-gcm": ("AES-GCM", 16), "aes-256-gcm": ("AES-GCM", 32), "chacha20-poly1305": ("CHACHA20-POLY1305", 32)}
SALT = bytes([1, 2, 3, 4])


def association(name, key, spi, extended, high):
    algorithm, _ = ALGORITHMS[name]
    return SecurityAssociation(ESP, spi=spi, crypt_algo=algorithm, crypt_key=key + SALT, esn_en=extended, esn=high)


def inner(v6, size):
    ip = IPv6(src="2001:db8::1", dst="2001:db8::2") if v6 else IP(src="192.0.2.1", dst="192.0.2.2", id=7)
    return ip / UDP(sport=1000, dport=2000) / Raw(bytes(range(256))[:size])


def seal():
    for name, (_, length) in ALGORITHMS.items():
        # scapy cannot use 0 as the lower half of a sequence number.
        for extended, high, low in [(False, 0, 1), (False, 0, 77), (True, 0, 5), (True, 3, 9)]:
            for v6 in (False, True):
                for size in (0, 1, 2, 3, 100):
                    key = bytes(range(7, 7 + length))
                    sa = association(name, key, 0x12345678, extended, high)
                    packet = sa.encrypt(inner(v6, size), seq_num=low, esn_en=extended, esn=high)
                    print(name, key.hex(), SALT.hex(), 0x12345678, int(extended), high, low, raw(packet).hex(), raw(inner(v6, size)).hex())


def open_all():
    count = 0
    for line in sys.stdin:
        name, key, _, spi, extended, high, _, packet, expected = line.split()
        v6 = packet[0] == "6"
        packet = (IPv6 if v6 else IP)(bytes.fromhex(packet))
        opened = association(name, bytes.fromhex(key), int(spi), extended == "1", int(high)).decrypt(packet)
        # Compare only the payloads of IP, because scapy recomputes fields of the IP headers.
        got, expected = raw(opened.payload), raw((IPv6 if v6 else IP)(bytes.fromhex(expected)).payload)
        assert got == expected, f"{name} {extended} {high}: decapsulated {got.hex()}, expected {expected.hex()}"
        count += 1
    print(count)


{"seal": seal, "open": open_all}[sys.argv[1]]()
