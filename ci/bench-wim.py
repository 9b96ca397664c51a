#!/usr/bin/env python3
"""Runs pairs of commands, ours and wimlib's, and prints one table. Called by ci/bench-wim."""

import argparse
import os
import re
import shutil
import statistics
import sys
import time


def run(command):
    """CPU seconds, wall seconds, peak memory in MB."""
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.execvp(command[0], command)
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)}: exit status {status}")
    cpu = usage.ru_utime + usage.ru_stime
    return cpu, time.monotonic() - start, usage.ru_maxrss / 1000


class Bench:
    def __init__(self, args):
        self.args = args
        self.rows = []

    def path(self, name):
        return os.path.join(self.args.work, name)

    def remove(self, name):
        path = self.path(name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.remove(path)

    def pair(self, label, ours, theirs, bars, output=None, keep=()):
        """`bars`: (what, limit) with what one of cpu, wall, size."""
        if self.args.only and not re.search(self.args.only, label):
            return
        print(f"... {label}", file=sys.stderr, flush=True)
        results, sizes = {}, {}
        for _ in range(self.args.runs):
            for who, command in (("ours", ours), ("wimlib", theirs)):
                if output:
                    self.remove(output)
                results.setdefault(who, []).append(run(command))
                if output and os.path.isfile(self.path(output)):
                    sizes[who] = os.path.getsize(self.path(output))
                    if who in dict(keep):
                        os.replace(self.path(output), self.path(dict(keep)[who]))
        if output:
            self.remove(output)
        medians = {
            who: [statistics.median(column) for column in zip(*values)]
            for who, values in results.items()
        }
        ratio = {
            "cpu": medians["ours"][0] / max(medians["wimlib"][0], 1e-9),
            "wall": medians["ours"][1] / max(medians["wimlib"][1], 1e-9),
        }
        if sizes:
            ratio["size"] = sizes["ours"] / sizes["wimlib"]
        verdict = ", ".join(
            f"{what} {ratio[what]:.3f}/{limit} {'met' if ratio[what] <= limit else 'MISSED'}"
            for what, limit in bars
        )
        self.rows.append((label, medians, sizes, ratio, verdict))

    def table(self):
        head = f"{'':24} {'CPU s':>17} {'wall s':>17} {'size MB':>19} {'peak MB':>13}"
        print(f"\n{head}\n{'':24} {'ours   wimlib':>17} {'ours   wimlib':>17} "
              f"{'ours    wimlib':>19} {'ours wimlib':>13}   bars")
        for label, medians, sizes, _, verdict in self.rows:
            ours, theirs = medians["ours"], medians["wimlib"]
            size = f"{sizes['ours'] / 1e6:9.2f} {sizes['wimlib'] / 1e6:9.2f}" if sizes else ""
            print(f"{label:24} {ours[0]:8.2f} {theirs[0]:8.2f} {ours[1]:8.2f} {theirs[1]:8.2f} "
                  f"{size:>19} {ours[2]:6.0f} {theirs[2]:6.0f}   {verdict}")


def main():
    parser = argparse.ArgumentParser()
    for name in ("gilt", "corpus", "work"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    bench = Bench(args)
    out = bench.path("out.wim")

    def create(compress, level, threads=2):
        return [args.gilt, "wim", "create", args.corpus, "-o", out, "--compress", compress,
                "--level", level, "--threads", str(threads), "--no-sync", "--no-unix-data"]

    def capture(compress, threads=2):
        return ["wimlib-imagex", "capture", args.corpus, out, f"--compress={compress}",
                f"--threads={threads}", "--norpfix"]

    bench.pair("create none", create("none", "default"), capture("none"), [("wall", 0.5)],
               "out.wim")
    bench.pair("create xpress", create("xpress", "default"), capture("xpress"),
               [("cpu", 1.1), ("size", 1.01)], "out.wim")
    bench.pair("create lzx fast", create("lzx", "fast"), capture("lzx:34"),
               [("cpu", 1.1), ("size", 1.01)], "out.wim")
    bench.pair("create lzx default", create("lzx", "default"), capture("lzx:50"),
               [("cpu", 0.8), ("size", 1.015)], "out.wim",
               keep=(("ours", "ours.wim"), ("wimlib", "theirs.wim")))
    bench.pair("create lzx max", create("lzx", "max"), capture("lzx:100"), [("size", 1.005)],
               "out.wim")
    # Both read wimlib's file: the work is the same.
    theirs = bench.path("theirs.wim")
    if not os.path.exists(theirs):
        run(capture("lzx:20")[:3] + [theirs, "--compress=lzx:20", "--norpfix"])
    directory = bench.path("out")
    bench.pair("verify, 2 threads", [args.gilt, "wim", "verify", theirs, "--threads", "2"],
               ["wimlib-imagex", "verify", theirs], [("wall", 0.55)])
    bench.pair("verify, 1 thread", [args.gilt, "wim", "verify", theirs, "--threads", "1"],
               ["wimlib-imagex", "verify", theirs], [("cpu", 1 / 0.9)])
    bench.pair("extract", [args.gilt, "wim", "extract", theirs, "-o", directory, "--threads", "2",
                           "--no-unix-data"],
               ["wimlib-imagex", "apply", theirs, "1", directory], [("wall", 0.9)], "out")
    many = bench.path("many.wim")
    if not args.only or re.search(args.only, "list 100,000"):
        make_many(bench.path("many"), many)
    bench.pair("list 100,000", [args.gilt, "wim", "ls", many], ["wimlib-imagex", "dir", many], [])
    bench.pair("info 100,000", [args.gilt, "wim", "info", many], ["wimlib-imagex", "info", many],
               [])
    for threads in (1, 2):
        bench.pair(f"lzx fast, {threads} thread(s)", create("lzx", "fast", threads),
                   capture("lzx:34", threads), [], "out.wim")
    bench.table()


def make_many(directory, wim):
    """100,000 small files in 1,000 directories."""
    for d in range(1000):
        folder = os.path.join(directory, f"directory-{d:04}")
        os.makedirs(folder)
        for f in range(99):
            with open(os.path.join(folder, f"some-file-name-{f:03}.dll"), "w") as file:
                file.write(f"{d} {f}")
    run(["wimlib-imagex", "capture", directory, wim, "--compress=lzx:20"])
    shutil.rmtree(directory)


main()
