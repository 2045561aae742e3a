#!/usr/bin/env python3
"""Real processes, each in a network of its own, under everything at once: kill -9, pauses, cuts of the network in both directions or one, members that join and leave,
while clients at quorum record what they ask and are told. Afterwards the record is checked: nothing acknowledged may be lost, no read may be stale or go backwards, nothing
deleted or expired may come back, and no increment may be missing or count twice.

Needs root and iproute2. A node that is killed has lost its memory, and returns under a new identity; the next is killed when the cluster says that everything has its copies
again, as an operator would wait. All else overlaps."""

import collections
import contextlib
import multiprocessing
import random
import subprocess
import tempfile
import time
from pathlib import Path

import stage
from cluster import Node, cli_bin, eventually
from resp import Connection, command
from stage import say

import history
import netns

PORT = 7000
# Members at least, at most, and to begin with.
LEAST, MOST, FIRST = 4, 7, 5


class Cluster:
    """The nodes, by their place in the network; None where there is none."""

    def __init__(self, network, options):
        self.network, self.folder = network, Path(tempfile.mkdtemp(prefix="trellis-"))
        self.options = ["--consistency", "quorum", "--replication-factor", "3", "--threads", str(options.threads)]
        self.nodes, self.busy = [None] * MOST, set()
        # The last that lost its memory is not made up for yet.
        self.owes = False
        # Leaves that were refused.
        self.refused = 0

    def start(self, at):
        seeds = [node.address for node in self.nodes if node]
        options = [*self.options, "--host", self.network.address(at)]
        self.nodes[at] = Node(seeds, options, PORT, self.folder / f"node{at}.log", self.network.command(at, []))

    def there(self):
        return [at for at, node in enumerate(self.nodes) if node]

    def free(self):
        """Nodes to which nothing is being done."""
        return [at for at in self.there() if at not in self.busy]

    def whole(self):
        """Whether every node says that everything has its copies."""
        try:
            status = [self.nodes[at].status(1) for at in self.there()]
        except (OSError, ValueError):
            return False
        living = {self.nodes[at].address for at in self.there()}
        alive = [{member["address"] for member in one["members"] if member["state"] == "alive"} for one in status]
        return all(one["under_replicated_partitions"] == 0 and one["partitions_syncing"] == 0 for one in status) and all(one == living for one in alive)


class Fault:
    """Something that is done to nodes, and undone when its time is over."""

    def __init__(self, cluster, dice):
        self.cluster, self.dice, self.nodes = cluster, dice, []
        self.until = 0

    def take(self, at, seconds):
        self.nodes.append(at)
        self.cluster.busy.add(at)
        self.until = time.monotonic() + seconds

    def release(self):
        self.cluster.busy.difference_update(self.nodes)


class Kill(Fault):
    def begin(self):
        if self.cluster.owes:
            return False
        at = self.dice.choice(self.cluster.free())
        self.take(at, self.dice.uniform(0.2, 10))
        self.cluster.owes = True
        self.cluster.nodes[at].kill()
        self.cluster.nodes[at] = None
        return True

    def end(self):
        self.cluster.start(self.nodes[0])


class Pause(Fault):
    def begin(self):
        at = self.dice.choice(self.cluster.free())
        self.take(at, self.dice.choice([0.5, 2, 8, 20]) * self.dice.uniform(0.5, 1.5))
        self.process = self.cluster.nodes[at].process
        self.process.send_signal(19)
        return True

    def end(self):
        self.process.send_signal(18)


class Cut(Fault):
    """One node or two from all others, in both directions or one; or a single link."""

    def begin(self):
        there = self.cluster.there()
        size = self.dice.choice([1, 1, 2])
        inner = self.dice.sample(there, size)
        outer = [at for at in range(MOST) if at not in inner]
        if self.dice.random() < 0.3:
            inner, outer = inner[:1], [self.dice.choice([at for at in there if at not in inner])]
        pairs = [(one, other) for one in inner for other in outer]
        ways = self.dice.choice(["both", "both", "out", "in"])
        self.cuts = [pair for pair in pairs if ways != "in"] + [pair[::-1] for pair in pairs if ways != "out"]
        self.until = time.monotonic() + self.dice.choice([1, 4, 10, 20]) * self.dice.uniform(0.5, 1.5)
        for cut in self.cuts:
            self.cluster.network.cut(*cut)
        return True

    def end(self):
        for cut in self.cuts:
            self.cluster.network.mend(*cut)


class Join(Fault):
    def begin(self):
        places = [at for at in range(MOST) if not self.cluster.nodes[at] and at not in self.cluster.busy]
        if not places:
            return False
        self.cluster.start(self.dice.choice(places))
        self.until = time.monotonic()
        return True

    def end(self):
        pass


