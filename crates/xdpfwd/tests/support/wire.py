"""Sends frames on an interface of one network namespace and prints those that arrive in another.

Arguments: FROM_NAMESPACE FROM_INTERFACE TO_NAMESPACE TO_INTERFACE. Reads frames in hexadecimal
from stdin, one per line. Writes the received frames to stdout in the same form, in order.

After every WINDOW frames, sends a mark (a frame of 60 bytes) and waits until it arrives. Nothing
reorders packets, so a frame that has not arrived before the mark was dropped. No queue holds more
than one window of frames and its mark.
"""

import ctypes
import os
import socket
import struct
import sys

WINDOW = 32
MARK = bytes.fromhex("88b6") + b"mark"  # an EtherType for experiments, then text
TIMEOUT = 30  # seconds until a mark must arrive; normally it takes far less

SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING, SO_RCVBUFFORCE, ETH_P_ALL = 263, 8, 23, 33, 3
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6


def packet_socket(namespace, interface):
    """Moves the process to a network namespace, and returns an unbound packet socket in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}") as file:
        if libc.setns(file.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace)
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)


def open_both(from_namespace, from_interface, to_namespace, to_interface):
    """Returns bound sockets for sending and for receiving."""
    sender = packet_socket(from_namespace, from_interface)
    sender.bind((from_interface, 0))
    receiver = packet_socket(to_namespace, to_interface)
    receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
    receiver.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    receiver.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    receiver.bind((to_interface, ETH_P_ALL))
    receiver.settimeout(TIMEOUT)
    return sender, receiver


def receive(receiver):
    """Returns the next frame. If the kernel has removed its VLAN tag, inserts the tag again.

    See packet(7), PACKET_AUXDATA.
    """
    frame, ancillary, _, _ = receiver.recvmsg(65536, socket.CMSG_SPACE(20))
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", data[:20])
            if status & TP_STATUS_VLAN_VALID:
                tpid = tpid if status & TP_STATUS_VLAN_TPID_VALID else 0x8100
                frame = frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
    return frame


def main():
    sender, receiver = open_both(*sys.argv[1:])
    frames = [bytes.fromhex(line) for line in sys.stdin.read().split()]
    arrived = []
    for start in range(0, len(frames), WINDOW):
        for frame in frames[start : start + WINDOW]:
            try:
                sender.send(frame)
            except OSError as error:
                sys.exit(f"cannot send {len(frame)} bytes: {error}")
        mark = MARK + struct.pack("!I", start)
        sender.send((b"\2\0\0\0\0\4\2\0\0\0\0\1" + mark).ljust(60, b"\0"))
        while True:
            try:
                frame = receive(receiver)
            except TimeoutError:
                sent = min(start + WINDOW, len(frames))
                sys.exit(
                    f"the mark after frame {sent} of {len(frames)} did not arrive within {TIMEOUT} s"
                )
            # A stage may have changed the MAC addresses, and the sender may have added a VLAN tag.
            if frame.startswith(mark, 12) or frame.startswith(mark, 16):
                break
            arrived.append(frame)
    sys.stdout.writelines(frame.hex() + "\n" for frame in arrived)


main()
