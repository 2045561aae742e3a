#!/usr/bin/env python3
"""Five nodes, memory only, restarted one after another, as for an upgrade, each when its own status says `safe_to_stop`, while clients go on at level
one and at quorum: nothing acknowledged is lost, and no operation fails that is not mended by one retry at the next node, at once. With and
without names for the nodes."""

import collections
import random
import threading
import time

import stage
from cluster import cluster, eventually, met
from resp import Connection, Refusal, load, read_back
from stage import percentile, say

COUNTERS = 20
KEYS_PER_CLIENT = 500
CLIENTS_PER_LEVEL = 2


class Client(threading.Thread):
    """One connection to one node at a time. What fails is tried once more, at once, at the next node."""

    def __init__(self, nodes, level, number):
        super().__init__(daemon=True)
        self.nodes, self.level, self.number = nodes, level, number
        self.stopped, self.connections = threading.Event(), {}
        # Seconds, and when each operation ended; what a retry mended and what it did not.
        self.took, self.mended, self.failed = [], collections.Counter(), collections.Counter()

    def connection(self, at):
        node = self.nodes[at % len(self.nodes)]
        # Nodes are replaced in their places when they start again.
        if self.connections.get(at % len(self.nodes), (None,))[0] is not node:
            connection = Connection(node.host, node.port, 10)
            connection.ask("TRELLIS", "CONSISTENCY", self.level)
            self.connections[at % len(self.nodes)] = (node, connection)
        return self.connections[at % len(self.nodes)][1]

    def attempt(self, at, *command):
        try:
            return self.connection(at).ask(*command)
        except (Refusal, OSError):
            self.connections.pop(at % len(self.nodes), None)
            raise

    def operation(self, turn, *command):
        """The reply; None and a note of it if the retry failed too."""
        begun = time.monotonic()
        try:
            reply = self.attempt(turn, *command)
        except (Refusal, OSError) as first:
            first = str(first) if isinstance(first, Refusal) else type(first).__name__
            try:
                reply = self.attempt(turn + 1, *command)
                self.mended[first] += 1
            except (Refusal, OSError) as second:
                second = str(second) if isinstance(second, Refusal) else type(second).__name__
                self.failed[f"{first}, then {second}"] += 1
                return None, "unknown"
        ended = time.monotonic()
        self.took.append((ended, ended - begun))
        return reply, "done"


