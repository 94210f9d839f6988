"""Computes the accounts of the kernel ledger from the output of `perf script`.

Usage: perf script -F comm,pid,tid,cpu,time,event,ip,sym | kernel_ledger_from_perf.py CORE

Independent of xdpfwd: implements the definitions of docs/report.md with rules of its own, for a
worker named "worker-0" on CORE whose ports are veths. Prints a JSON object: for each account its
share of the samples of CORE in percent, and the number of samples.
"""

import json
import re
import sys

HEAD = re.compile(r"^\s*(?P<comm>.+?)\s+(?P<pid>\d+)(?:/(?P<tid>\d+))?\s+\[(?P<cpu>\d+)\]")


def account(comm, tid, kernel):
    """Returns the account of a sample on the worker's core. `kernel`: functions, innermost first."""
    softirq = max((i for i, f in enumerate(kernel) if "softirq" in f and "do_softirq" not in f), default=-1)
    is_worker = comm.startswith("worker-")
    if softirq >= 0:
        work, rest = kernel[: softirq + 1], kernel[softirq + 1 :]
        in_system_call = any(f.startswith(("do_syscall", "entry_SYSCALL")) for f in rest)
        interrupted = any("sysvec" in f or "common_interrupt" in f for f in rest)
        receives = any(
            f.startswith(("__xsk_rcv", "xsk_rcv", "xsk_generic_rcv", "xdp_do_redirect", "packet_rcv"))
            or f.endswith("_xdpfwd")
            for f in work
        )
        far = is_worker and in_system_call and not receives and not interrupted
        return "far_end" if far else "softirq"
    if is_worker:
        return "system_call" if kernel else "user"
    return "idle" if tid == 0 else "other"


def main():
    core = int(sys.argv[1])
    counts = dict.fromkeys(["user", "system_call", "softirq", "far_end", "idle", "other"], 0)
    head, kernel = None, []
    for line in [*sys.stdin, "\n"]:
        if line.strip() and head is None:
            head, kernel = HEAD.match(line), []
        elif line.strip():
            address, function = (line.split(maxsplit=1) + [""])[:2]
            if len(address) == 16 and address.startswith("ffff"):
                kernel.append(function.strip())
        elif head is not None:
            if int(head["cpu"]) == core:
                tid = int(head["tid"] or head["pid"])
                counts[account(head["comm"], tid, kernel)] += 1
            head = None
    total = sum(counts.values())
    print(json.dumps({"samples": total, "shares": {k: 100 * v / max(total, 1) for k, v in counts.items()}}))


if __name__ == "__main__":
    main()
