#!/usr/bin/env python3
"""Writes the linker script that puts the functions of a run side by side.

    order.py PROGRAM TRACE > hot.ld

PROGRAM has its symbols, TRACE is what `step` wrote. Functions that only the command line passes come first, then those it
shares with the supervisor, then the supervisor's, then those of the processes it makes, then those of a removal alone; within
each, in the order of time.
Hashes in names are left open, so that the list outlives changes of compiler and dependencies. Where many functions have a name
then (one generic function for many types) and less than half of their bytes are passed, those that are stand there with their
hashes, as long as these hold.
"""

import bisect
import collections
import re
import subprocess
import sys

# By which of command line (1), supervisor (2) and its children (4) a function is passed; 0: by a removal alone.
GROUPS = (1, 3, 5, 7, 2, 6, 4, 0)

# The number benches/order.sh gives to the command that removes.
REMOVAL = 64


def functions(program):
    text = subprocess.run(["nm", "-S", "--defined-only", program], check=True, capture_output=True, text=True).stdout
    rows = (line.split() for line in text.splitlines())
    return sorted((int(r[0], 16), int(r[1], 16), r[3]) for r in rows if len(r) == 4 and r[2] in "tTwW")


def pattern(name):
    name = re.sub(r"17h[0-9a-f]{16}E$", "17h*E", name) if name.startswith("_ZN") else re.sub(r"Cs[0-9a-zA-Z]+_", "Cs*_", name)
    return name.replace("$", "?")


def main():
    program, trace = sys.argv[1:]
    known = functions(program)
    starts = [start for start, _, _ in known]
    passed = {}
    with open(trace, encoding="ascii") as lines:
        for line in lines:
            process, address = line.split()
            at = bisect.bisect_right(starts, int(address, 16)) - 1
            if at >= 0 and int(address, 16) < sum(known[at][:2]):
                passed[known[at]] = passed.get(known[at], 0) | (1 << min(int(process), 2) if int(process) != REMOVAL else 0)
    total, hot = collections.Counter(), collections.Counter()
    for _, size, name in known:
        total[pattern(name)] += size
    for _, size, name in passed:
        hot[pattern(name)] += size
    ordered = sorted(passed, key=lambda function: GROUPS.index(passed[function]))
    open_or_exact = lambda name: pattern(name) if 2 * hot[pattern(name)] >= total[pattern(name)] else name.replace("$", "?")
    names = list(dict.fromkeys(open_or_exact(name) for _, _, name in ordered))
    several = {name for name in names if name in hot and hot[name] != total[name]}
    names.sort(key=lambda name: name in several)
    print("/* Written by benches/order.sh: the functions that a run of a container passes through (see build.rs). */")
    print("SECTIONS\n{\n  .text.run :\n  {")
    for name in names:
        print(f"    *(.text.{name})")
        # What the C library has in assembly lies in a section without a name, in a file with one.
        if not name.startswith(("_ZN", "_R")):
            print(f"    *libc.a:{name}.lo(.text)")
    print("  }\n}\nINSERT BEFORE .text;")
    kib = sum(total.get(name, 0) for name in names) >> 10
    print(f"order: {len(names)} names, {kib} KiB; {sum(hot.values()) >> 10} KiB were passed", file=sys.stderr)


main()
