#!/usr/bin/env python3
"""A fourth node joins three that hold a million keys and are under load, and then leaves again: seconds, MB/s, what clients noticed. Requests come
at a fixed rate and are timed from when they were due. Every key is read through every node afterwards, and by a reader meanwhile."""

import json
import subprocess
import threading
import time

import stage
from cluster import Node, bench_bin, cli_bin, cluster, eventually, met
from resp import Connection, Refusal, command, load, read_back
from stage import say

VALUE_BYTES = 100
# Of the p99 before: what the issue allows while data moves.
P99_TIMES_MAX = 1.5
# One report of the load.
WINDOW_SECONDS = 5
LOAD_KEYS = 100_000


def key(number):
    return b"key:%012d" % number


def value(number):
    return (b"value %d " % number).ljust(VALUE_BYTES, b".")


class Reading(threading.Thread):
    """Reads keys whose values are known, one after another, through every node in turn; keeps what was wrong."""

    def __init__(self, nodes, keys):
        super().__init__(daemon=True)
        self.nodes, self.keys, self.stopped = nodes, keys, threading.Event()
        self.read = self.missing = self.wrong = 0
        self.errors = []

    def run(self):
        number, connection, turn = 0, None, 0
        while not self.stopped.is_set():
            try:
                if connection is None or turn % 50 == 0:
                    node = self.nodes[turn % len(self.nodes)]
                    connection = Connection(node.host, node.port, 5)
                numbers = [(number + i * 7919) % self.keys for i in range(20)]
                replies = connection.pipelined([command("GET", key(n)) for n in numbers])
                for n, reply in zip(numbers, replies):
                    if isinstance(reply, Refusal):
                        self.errors.append(str(reply))
                    else:
                        self.read += 1
                        self.missing += reply is None
                        self.wrong += reply not in (None, value(n))
                number = (numbers[-1] + 7919) % self.keys
            except OSError as error:
                self.errors.append(type(error).__name__)
                connection = None
            turn += 1
            time.sleep(0.005)


class Load(threading.Thread):
    """Writes and reads of keys of its own at a fixed rate, in windows of some seconds, until told to stop: the reports of all windows."""

    def __init__(self, nodes, options):
        super().__init__(daemon=True)
        self.stopped, self.reports, self.error = threading.Event(), [], None
        self.arguments = [bench_bin(), *(node.address for node in nodes), "--mix", "get:80,set:20", "--rate", str(options.rate), "--connections", "20",
                          "--keys", str(LOAD_KEYS), "--prefix", "load:", "--value-size", str(VALUE_BYTES), "--duration", f"{WINDOW_SECONDS}s", "--json"]

    def run(self):
        while not self.stopped.is_set():
            done = subprocess.run(self.arguments, capture_output=True, text=True, timeout=60)
            if not done.stdout:
                self.error = done.stderr
                return
            self.reports.append(json.loads(done.stdout)["runs"][0])

    def end(self):
        self.stopped.set()
        self.join()
        if self.error:
            raise RuntimeError(f"trellis-bench: {self.error}")
        return self.reports


def told(what, reports):
    """The worst window's p99 decides: a mean would hide the moment that hurts."""
    worst = {name: max(report["latency_us"][name] for report in reports) / 1000 for name in ("p50", "p99", "p99_9", "max")}
    rate = min(report["rate"] for report in reports)
    say(f"  {what}: {len(reports)} windows; of the worst rate, p50, p99, p99.9, longest", f"{rate:.0f}/s, " + ", ".join(f"{ms:.2f} ms" for ms in worst.values()))
    return worst["p99"]


def moved(what, nodes, options, change, is_done):
    """Lets `change` happen amid the load; how long it took, and what clients noticed."""
    # The reader takes its share of the processors before as well.
    quiet, reading = Load(nodes, options), Reading(nodes, options.keys)
    reading.start()
    quiet.start()
    time.sleep(options.before)
    before = told("before", quiet.end())
    busy = Load(nodes, options)
    busy.start()
    time.sleep(1)
    begun = time.monotonic()
    change()
    eventually(is_done, what, options.seconds_max)
    took = time.monotonic() - begun
    reports = busy.end()
    reading.stopped.set()
    reading.join()
    during = told("during", reports)
    say(f"  {what}: p99 during over before", f"{during / before:.2f}", f"at most {P99_TIMES_MAX}", during <= before * P99_TIMES_MAX)
    failed = sum(report["failures"] for report in reports) + len(reading.errors)
    errors = [report["errors"] for report in reports if report["errors"]] + reading.errors[:3]
    done = sum(report["successes"] for report in reports) + reading.read
    say(f"  {what}: requests, failed", f"{done:,}, {failed} {errors or ''}", "0 failed", failed == 0)
    say(f"  {what}: known keys read meanwhile, missing, wrong", f"{reading.read:,}, {reading.missing}, {reading.wrong}", "0, 0", (reading.missing, reading.wrong) == (0, 0))
    return took


def all_there(nodes, pairs):
    for node in nodes:
        missing, wrong = read_back(node.host, node.port, pairs)
        say(f"  {len(pairs):,} keys read through {node.port}", f"{missing} missing, {wrong} wrong", "0, 0", (missing, wrong) == (0, 0))


def rebalanced(options):
    pairs = [(key(n), value(n)) for n in range(options.keys)]
    with cluster(3, "--threads", str(options.threads)) as nodes:
        load(nodes[0].host, nodes[0].port, pairs)
        subprocess.run([bench_bin(), nodes[0].address, "--load-only", "--keys", str(LOAD_KEYS), "--prefix", "load:", "--value-size", str(VALUE_BYTES)], check=True, capture_output=True)
        plan = json.loads(nodes[0].http("/v1/plan/join?id=fourth"))["moves"]
        say(f"plan of a fourth node among {len(pairs):,} keys of {VALUE_BYTES} bytes", f"{plan['partitions']} copies, {plan['keys']:,} keys, {stage.mib(plan['bytes'])}")
        fourth = []
        join = lambda: fourth.append(Node([nodes[0].address], ["--threads", str(options.threads), "--node-id", "fourth"]))
        settled = lambda: all(met(node, nodes + fourth) and node.status()["under_replicated_partitions"] == 0 for node in nodes + fourth)
        try:
            took = moved("join", nodes, options, join, settled)
            say("join: seconds, of memory a second", f"{took:.1f} s, {plan['bytes'] / took / 1e6:.1f} MB/s")
            all_there(nodes + fourth, pairs)
            cli = []
            leave = lambda: cli.append(subprocess.Popen([cli_bin(), nodes[0].address, "leave", "fourth"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
            took = moved("leave", nodes, options, leave, lambda: cli[0].poll() is not None)
            said, code = cli[0].communicate()[0].strip(), fourth[0].process.wait(timeout=15)
            say("leave: what the command said, exit code of the node", f"{said}, {code}", "left, 0", (said, code) == ("left", 0))
            say("leave: seconds, of memory a second", f"{took:.1f} s, {plan['bytes'] / took / 1e6:.1f} MB/s")
            all_there(nodes, pairs)
        finally:
            for node in fourth:
                node.kill()


def main():
    parser = stage.arguments(__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=2_000, help="requests a second")
    parser.add_argument("--threads", type=int, default=1, help="data arbiters of each node")
    parser.add_argument("--before", type=int, default=15, help="seconds of load before each change")
    parser.add_argument("--seconds-max", type=int, default=300, help="longest wait for a change to be complete")
    stage.part(rebalanced, stage.parsed(parser))
    stage.finish()


main()