class Leave(Fault):
    """Asked of the node itself, which ends when its data is elsewhere, or refuses while another member is away."""

    def begin(self):
        if len(self.cluster.free()) <= LEAST or len(self.cluster.there()) <= LEAST:
            return False
        at = self.dice.choice(self.cluster.free())
        self.take(at, 3600)
        self.node = self.cluster.nodes[at]
        self.asked = subprocess.Popen([cli_bin(), self.node.address, "leave"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return True

    def is_over(self):
        if not self.node.alive():
            return True
        # The command may also have lost sight of a node that leaves.
        return self.asked.poll() not in (None, 0) and self.stays()

    def stays(self):
        try:
            return self.node.status()["state"] == "active"
        except (OSError, ValueError):
            return False

    def end(self):
        if self.node.alive():
            self.cluster.refused += 1
            return
        code = self.node.process.wait(timeout=1)
        if code != 0:
            raise AssertionError(f"a node that left ended with {code}\n{self.node.log_tail()}")
        self.asked.kill()
        self.asked.wait()
        self.cluster.nodes[self.nodes[0]] = None


KINDS = {"kill -9": Kill, "pause": Pause, "cut": Cut, "join": Join, "leave": Leave}


def trouble(cluster, options, dice, done):
    """Makes trouble for the time that was asked for, then puts all right."""
    end, under_way, next_at = time.monotonic() + options.minutes * 60, [], 0
    while time.monotonic() < end:
        if time.monotonic() >= next_at and len(under_way) < options.at_once:
            name = dice.choice([name for name in KINDS for _ in range(2 if name in ("kill -9", "cut") else 1)])
            fault = KINDS[name](cluster, dice)
            if (name in ("join", "cut") or cluster.free()) and fault.begin():
                under_way.append(fault)
                done[name] += 1
            next_at = time.monotonic() + dice.uniform(0.2, 5)
        settle(under_way, False)
        if cluster.owes and not any(isinstance(fault, Kill) for fault in under_way):
            cluster.owes = not cluster.whole()
        dead = [at for at in cluster.free() if not cluster.nodes[at].alive()]
        if dead:
            raise AssertionError(f"node {dead[0]} ended by itself:\n{cluster.nodes[dead[0]].log_tail(40)}")
        time.sleep(0.1)
    settle([fault for fault in under_way if not isinstance(fault, Leave)], True)
    leaving = [fault for fault in under_way if isinstance(fault, Leave)]
    if leaving:
        eventually(lambda: settle(leaving, False) or not leaving, "those who were asked to leave have left", 120)


def settle(under_way, all_of_them):
    for fault in list(under_way):
        over = fault.is_over() if isinstance(fault, Leave) else all_of_them or time.monotonic() >= fault.until
        if over:
            under_way.remove(fault)
            fault.end()
            fault.release()


def read_all(node, keys):
    """All keys through one node, with the moments before and after."""
    connection = Connection(node.host, node.port, 60)
    begun = time.monotonic()
    values = connection.pipelined([command("GET", key) for key in keys], 500)
    ended = time.monotonic()
    wrong = [value for value in values if isinstance(value, Exception)]
    if wrong:
        raise AssertionError(f"{len(wrong)} reads of a healthy cluster failed: {wrong[0]}")
    return begun, ended, dict(zip(keys, values))


def judge(cluster, clients, options, done, seconds_to_settle):
    reports = [client.report() for client in clients]
    records = [record for report in reports for record in report[0]]
    keys = history.finals(records)
    found, last = collections.Counter(), None
    for at in cluster.there():
        begun, ended, last = read_all(cluster.nodes[at], keys)
        found += history.check_finals(records, last)
        records += [history.Record("final read", key, begun, ended, value, history.DONE) for key, value in last.items() if not key.startswith("c:")]
    wrong, seen = history.check(records)
    found += wrong
    say("faults", ", ".join(f"{name} {count}" for name, count in sorted(done.items())) + f"; leaves refused {cluster.refused}")
    say("operations, done / not done / of unknown outcome", " / ".join(f"{sum(r.outcome == o for r in records):,}" for o in (history.DONE, history.NOT_DONE, history.UNKNOWN)))
    say("acknowledged writes", f"{sum(count for kind, count in seen.items() if kind.split()[0] in ('write', 'add', 'count', 'delete')):,}")
    say("errors that clients saw", dict(sum((report[1] for report in reports), collections.Counter())))
    say("longest time that a client saw errors alone", f"{max(report[2][0] for report in reports):.1f} s")
    say("from the last fault until everything had its copies", f"{seconds_to_settle:.1f} s")
    for what in ("lost", "stale reads", "backward reads", "resurrected", "increments lost", "increments counted twice", "gone too soon", "outlived its deadline", "values from nowhere"):
        say(what, found[what], "0", found[what] == 0)
    say("members, keys read through each of them in the end", f"{len(cluster.there())}, {len(keys):,}")


def main():
    parser = stage.arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rate", type=int, default=150, help="operations a second of each client at most")
    parser.add_argument("--at-once", type=int, default=3, help="faults at a time")
    parser.add_argument("--threads", type=int, default=1, help="of a node")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without", nargs="*", default=[], choices=KINDS, help="faults to leave out")
    options = stage.parsed(parser)
    for name in options.without:
        del KINDS[name]
    network = netns.inside(MOST)
    cluster, stop = Cluster(network, options), multiprocessing.Event()
    clients = []
    try:
        for at in range(FIRST):
            cluster.start(at)
        eventually(cluster.whole, f"{FIRST} nodes have met", 60)
        # Those that join are asked from the beginning: nobody tells clients.
        addresses = [(network.address(at), PORT) for at in range(MOST)]
        clients = [history.Client(n, options.clients, addresses, options.rate, stop) for n in range(options.clients)]
        for client in clients:
            client.start()
        done = collections.Counter()
        trouble(cluster, options, random.Random(options.seed), done)
        seconds = eventually(cluster.whole, "everything has its copies again", 180)
        stop.set()
        stage.part(judge, cluster, clients, options, done, seconds)
    finally:
        stop.set()
        for node in cluster.nodes:
            if node:
                with contextlib.suppress(OSError):
                    node.process.send_signal(18)
                node.kill()
        if stage.misses:
            print(f"logs of the nodes: {cluster.folder}")
    stage.finish()


if __name__ == "__main__":
    main()
