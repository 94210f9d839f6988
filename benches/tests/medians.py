"""Prints the medians of runs.csv in the folder of the first argument, one cell per line:

    row column size Mpps cycles

formatted as in the matrix of `xdpfwd-bench report`.
"""

import csv
import statistics
import sys

cells = {}
with open(f"{sys.argv[1]}/runs.csv", newline="") as file:
    for run in csv.DictReader(file):
        cells.setdefault((run["row"], run["column"], run["size"]), []).append(run)

for names, runs in cells.items():
    mpps = statistics.median(float(run["forwarded_pps"]) / 1e6 for run in runs)
    totals = [
        sum(float(run[f"cycles_{account}"]) for account in ("user", "system_call", "softirq"))
        for run in runs
        if run["cycles_user"]
    ]
    cycles = f"{statistics.median(totals):,.0f}" if totals else "–"
    print(*names, f"{mpps:.3f}" if mpps < 100 else f"{mpps:.1f}", cycles)
