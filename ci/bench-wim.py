#!/usr/bin/env python3
"""Runs pairs of commands, ours and wimlib's, keeps what they took, prints one table. Called by ci/bench-wim."""

import argparse
import hashlib
import json
import os
import re
import shutil
import statistics
import sys
import time

import bench_memory

MORE_TO_DO = 75


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
    return cpu, time.monotonic() - start, usage.ru_maxrss * 1024 / 1e6


def remove(path):
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.remove(path)


class Row:
    """A pair of commands. `bars`: (what, limit): a ratio of cpu, wall or size, or an absolute number of ours: seconds
    or mb. `output` is removed before each run; `keep` moves wimlib's to a name. `runs` caps how often."""

    def __init__(self, label, ours, theirs, bars=(), output=None, keep=None, needs=None, runs=None):
        self.label, self.ours, self.theirs, self.bars = label, ours, theirs, bars
        self.output, self.keep, self.needs, self.runs = output, keep, needs, runs


class Bench:
    def __init__(self, work):
        self.work = work
        self.file = os.path.join(work, "results.json")
        self.results = {}
        if os.path.exists(self.file):
            with open(self.file) as file:
                self.results = json.load(file)

    def save(self):
        with open(self.file + ".new", "w") as file:
            json.dump(self.results, file, indent=1)
        os.replace(self.file + ".new", self.file)

    def measured(self, row, identity):
        """What is known of the row, nothing if that was another program or corpus."""
        if self.results.get(row.label, {}).get("identity") != identity:
            self.results[row.label] = {"identity": identity, "ours": [], "wimlib": [], "sizes": {}}
        return self.results[row.label]

    def once(self, row, measured):
        """Ours, then wimlib's, once each."""
        for who, command in (("ours", row.ours), ("wimlib", row.theirs)):
            if not command:
                continue
            if row.output:
                remove(row.output)
            bench_memory.fill(self.work)
            measured[who].append(run(command))
            if row.output and os.path.isfile(row.output):
                measured["sizes"][who] = os.path.getsize(row.output)
                if who == "wimlib" and row.keep:
                    os.replace(row.output, row.keep)
        if row.output:
            remove(row.output)
        measured["bars"] = row.bars
        self.save()

    def measure(self, rows, identity, runs, only, deadline):
        """True when all rows have their runs."""
        rows = [row for row in rows if not only or re.search(only, row.label)]
        for turn in range(runs):
            for row in rows:
                measured = self.measured(row, identity)
                if len(measured["ours"]) > turn or turn >= (row.runs or runs):
                    continue
                if deadline and time.monotonic() > deadline:
                    return False
                print(f"... {row.label}, {turn + 1}", file=sys.stderr, flush=True)
                if row.needs:
                    row.needs()
                self.once(row, measured)
        return True

    def table(self):
        print(f"{'':26} {'program':>8} {'runs':>4} {'CPU s':>17} {'wall s':>17} {'size MB':>19} {'peak MB':>13}")
        print(f"{'':26} {'':8} {'':4} {'ours   wimlib':>17} {'ours   wimlib':>17} {'ours    wimlib':>19} {'ours wimlib':>13}"
              "   ours/wimlib or ours alone, bar")
        for label, measured in self.results.items():
            medians = {
                who: [statistics.median(column) for column in zip(*measured[who])] or None for who in ("ours", "wimlib")
            }
            ours, theirs, sizes = medians["ours"], medians["wimlib"], measured["sizes"]
            if not ours:
                continue
            values = {"seconds": ours[1], "mb": max(each[2] for each in measured["ours"])}
            if theirs:
                values |= {"cpu": ours[0] / max(theirs[0], 1e-9), "wall": ours[1] / max(theirs[1], 1e-9)}
            if len(sizes) == 2:
                values["size"] = sizes["ours"] / sizes["wimlib"]
            verdict = ", ".join(
                f"{what} {values[what]:.3f} ({'≤' if values[what] <= limit else '>'} {limit:.4g}: "
                f"{'met' if values[what] <= limit else 'MISSED'})"
                for what, limit in measured["bars"]
            ) or ", ".join(f"{what} {values[what]:.3f}" for what in ("cpu", "wall") if what in values)

            def pair(column, width, digits):
                second = f"{theirs[column]:{width}.{digits}f}" if theirs else f"{'':{width}}"
                return f"{ours[column]:{width}.{digits}f} {second}"

            size = f"{sizes['ours'] / 1e6:9.2f} {sizes.get('wimlib', 0) / 1e6:9.2f}" if sizes else ""
            print(f"{label:26} {measured['identity'][0]:8} {len(measured['ours']):4} {pair(0, 8, 2)} {pair(1, 8, 2)} {size:>19} {pair(2, 6, 0)}   "
                  f"{verdict}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--table", action="store_true")
    for name in ("gilt", "corpus"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=0)
    args = parser.parse_args()
    bench = Bench(args.work)
    if args.table:
        bench.table()
        return
    deadline = time.monotonic() + args.seconds if args.seconds else None
    with open(args.gilt, "rb") as program:
        digest = hashlib.sha256(program.read()).hexdigest()
    identity = [digest[:8], args.corpus, os.stat(args.corpus).st_mtime]
    done = bench.measure(rows(args), identity, args.runs, args.only, deadline)
    bench.table()
    if not done:
        sys.exit(MORE_TO_DO)


