"""Frames as they are: `frames.py send IF` sends those on its stdin, a line of hex each; `frames.py receive IF SECONDS` prints
those that come in, after a line "ready", until none has come for so long."""

import socket
import struct
import sys

ETH_P_ALL, SOL_PACKET, PACKET_AUXDATA, VLAN_VALID = 3, 263, 8, 1 << 4
OUTGOING = 4


def send(interface):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((interface, 0))
        for line in sys.stdin:
            out.send(bytes.fromhex(line))


def receive(interface, seconds):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as source:
        source.bind((interface, ETH_P_ALL))
        source.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        print("ready", flush=True)
        source.settimeout(60)
        while True:
            try:
                frame, extra, _, address = source.recvmsg(65536, 256)
            except TimeoutError:
                return
            source.settimeout(seconds)
            if address[2] == OUTGOING:
                continue
            # The kernel has taken the outermost VLAN tag off.
            for _, _, auxiliary in extra:
                status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", auxiliary)
                if status & VLAN_VALID:
                    frame = frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
            print(frame.hex(), flush=True)


if sys.argv[1] == "send":
    send(sys.argv[2])
else:
    receive(sys.argv[2], float(sys.argv[3]))
