#!/usr/bin/env python3
"""Races commands against each other, interleaved in shuffled rounds, and prints medians and ratios.

    race.py --rounds 30 --reference crun crun='crun run -b /b c{i}' ours='bulkhead run --rm image true'

NAME=COMMAND adds a runner; {i} is a number unique to the run. --before/--after NAME=SHELL run untimed around each run.
CPU is that of the command's tree where control groups v1 tell it (each runner is in a cpuacct group of its own); processes that
leave the group, as bulkhead's supervisor and containers do, show as foreign instead;
--group NAME=GROUP shares a group with a daemon, whose work then counts too. `foreign` is the share of all processors that
anything else used meanwhile: above about 20 % only the cpu column is worth quoting. The half of the runs with the least of
it is kept. --gap SECONDS of quiet before each run measures an isolated start; the harness then moves nothing itself.
"""

import argparse
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import time

ACCOUNTS = "/sys/fs/cgroup/cpuacct"


def pairs(values):
    return dict(value.split("=", 1) for value in values)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runner", nargs="+", help="NAME=COMMAND")
    parser.add_argument("--rounds", "-n", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=2, help="rounds that do not count")
    parser.add_argument("--reference", help="runner the ratios are taken to (default: the first)")
    parser.add_argument("--title", default="")
    parser.add_argument("--before", action="append", default=[])
    parser.add_argument("--after", action="append", default=[])
    parser.add_argument("--group", action="append", default=[])
    parser.add_argument("--keep", type=float, default=0.5, help="share of the runs kept, those with the least foreign load")
    parser.add_argument("--gap", type=float, default=0, help="seconds of quiet before each run")
    parser.add_argument("--bytes", type=float, default=0, help="work of one run, adds MB/s")
    parser.add_argument("--json", help="append the result to this file, one object a line")
    parser.add_argument("--verbose", "-v", action="store_true", help="show what the commands say")
    return parser.parse_intermixed_args()


class Accounts:
    """CPU of each runner by control group v1; without them, of the waited-for children."""

    def __init__(self, groups, quiet):
        self.groups = groups
        self.active = os.access(ACCOUNTS, os.W_OK) and not quiet

    def path(self, name):
        safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in self.groups.get(name, name))
        path = f"{ACCOUNTS}/race-{safe}"
        os.makedirs(path, exist_ok=True)
        return path

    @staticmethod
    def enter(path):
        with open(f"{path}/cgroup.procs", "w", encoding="ascii") as file:
            file.write(str(os.getpid()))

    @staticmethod
    def used(path):
        with open(f"{path}/cpuacct.usage", encoding="ascii") as file:
            return int(file.read())

    def close(self, names):
        for name in names if self.active else ():
            try:
                os.rmdir(self.path(name))
            except OSError:
                pass  # a daemon lives in it


class Race:
    def __init__(self, options):
        self.options = options
        self.commands = pairs(options.runner)
        self.before, self.after = pairs(options.before), pairs(options.after)
        self.accounts = Accounts(pairs(options.group), options.gap > 0)
        self.counter = os.getpid() * 1000
        self.null = os.open("/dev/null", os.O_RDWR)
        self.runs = {name: [] for name in self.commands}
        self.errors = dict.fromkeys(self.commands, 0)

    def fill(self, text):
        return text.replace("{i}", str(self.counter))

    def shell(self, scripts, name, check):
        if name in scripts:
            shown = None if self.options.verbose else subprocess.DEVNULL
            subprocess.run(["sh", "-c", self.fill(scripts[name])], check=check, stdout=subprocess.DEVNULL, stderr=shown)

    def idle(self):
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            with open("/proc/loadavg", encoding="ascii") as file:
                if int(file.read().split()[3].split("/")[0]) <= 1:
                    return
            time.sleep(0.02)

    def once(self, name):
        """Returns exit code, wall ms, cpu ms and foreign share of one run."""
        self.counter += 1
        self.shell(self.before, name, True)
        argv = shlex.split(self.fill(self.commands[name]))
        group = self.accounts.path(name) if self.accounts.active else None
        if group:
            self.accounts.enter(group)
        actions = [(os.POSIX_SPAWN_DUP2, self.null, descriptor) for descriptor in (0, 1, 2)][: 2 if self.options.verbose else 3]
        time.sleep(self.options.gap)
        if not self.options.gap:
            self.idle()
        used = (self.accounts.used(ACCOUNTS), self.accounts.used(group)) if group else (0, 0)
        start = time.perf_counter_ns()
        pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        wall = (time.perf_counter_ns() - start) / 1e6
        if group:
            cpu = (self.accounts.used(group) - used[1]) / 1e6
            foreign = max(0.0, (self.accounts.used(ACCOUNTS) - used[0]) / 1e6 - cpu) / (wall * (os.cpu_count() or 1))
            self.accounts.enter(ACCOUNTS)
        else:
            cpu, foreign = (usage.ru_utime + usage.ru_stime) * 1e3, 0.0
        self.shell(self.after, name, False)
        return os.waitstatus_to_exitcode(status), wall, cpu, foreign

    def run(self):
        names = list(self.commands)
        for number in range(-self.options.warmup, self.options.rounds):
            random.shuffle(names)
            for name in list(names):
                code, *figures = self.once(name)
                if code:
                    self.errors[name] += 1
                    names.remove(name)
                    print(f"# {name}: exit {code}, dropped (-v shows why)", file=sys.stderr)
                elif number >= 0:
                    self.runs[name].append(figures)
        self.accounts.close(self.commands)

    def rows(self):
        for name, runs in self.runs.items():
            if not runs:
                continue
            kept = sorted(runs, key=lambda run: run[2])[: max(3, round(len(runs) * self.options.keep))]
            walls = sorted(run[0] for run in kept)
            yield {
                "name": name,
                "runs": len(kept),
                "median_ms": statistics.median(walls),
                "min_ms": min(run[0] for run in runs),
                "p90_ms": walls[min(len(walls) - 1, int(0.9 * len(walls)))],
                "cpu_ms": statistics.median(run[1] for run in kept),
                "foreign": statistics.median(run[2] for run in kept),
                "errors": self.errors[name],
            }

    def report(self):
        rows = list(self.rows())
        reference = self.options.reference or next(iter(self.commands))
        base = next((row["median_ms"] for row in rows if row["name"] == reference), None)
        print(f"\n## {self.options.title}")
        rate = "     MB/s" if self.options.bytes else ""
        print(f"{'runner':<24}{'runs':>5}{'median':>11}{'min':>10}{'p90':>10}{'cpu':>10}{'foreign':>9}{rate}  x {reference}")
        for row in rows:
            row["ratio"] = row["median_ms"] / base if base else None
            rate = f"{self.options.bytes / 1e3 / row['median_ms']:>9.0f}" if self.options.bytes else ""
            ratio = f"{row['ratio']:.3f}" if base else "-"
            print(
                f"{row['name']:<24}{row['runs']:>5}{row['median_ms']:>8.2f} ms{row['min_ms']:>10.2f}{row['p90_ms']:>10.2f}"
                f"{row['cpu_ms']:>10.2f}{row['foreign']:>9.0%}{rate}  {ratio}"
            )
        sys.stdout.flush()
        if self.options.json:
            with open(self.options.json, "a", encoding="utf-8") as file:
                print(json.dumps({"title": self.options.title, "reference": reference, "rows": rows}), file=file)


def main():
    race = Race(arguments())
    try:
        os.nice(-20)
    except OSError:
        pass
    race.run()
    race.report()


if __name__ == "__main__":
    main()
