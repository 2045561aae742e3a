#!/usr/bin/env python3
"""Three nodes restarted one after another, as for an upgrade, while counters and reads at quorum go on: nothing acknowledged is lost,
with and without names for the nodes. Each next one waits for /health/ready of the one before."""

import collections
import threading
import time

import stage
from cluster import cluster, eventually, met
from resp import Connection, Refusal, load, read_back
from stage import say

COUNTERS = 20


class Counting(threading.Thread):
    """INCRs at quorum through one node after another; keeps what was acknowledged and what stayed unknown, per counter."""

    def __init__(self, nodes):
        super().__init__(daemon=True)
        self.nodes, self.stopped = nodes, threading.Event()
        self.acknowledged, self.unknown, self.errors = collections.Counter(), collections.Counter(), collections.Counter()

    def run(self):
        turn, connection = 0, None
        while not self.stopped.is_set():
            key = f"counter:{turn % COUNTERS}"
            try:
                if connection is None:
                    node = self.nodes[turn % len(self.nodes)]
                    connection = Connection(node.host, node.port, 10)
                    connection.ask("TRELLIS", "CONSISTENCY", "quorum")
                connection.ask("INCR", key)
                self.acknowledged[key] += 1
            except Refusal as refusal:
                text = str(refusal)
                self.errors[text] += 1
                self.unknown[key] += "applied: unknown" in text
                connection = None
            except OSError as error:
                # The node went away; whether it counted before is not known.
                self.errors[type(error).__name__] += 1
                self.unknown[key] += connection is not None
                connection = None
                time.sleep(0.01)
            turn += 1


def rolled(named, options):
    pairs = [(b"base:%d" % i, b"value %d" % i) for i in range(options.keys)]
    with cluster(3, ports=True, named=named) as nodes:
        load(nodes[0].host, nodes[0].port, pairs)
        counting = Counting(nodes)
        counting.start()
        seconds = []
        for i, node in enumerate(nodes):
            if options.kill:
                node.kill()
            else:
                node.stop()
            time.sleep(options.down)
            nodes[i] = node.again([other.address for other in nodes if other is not node])
            seconds.append(eventually(nodes[i].ready, f"node {i} holds its share again", 60))
        eventually(lambda: all(met(node, nodes) for node in nodes), "all see each other", 30)
        counting.stopped.set()
        counting.join()
        say(f"{'named' if named else 'unnamed'} nodes: seconds until ready again", ", ".join(f"{s:.1f}" for s in seconds))
        for node in nodes:
            missing, wrong = read_back(node.host, node.port, pairs)
            say(f"  {len(pairs):,} keys read through {node.port}", f"{missing} missing, {wrong} wrong", "0, 0", (missing, wrong) == (0, 0))
        reader = Connection(nodes[0].host, nodes[0].port)
        reader.ask("TRELLIS", "CONSISTENCY", "quorum")
        values = {key: int(reader.ask("GET", key) or 0) for key in counting.acknowledged}
        held = all(done <= values[key] <= done + counting.unknown[key] for key, done in counting.acknowledged.items())
        say("  INCR at quorum acknowledged / value / of unknown outcome",
            f"{counting.acknowledged.total()} / {sum(values.values())} / {counting.unknown.total()}", "each counter exact", held)
        say("  refusals and hang-ups the counting client met", dict(counting.errors) or 0)


def main():
    parser = stage.arguments(__doc__)
    parser.add_argument("--keys", type=int, default=10_000, help="keys written before")
    parser.add_argument("--down", type=float, default=1, help="seconds between a node's end and its new start")
    parser.add_argument("--kill", action="store_true", help="kill -9 instead of SIGTERM")
    options = stage.parsed(parser)
    for named in (False, True):
        stage.part(rolled, named, options)
    stage.finish()


main()
