#!/usr/bin/env python3
"""bundle.py DIRECTORY ROOTFS [--cgroup PATH] [--seccomp FILE] [--limits] [--args CMD...]: writes an OCI bundle for a peer.

Namespaces, mounts, masked paths and capabilities are those Docker gives. --seccomp takes a profile in Docker's JSON format
(podman's package installs one) or a runtime-spec object, resolved for Docker's default capabilities.
"""

import argparse
import json
import os
import platform

CAPABILITIES = [
    "CAP_" + name
    for name in "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE".split()
]
MASKED = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
SEALED = ["nosuid", "noexec", "nodev"]


def profile(path):
    """Returns the runtime-spec seccomp object of a profile."""
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    if "archMap" not in data:
        return data
    kernel = [int(part) for part in platform.release().split("-")[0].split(".")[:2]]

    def holds(rule):
        wanted, refused = rule.get("includes") or {}, rule.get("excludes") or {}
        if any("CAP_" + c.removeprefix("CAP_") not in CAPABILITIES for c in wanted.get("caps", [])):
            return False
        if any("CAP_" + c.removeprefix("CAP_") in CAPABILITIES for c in refused.get("caps", [])):
            return False
        if wanted.get("arches") and "amd64" not in wanted["arches"] or "amd64" in refused.get("arches", []):
            return False
        least = wanted.get("minKernel")
        return not least or [int(part) for part in least.split(".")[:2]] <= kernel

    rules = []
    for rule in filter(holds, data["syscalls"]):
        made = {"names": rule.get("names") or [rule["name"]], "action": rule["action"]}
        made |= {key: rule[key] for key in ("args", "errnoRet") if rule.get(key)}
        rules.append(made)
    first = next(entry for entry in data["archMap"] if entry["architecture"] == "SCMP_ARCH_X86_64")
    made = {"defaultAction": data["defaultAction"], "architectures": [first["architecture"], *(first.get("subArchitectures") or [])], "syscalls": rules}
    return made | {key: data[key] for key in ("defaultErrnoRet",) if data.get(key)}


def mount(destination, kind, source, *options):
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("rootfs")
    parser.add_argument("--cgroup")
    parser.add_argument("--seccomp")
    parser.add_argument("--limits", action="store_true")
    parser.add_argument("--args", nargs="+", default=["/bin/true"])
    options = parser.parse_args()
    resources = {"devices": [{"allow": False, "access": "rwm"}]}
    if options.limits:
        resources |= {"pids": {"limit": 512}, "memory": {"limit": 512 << 20}, "cpu": {"shares": 512}}
    linux = {
        "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup", "network")],
        "resources": resources,
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY,
    }
    if options.cgroup:
        linux["cgroupsPath"] = options.cgroup
    if options.seccomp:
        linux["seccomp"] = profile(options.seccomp)
    spec = {
        "ociVersion": "1.0.2",
        "hostname": "bench",
        "root": {"path": os.path.abspath(options.rootfs)},
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": options.args,
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": {kind: CAPABILITIES for kind in ("bounding", "effective", "permitted")},
        },
        "mounts": [
            mount("/proc", "proc", "proc", *SEALED),
            mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
            mount("/sys", "sysfs", "sysfs", *SEALED, "ro"),
            mount("/dev/mqueue", "mqueue", "mqueue", *SEALED),
            mount("/dev/shm", "tmpfs", "shm", *SEALED, "mode=1777", "size=65536k"),
        ],
        "linux": linux,
    }
    os.makedirs(options.directory, exist_ok=True)
    with open(f"{options.directory}/config.json", "w", encoding="utf-8") as file:
        json.dump(spec, file, indent=1)


if __name__ == "__main__":
    main()