class Writing(Client):
    """SETs and GETs of keys that nobody else writes, so that it knows the newest value of each."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        # Of each key the values it may have: one, or more where an outcome is not known.
        self.values, self.wrong = {}, 0

    def run(self):
        dice, turn = random.Random(self.number), self.number
        while not self.stopped.is_set():
            key = b"%s:%d:%d" % (self.level.encode(), self.number, dice.randrange(KEYS_PER_CLIENT))
            if dice.random() < 0.5:
                value = b"value %d" % turn
                _, outcome = self.operation(turn, "SET", key, value)
                self.values[key] = {value} if outcome == "done" else self.values.get(key, {None}) | {value}
            else:
                reply, outcome = self.operation(turn, "GET", key)
                self.wrong += outcome == "done" and reply not in self.values.get(key, {None})
            turn += 1
            time.sleep(0.002)


class Counting(Client):
    """INCRs at quorum. The one operation here that a retry may do twice, so it is not retried but counted as unknown."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.acknowledged, self.unknown = collections.Counter(), collections.Counter()

    def run(self):
        turn = 0
        while not self.stopped.is_set():
            key = f"counter:{turn % COUNTERS}"
            try:
                self.attempt(turn // COUNTERS, "INCR", key)
                self.acknowledged[key] += 1
            except Refusal as refusal:
                self.unknown[key] += "applied: unknown" in str(refusal)
            except OSError:
                # The node went away; whether it counted before is not known.
                self.unknown[key] += 1
            turn += 1
            time.sleep(0.002)


def safe(node):
    try:
        return node.status()["safe_to_stop"]
    except OSError:
        return False


def restarted(nodes, options):
    """Restarts each; seconds until the next was safe to stop."""
    waited = []
    for i, node in enumerate(list(nodes)):
        waited.append(eventually(lambda: safe(nodes[i]), f"node {i} is safe to stop", 90))
        if options.kill:
            node.kill()
        else:
            node.stop()
        time.sleep(options.down)
        nodes[i] = node.again([other.address for other in nodes if other is not node])
    eventually(lambda: all(met(node, nodes) and safe(node) for node in nodes), "all are well", 90)
    return waited


def rolled(named, options):
    pairs = [(b"base:%d" % i, b"value %d" % i) for i in range(options.keys)]
    with cluster(options.nodes, ports=True, named=named) as nodes:
        load(nodes[0].host, nodes[0].port, pairs)
        writing = [Writing(nodes, level, n) for level in ("one", "quorum") for n in range(CLIENTS_PER_LEVEL)]
        counting = Counting(nodes, "quorum", 0)
        for client in [*writing, counting]:
            client.start()
        try:
            time.sleep(options.before)
            begun = time.monotonic()
            waited = restarted(nodes, options)
            ended = time.monotonic()
        finally:
            for client in [*writing, counting]:
                client.stopped.set()
                client.join()
        say(f"{'named' if named else 'unnamed'} nodes: {ended - begun:.0f} s; seconds until each was safe to stop", ", ".join(f"{s:.1f}" for s in waited))
        for level in ("one", "quorum"):
            clients = [client for client in writing if client.level == level]
            took = [entry for client in clients for entry in client.took]
            for what, first, last in (("before", 0, begun), ("during", begun, ended)):
                times = sorted(seconds * 1000 for at, seconds in took if first <= at < last)
                say(f"  level {level}, {what}: operations, p50, p99, longest", f"{len(times):,}, " + ", ".join(f"{percentile(times, share):.1f} ms" for share in (0.5, 0.99, 1)))
            failed = sum((client.failed for client in clients), collections.Counter())
            mended = sum((client.mended for client in clients), collections.Counter())
            say(f"  level {level}: mended by one retry at once", dict(mended) or 0)
            say(f"  level {level}: not mended", dict(failed) or 0, "0", not failed)
            # At level one a read may reach another coordinator before the write does; that is what the level says.
            stale = sum(client.wrong for client in clients)
            goal = ("0", stale == 0) if level == "quorum" else ()
            say(f"  level {level}: reads meanwhile of something else than was acknowledged last", stale, *goal)
            reader = Connection(nodes[0].host, nodes[0].port)
            reader.ask("TRELLIS", "CONSISTENCY", level)
            lost = sum(reader.ask("GET", key) not in values for client in clients for key, values in client.values.items())
            say(f"  level {level}: keys that hold something else in the end", lost, "0", lost == 0)
        for node in nodes:
            missing, wrong = read_back(node.host, node.port, pairs)
            say(f"  {len(pairs):,} keys read through {node.port}", f"{missing} missing, {wrong} wrong", "0, 0", (missing, wrong) == (0, 0))
        reader = Connection(nodes[0].host, nodes[0].port)
        reader.ask("TRELLIS", "CONSISTENCY", "quorum")
        values = {key: int(reader.ask("GET", key) or 0) for key in counting.acknowledged}
        held = all(done <= values[key] <= done + counting.unknown[key] for key, done in counting.acknowledged.items())
        say("  INCR at quorum acknowledged / value / of unknown outcome",
            f"{counting.acknowledged.total()} / {sum(values.values())} / {counting.unknown.total()}", "each counter exact", held)


def main():
    parser = stage.arguments(__doc__)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--keys", type=int, default=10_000, help="keys written before")
    parser.add_argument("--before", type=float, default=10, help="seconds of load before the first restart")
    parser.add_argument("--down", type=float, default=1, help="seconds between a node's end and its new start")
    parser.add_argument("--kill", action="store_true", help="kill -9 instead of SIGTERM: at level one acknowledged writes may be lost")
    options = stage.parsed(parser)
    for named in (False, True):
        stage.part(rolled, named, options)
    stage.finish()


main()
