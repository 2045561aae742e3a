"""A network of one machine, to be cut at will: each node in a network namespace of its own, all joined by one that routes between them. What is cut is dropped in
silence on its way, as by a switch that died: neither side is told. Needs root and iproute2.

Whoever makes it runs itself again inside the routing namespace (`inside`), from where every node can be reached whatever is cut between them.
"""

import collections
import os
import subprocess
import sys

MARK = "TRELLIS_NETNS"


def ip(*words, check=True):
    return subprocess.run(["ip", *map(str, words)], check=check, capture_output=True, text=True, timeout=20)


class Network:
    """`size` namespaces with the addresses 10.77.1.2, 10.77.2.2, ... behind one router, all named after this process."""

    def __init__(self, name, size):
        self.name, self.size, self.cuts = name, size, collections.Counter()

    def space(self, node=None):
        return f"{self.name}-r" if node is None else f"{self.name}-{node}"

    @staticmethod
    def address(node):
        return f"10.77.{node + 1}.2"

    def make(self):
        router = self.space()
        ip("netns", "add", router)
        ip("-n", router, "link", "set", "lo", "up")
        for key in ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"):
            subprocess.run(["ip", "netns", "exec", router, "sysctl", "-qw", key], check=True, timeout=20)
        for node in range(self.size):
            space, there = self.space(node), f"n{node}"
            ip("netns", "add", space)
            ip("-n", router, "link", "add", there, "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("-n", router, "addr", "add", f"10.77.{node + 1}.1/24", "dev", there)
            ip("-n", router, "link", "set", there, "up")
            ip("-n", space, "addr", "add", f"{self.address(node)}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")
            ip("-n", space, "route", "add", "default", "via", f"10.77.{node + 1}.1")

    def unmake(self):
        for node in [*range(self.size), None]:
            ip("netns", "del", self.space(node), check=False)

    # From here on for whoever runs inside the router.

    def command(self, node, arguments):
        return ["ip", "netns", "exec", self.space(node), *arguments]

    def cut(self, source, target):
        """Nothing from one gets to the other any more, until it has been mended as often as it was cut."""
        self.cuts[source, target] += 1
        if self.cuts[source, target] == 1:
            self.rule("add", source, target)

    def mend(self, source, target):
        self.cuts[source, target] -= 1
        if self.cuts[source, target] == 0:
            self.rule("del", source, target)

    def rule(self, change, source, target):
        ip("rule", change, "from", self.address(source), "to", self.address(target), "priority", "100", "type", "blackhole")


def inside(size):
    """The network; makes it and runs this script again inside, with its arguments, unless it runs there already. Ends the process that made it with the exit code of the
    other, when nothing of the network is left."""
    if os.environ.get(MARK):
        return Network(os.environ[MARK], size)
    network = Network(f"trellis-{os.getpid()}", size)
    code = 1
    try:
        network.make()
        environment = {**os.environ, MARK: network.name}
        script = subprocess.Popen(["ip", "netns", "exec", network.space(), sys.executable, *sys.argv], env=environment)
        try:
            code = script.wait()
        except KeyboardInterrupt:
            code = script.wait()
    finally:
        network.unmake()
    sys.exit(code)
