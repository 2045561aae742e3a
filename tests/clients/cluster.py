"""Starts Trellis nodes for checks from outside and stops them whatever happens: free ports, the ready line, logs, kills by pid.

The binary is named by TRELLIS_BIN. Reads what the README promises and nothing else.
"""

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

READY = re.compile(r"^trellis ready main=(\S+):(\d+) admin=(\S+):(\d+)(?: memcached=\S+:(\d+))?(?: unix=(\S+))?$")
START_SECONDS_MAX = 20
# The admin port is the main port + 10000: both stay below the kernel's range for outgoing connections, so that neither is taken meanwhile.
FREE_PORTS = range(20_000 + os.getpid() % 200 * 10, 22_700)


def trellis_bin():
    return os.environ.get("TRELLIS_BIN", "target/release/trellis")


def cli_bin():
    return str(Path(trellis_bin()).with_name("trellis-cli"))


def bench_bin():
    return str(Path(trellis_bin()).with_name("trellis-bench"))


def free_port(taken=()):
    """A port that is free for TCP and UDP, with the admin port that belongs to it."""
    for port in FREE_PORTS:
        if port in taken:
            continue
        try:
            for kind, number in ((socket.SOCK_STREAM, port), (socket.SOCK_DGRAM, port), (socket.SOCK_STREAM, port + 10_000)):
                with socket.socket(socket.AF_INET, kind) as probe:
                    if kind == socket.SOCK_STREAM:
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", number))
            return port
        except OSError:
            continue
    raise RuntimeError("no free port")


class Process:
    """A process that this check started, and what the kernel says of it."""

    def __init__(self, arguments, log, **options):
        self.arguments, self.log = arguments, log
        with open(log, "ab") as stderr:
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stderr=stderr, **options)
        self.pid = self.process.pid

    def alive(self):
        return self.process.poll() is None

    def kill(self):
        """No farewell: what a crash does."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """In order; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)

    def resident_bytes(self, field="VmRSS"):
        """What it has in memory; with VmHWM the most that it ever had."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        return 0

    def cpu_seconds(self):
        """Processor time used so far, its own and the kernel's for it."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log_tail(self, lines=15):
        return "\n".join(Path(self.log).read_text(errors="replace").splitlines()[-lines:])


class Node(Process):
    """One node. `port` 0 lets it choose; `prefix` is put before its command."""

    def __init__(self, seeds=(), options=(), port=0, log=None, prefix=()):
        log = log or Path(tempfile.mkdtemp(prefix="trellis-")) / "node.log"
        self.seeds, self.options, self.prefix = list(seeds), list(options), list(prefix)
        super().__init__([*self.prefix, trellis_bin(), str(port), *self.seeds, *self.options], log, stdout=subprocess.PIPE, text=True)
        readable, _, _ = select.select([self.process.stdout], [], [], START_SECONDS_MAX)
        line = self.process.stdout.readline() if readable else ""
        ready = READY.match(line)
        if not ready:
            self.kill()
            raise RuntimeError(f"the node did not say that it is ready: {line!r}\n{self.log_tail()}")
        self.host, self.port = ready[1], int(ready[2])
        self.admin, self.unix = f"{ready[3]}:{ready[4]}", ready[6]
        self.memcached = int(ready[5]) if ready[5] else None
        self.address = f"{self.host}:{self.port}"

    def again(self, seeds, options=None):
        """A new process at the address of this one, which has died."""
        return Node(seeds, self.options if options is None else options, self.port, self.log, self.prefix)

    def http(self, path, seconds_max=2):
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=seconds_max) as answer:
            return answer.read().decode()

    def status(self, seconds_max=2):
        return json.loads(self.http("/v1/status", seconds_max))

    def states(self):
        """What it believes of every member: address to state. Of two lives of one address the better counts."""
        order = ["alive", "suspect", "left", "down"]
        states = {}
        for member in self.status()["members"]:
            states[member["address"]] = min(states.get(member["address"], "down"), member["state"], key=order.index)
        return states

    def ready(self):
        try:
            return bool(self.http("/health/ready"))
        except OSError:
            return False

    def metrics(self):
        """Every sample of the metrics page; labels are added up."""
        samples = {}
        for line in self.http("/metrics", 10).splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                name = name.partition("{")[0]
                with contextlib.suppress(ValueError):
                    samples[name] = samples.get(name, 0) + float(value)
        return samples


@contextlib.contextmanager
def cluster(size, *options, ports=False, settled=True, named=False):
    """`size` nodes, the first of them the seed of the others. With `ports` they are started by number, as people do,
    and can return at the same address. With `settled` all of them have met before anyone uses them. With `named`
    they keep their identity when they return."""
    nodes, folder = [], Path(tempfile.mkdtemp(prefix="trellis-"))
    try:
        for i in range(size):
            port = free_port([node.port for node in nodes]) if ports else 0
            each = [*options, "--node-id", f"node{i}"] if named else options
            nodes.append(Node([node.address for node in nodes[:1]], each, port, folder / f"node{i}.log"))
        if settled:
            eventually(lambda: all(met(node, nodes) for node in nodes), f"{size} nodes see each other alive and are ready", 30)
        yield nodes
    finally:
        for node in nodes:
            node.kill()


def met(node, nodes):
    states = node.states()
    return all(states.get(other.address) == "alive" for other in nodes) and node.ready()


def eventually(check, what, seconds_max=10):
    """Polls until `check()` is true; a cluster settles in its own time. Returns the seconds it took."""
    start = time.monotonic()
    while not check():
        if time.monotonic() > start + seconds_max:
            raise AssertionError(f"not within {seconds_max} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - start
