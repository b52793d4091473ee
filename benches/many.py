#!/usr/bin/env python3
"""Starts N idle containers, weighs the helper processes, lists, and removes them.

    many.py -n 100 -j 8 --name docker --helpers 'dockerd|containerd' --start 'docker run -d --name m{i} bb:1 sleep 3600' \\
        --list 'docker ps -q' --stop 'docker rm -f m{i}'

A --stop command with {all} in it removes them with one command. --compare FILE prints medians and ratios of what --json wrote there.
--helpers is a regular expression on the command line; the workload (comm `sleep`) is left out. PSS is what counts: a page
shared by all is counted once.
"""

import argparse
import glob
import json
import os
import re
import shlex
import statistics
import sys
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=20)
    parser.add_argument("-j", type=int, default=1, help="this many at a time")
    for name in ("name", "helpers", "start", "list", "stop"):
        parser.add_argument(f"--{name}", required="--compare" not in sys.argv)
    parser.add_argument("--compare", metavar="FILE")
    parser.add_argument("--workload", default="sleep")
    parser.add_argument("--json")
    return parser.parse_args()


def weigh(pattern, workload):
    """Returns number, RSS and PSS (MiB) of the helper processes."""
    count = rss = pss = 0
    for directory in glob.glob("/proc/[0-9]*"):
        try:
            with open(f"{directory}/comm", encoding="utf-8", errors="replace") as file:
                if file.read().strip() == workload or int(directory[6:]) == os.getpid():
                    continue
            with open(f"{directory}/cmdline", encoding="utf-8", errors="replace") as file:
                line = file.read().replace("\0", " ")
            if not pattern.search(line) or "many.py" in line:
                continue
            with open(f"{directory}/smaps_rollup", encoding="ascii") as file:
                sizes = {row.split(":")[0]: int(row.split()[1]) for row in file.read().splitlines()[1:]}
            count, rss, pss = count + 1, rss + sizes["Rss"], pss + sizes["Pss"]
        except (OSError, IndexError, KeyError, ValueError):
            continue
    return count, rss / 1024, pss / 1024


def run(commands, at_a_time):
    """Runs commands, so many at a time, with as little of our own work as can be; returns how many failed."""
    null = os.open("/dev/null", os.O_RDWR)
    failed = 0
    running = {}

    def reap():
        pid, status = os.wait()
        if code := os.waitstatus_to_exitcode(status):
            print(f"# failed with {code}: {running[pid][:100]}", file=sys.stderr)
        del running[pid]
        return bool(code)

    for command in commands:
        if len(running) == at_a_time:
            failed += reap()
        argv = shlex.split(command)
        # What went wrong is said on our own standard error.
        actions = [(os.POSIX_SPAWN_DUP2, null, descriptor) for descriptor in (0, 1)]
        running[os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)] = command
    while running:
        failed += reap()
    os.close(null)
    return failed


def phase(options, command):
    commands = [command.replace("{i}", str(i)) for i in range(options.n)]
    if "{all}" in command:
        commands = [command.replace("{all}", " ".join(f"m{i}" for i in range(options.n)))]
    start = time.perf_counter()
    failed = run(commands, options.j)
    return (time.perf_counter() - start) * 1000 / options.n, failed


def compare(path):
    """Prints the medians of each engine, and ours as part of each peer's."""
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for case in sorted({(row["n"], row["parallel"], row["together"]) for row in rows}):
        chosen = [row for row in rows if (row["n"], row["parallel"], row["together"]) == case]
        medians = {
            name: {key: statistics.median(row[key] for row in chosen if row["name"] == name) for key in ("start_ms", "stop_ms", "pss_mib")}
            for name in sorted({row["name"] for row in chosen})
        }
        rounds = sum(row["name"] == "ours" for row in chosen)
        how = "one command" if case[2] else f"{case[1]} at a time"
        print(f"n={case[0]}, started {case[1]} at a time, removed {how}, medians of {rounds}:")
        for name, of in medians.items():
            ratios = "".join(
                f"  ours/{name} {what} {medians['ours'][key] / of[key]:.3f}"
                for what, key in (("start", "start_ms"), ("remove", "stop_ms"), ("PSS", "pss_mib"))
                if name != "ours" and "ours" in medians and of[key]
            )
            print(f"  {name:<8} start {of['start_ms']:7.2f} ms  remove {of['stop_ms']:7.2f} ms  PSS {of['pss_mib']:7.1f} MiB{ratios}")


def main():
    options = arguments()
    if options.compare:
        compare(options.compare)
        return
    pattern = re.compile(options.helpers)
    before = weigh(pattern, options.workload)
    start, failed = phase(options, options.start)
    time.sleep(3)
    during = weigh(pattern, options.workload)
    moment = time.perf_counter()
    run([options.list], 1)
    listed = (time.perf_counter() - moment) * 1000
    stop, failed_stop = phase(options, options.stop)
    together = " (one command)" if "{all}" in options.stop else ""
    each = (during[2] - before[2]) / options.n
    print(
        f"{options.name:<10} n={options.n:<4} at a time {options.j:<2} start {start:7.1f} ms each  remove{together} {stop:7.2f} ms each  list {listed:6.1f} ms  "
        f"helpers {before[0]}->{during[0]}  PSS {before[2]:.1f}->{during[2]:.1f} MiB, {each:.3f} each  RSS {(during[1] - before[1]) / options.n:.2f} each  "
        f"errors {failed + failed_stop}",
        flush=True,
    )
    if options.json:
        with open(options.json, "a", encoding="utf-8") as file:
            row = {"name": options.name, "n": options.n, "parallel": options.j, "together": bool(together), "start_ms": start, "stop_ms": stop, "list_ms": listed}
            row |= {"helpers": during[0], "pss_mib": during[2], "pss_each_mib": each, "errors": failed + failed_stop}
            print(json.dumps(row), file=file)


if __name__ == "__main__":
    main()
