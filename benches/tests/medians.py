"""Computes figures of a report from runs.csv in the folder of the first argument.

Prints the medians, one cell per line, formatted as in the matrix of `xdpfwd-bench report`:

    row column size Mpps cycles

With the rate of the time-stamp counter as second argument, prints the answers to the five questions
of the report instead, one per line. Paths have their identifiers.
"""

import csv
import math
import statistics
import sys

ACCOUNTS = ("user", "system_call", "softirq")
PLACES = {"user": "User space", "system_call": "System calls", "softirq": "Softirqs"}

cells = {}
with open(f"{sys.argv[1]}/runs.csv", newline="") as file:
    for run in csv.DictReader(file):
        cells.setdefault((run["row"], run["column"], run["size"]), []).append(run)


def total(run):
    return sum(float(run[f"cycles_{account}"]) for account in ACCOUNTS)


def totals(cell):
    return [total(run) for run in cells.get(cell, []) if run["cycles_user"]]


def median(cell):
    return statistics.median(totals(cell))


def is_distinct(cell, other):
    """Whether the ranges of the rounds are apart: the intervals of fewer than six rounds."""
    one, two = totals(cell), totals(other)
    return min(one) > max(two) or max(one) < min(two)


def signed(value):
    return f"{value:+,.0f}".replace("-", "−")


def medians():
    for names, runs in cells.items():
        mpps = statistics.median(float(run["forwarded_pps"]) / 1e6 for run in runs)
        cycles = f"{median(names):,.0f}" if totals(names) else "–"
        print(*names, f"{mpps:.3f}" if mpps < 100 else f"{mpps:.1f}", cycles)


def answers(tsc_hz):
    rows = {row for row, _, _ in cells}
    without = {row: median((row, "none", "60")) for row in rows if totals((row, "none", "60"))}
    by_cost = sorted(without, key=without.get)
    print(by_cost[0])

    path = next(row for row in by_cost if totals((row, "aes-128-gcm", "1514")))
    with_aes, plain = (path, "aes-128-gcm", "1514"), (path, "none", "1514")
    added = signed(median(with_aes) - median(plain))
    print(f"{added} cycles on {path}")

    def account(cell, name):
        return statistics.median(float(run[f"cycles_{name}"]) for run in cells[cell])

    by_account = {name: account(with_aes, name) - account(plain, name) for name in ACCOUNTS}
    most = max(by_account, key=by_account.get)
    if is_distinct(with_aes, plain):
        print(f"{PLACES[most]}: {signed(by_account[most])} of {added} net on {path}")
    else:
        print(f"unclear on {path}")

    filters = {}
    for place, name in ("user", "user space"), ("kernel", "the kernel"):
        for row in rows:
            if totals((row, f"filter-10k-{place}", "60")):
                filters[row, name] = median((row, f"filter-10k-{place}", "60"))
    row, place = min(filters, key=filters.get)
    print(f"In {place} on {row}: {filters[row, place]:,.0f} cycles")

    path = next(row for row in by_cost if totals((row, "aes-128-gcm", "60")))
    needed = 10e9 / ((60 + 24) * 8) * median((path, "aes-128-gcm", "60")) / tsc_hz
    cores = math.ceil(needed)
    print(f"{cores} core{'' if cores == 1 else 's'} on {path}")


if len(sys.argv) > 2:
    answers(float(sys.argv[2]))
else:
    medians()
