"""Prints the streams of benches/trex/xdpfwd.py, with scapy and a stub of TRex's classes."""

import json
import sys
import types

from scapy.all import IP, UDP, Ether


class Recorder:
    def __init__(self, **arguments):
        self.__dict__.update(arguments)


api = types.ModuleType("trex_stl_lib.api")
api.Ether, api.IP, api.UDP = Ether, IP, UDP
for name in (
    "STLFlowLatencyStats",
    "STLPktBuilder",
    "STLStream",
    "STLTXCont",
    "STLVmFlowVar",
    "STLVmWrFlowVar",
):
    setattr(api, name, type(name, (Recorder,), {}))
sys.modules["trex_stl_lib"] = types.ModuleType("trex_stl_lib")
sys.modules["trex_stl_lib.api"] = api
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import xdpfwd  # noqa: E402

tunables = json.loads(sys.argv[2])
streams = []
for stream in xdpfwd.register().get_streams(**tunables):
    variables = stream.packet.vm or []
    streams.append(
        {
            "packet": bytes(stream.packet.pkt).hex(),
            "pps": stream.mode.pps,
            "ports": [variables[0].min_value, variables[0].max_value] if variables else None,
            "measures_latency": hasattr(stream, "flow_stats"),
        }
    )
print(json.dumps(streams))
