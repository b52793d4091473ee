"""A page that shows what the process behind it may do."""

import os

from flask import Flask

app = Flask(__name__)


def status(*names: str) -> dict[str, str]:
    """Returns lines of this process's /proc status file."""
    with open("/proc/self/status", encoding="utf-8") as file:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return {name: lines.get(name, "?").strip() for name in names}


@app.route("/")
def page() -> str:
    """Greets, and names the walls."""
    shown = {"host name": os.uname().nodename, "uid": str(os.getuid()), "pid": str(os.getpid())}
    shown |= status("CapEff", "NoNewPrivs", "Seccomp")
    with open("/proc/self/uid_map", encoding="utf-8") as file:
        shown["uid map"] = " ".join(file.read().split())
    return "Hello from a container\n" + "".join(f"{key}: {value}\n" for key, value in shown.items())


if __name__ == "__main__":
    print("serving on port 80", flush=True)
    app.run(host="0.0.0.0", port=80)
