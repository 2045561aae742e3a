"""Starts Trellis nodes for the client checks and stops them whatever happens.

The binary is named by TRELLIS_BIN. Every node takes free ports and says in its ready line which.
"""

import contextlib
import os
import re
import select
import signal
import subprocess
import time

READY = re.compile(r"^trellis ready main=(\S+):(\d+) admin=")
START_SECONDS_MAX = 20


class Node:
    """One process and the port it serves."""

    def __init__(self, seeds=(), options=()):
        self.process = subprocess.Popen(
            [os.environ["TRELLIS_BIN"], "0", *seeds, *options], stdout=subprocess.PIPE, text=True
        )
        readable, _, _ = select.select([self.process.stdout], [], [], START_SECONDS_MAX)
        line = self.process.stdout.readline() if readable else ""
        ready = READY.match(line)
        if not ready:
            self.kill()
            raise RuntimeError(f"the node did not say that it is ready: {line!r}")
        self.host, self.port = ready[1], int(ready[2])
        self.address = f"{self.host}:{self.port}"

    def kill(self):
        """No farewell: what a crash does."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """In order; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)


@contextlib.contextmanager
def cluster(size, *options):
    """`size` nodes, the first of them the seed of the others."""
    nodes = []
    try:
        for _ in range(size):
            nodes.append(Node([node.address for node in nodes[:1]], options))
        yield nodes
    finally:
        for node in nodes:
            node.kill()


def eventually(check, what, seconds_max=10):
    """Polls until `check()` is true; a cluster settles in its own time."""
    deadline = time.monotonic() + seconds_max
    while not check():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds_max} s: {what}")
        time.sleep(0.02)
