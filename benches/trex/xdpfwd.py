"""TRex profile with the traffic of the lab's generator, for TRex's stateless mode.

docs/line-rate.md gives the commands. Tunables:

size   frame length on the wire, in bytes with FCS, or "imix"  [64]
flows  number of flows (UDP source ports from 1024)            [1000]
src, dst   IPv4 addresses                                      [10.77.0.1, 10.77.0.2]
latency    packets per second of a stream that measures latency, 0 for none  [0]
"""

from trex_stl_lib.api import *

FCS = 4
FIRST_FLOW_PORT = 1024
DISCARD_PORT = 9
# Frame lengths on the wire, and how many of twelve frames have them.
IMIX = ((64, 7), (594, 4), (1518, 1))
LATENCY_ID = 7


class XdpfwdProfile(object):
    def get_streams(
        self, direction=0, size=64, flows=1000, src="10.77.0.1", dst="10.77.0.2", latency=0, **kwargs
    ):
        if direction == 1:
            src, dst = dst, src
        lengths = IMIX if size == "imix" else ((int(size), 1),)
        streams = [
            STLStream(
                packet=self.packet(length, int(flows), src, dst),
                mode=STLTXCont(pps=weight),
            )
            for length, weight in lengths
        ]
        if int(latency) > 0:
            streams.append(
                STLStream(
                    # One flow: TRex expects the packets of this stream in order.
                    packet=self.packet(lengths[0][0], 1, src, dst),
                    mode=STLTXCont(pps=int(latency)),
                    flow_stats=STLFlowLatencyStats(pg_id=LATENCY_ID + direction),
                )
            )
        return streams

    def packet(self, length, flows, src, dst):
        header = (
            Ether()
            / IP(src=src, dst=dst)
            / UDP(sport=FIRST_FLOW_PORT, dport=DISCARD_PORT, chksum=0)
        )
        padding = "x" * max(0, length - FCS - len(header))
        ports = [
            STLVmFlowVar(
                name="port",
                min_value=FIRST_FLOW_PORT,
                max_value=FIRST_FLOW_PORT + flows - 1,
                size=2,
                op="inc",
            ),
            STLVmWrFlowVar(fv_name="port", pkt_offset="UDP.sport"),
        ]
        return STLPktBuilder(pkt=header / padding, vm=ports if flows > 1 else None)


def register():
    return XdpfwdProfile()