def rows(args):
    def path(name):
        return os.path.join(args.work, name)

    out, theirs, many, big = path("out.wim"), path("theirs.wim"), path("many.wim"), path("big")

    def create(compress, level="default", threads=2, source=args.corpus):
        return [args.gilt, "wim", "create", source, "-o", out, "--compress", compress, "--level", level,
                "--threads", str(threads), "--no-sync", "--no-unix-data"]

    def capture(compress, threads=2, to=out, source=args.corpus):
        return ["wimlib-imagex", "capture", source, to, f"--compress={compress}", f"--threads={threads}", "--norpfix"]

    def need_theirs():
        # Both read wimlib's file: the work is the same.
        if not os.path.exists(theirs):
            run(capture("lzx:34", to=theirs))

    def need_many():
        if not os.path.exists(many):
            make_many(path("many"), many)

    def need_big():
        if not os.path.exists(big):
            os.mkdir(big)
            with open(os.path.join(big, "huge"), "wb") as file:
                file.truncate(3_000_000_000)

    memory = ("mb", 300)
    yield from [
        Row("create none", create("none"), capture("none"), [("wall", 0.5), memory], out),
        Row("create xpress", create("xpress"), capture("xpress"), [("cpu", 1.1), ("size", 1.01), memory], out),
        Row("create lzx fast", create("lzx", "fast"), capture("lzx:34"), [("cpu", 1.1), ("size", 1.01), memory], out, theirs),
        Row("create lzx fast, 1 thread", create("lzx", "fast", 1), None, [], out),
        Row("create lzx default", create("lzx"), capture("lzx:50"), [("cpu", 0.8), ("size", 1.015), memory], out),
        Row("create lzx max", create("lzx", "max"), capture("lzx:100"), [("size", 1.005), memory], out, runs=1),
        Row("verify, 2 threads", [args.gilt, "wim", "verify", theirs, "--threads", "2"],
            ["wimlib-imagex", "verify", theirs], [("wall", 0.55)], needs=need_theirs),
        Row("verify, 1 thread", [args.gilt, "wim", "verify", theirs, "--threads", "1"],
            ["wimlib-imagex", "verify", theirs], [("cpu", 1 / 0.9)], needs=need_theirs),
        Row("extract", [args.gilt, "wim", "extract", theirs, "-o", path("out"), "--threads", "2", "--no-unix-data"],
            ["wimlib-imagex", "apply", theirs, "1", path("out")], [("wall", 0.9)], path("out"), needs=need_theirs),
        Row("list 100,000 entries", [args.gilt, "wim", "ls", many], ["wimlib-imagex", "dir", many],
            [("seconds", 0.1), ("mb", 100)], needs=need_many),
        Row("info, 100,000 entries", [args.gilt, "wim", "info", many], ["wimlib-imagex", "info", many],
            [("seconds", 0.1), ("mb", 100)], needs=need_many),
        Row("one file of 3 GB, fast", create("lzx", "fast", source=big), None, [memory], out, needs=need_big, runs=1),
    ]


def make_many(directory, wim):
    """100,000 small files and directories."""
    for d in range(1000):
        folder = os.path.join(directory, f"directory-{d:04}")
        os.makedirs(folder)
        for f in range(99):
            with open(os.path.join(folder, f"some-file-name-{f:03}.dll"), "w") as file:
                file.write(f"{d} {f}")
    run(["wimlib-imagex", "capture", directory, wim, "--compress=lzx:20"])
    shutil.rmtree(directory)


main()
