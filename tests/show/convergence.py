#!/usr/bin/env python3
"""How soon replicas are equal again, and what that costs: three nodes with a million keys of which one missed some; what five with as many say while
nothing happens; what two say whose memory is full.

One of three is stopped until the others call it down; then keys are written, new ones and old ones again, and it goes on. It is equal when nothing
arrives any more and a whole later round of every node found no partition apart. As root the network is one of its own, so that all bytes on it are
counted, headers too."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import stage
from cluster import cluster, eventually
from resp import Connection, command
from stage import say

ALONE = "TRELLIS_SHOW_ALONE"
VALUE = b"v" * 100


def in_a_network_of_its_own():
    """Starts this again where no other process sends anything."""
    if os.environ.get(ALONE) or os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
        return
    os.environ[ALONE] = "1"
    os.execvp("unshare", ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, *sys.argv])


def bytes_on_the_network():
    """All that went over the loopback device so far; None where others use it too."""
    if not os.environ.get(ALONE):
        return None
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[0])


def key(n):
    return b"key:%012d" % n


def write(node, numbers, value=VALUE, level="one"):
    """SETs these keys; a window of them at a time."""
    connection = Connection(node.host, node.port, 120)
    connection.ask("TRELLIS", "CONSISTENCY", level)
    numbers = iter(numbers)
    while window := [command("SET", key(n), value) for _, n in zip(range(1000), numbers)]:
        for reply in connection.pipelined(window):
            if reply != "OK":
                raise AssertionError(f"SET answered {reply!r}")
    connection.close()


class Watch:
    """What nodes say of themselves, and how many bytes it took them to say it."""

    def __init__(self, nodes):
        self.nodes, self.heard = nodes, 0

    def metrics(self, node):
        page = node.http("/metrics", 10)
        # Requests and headers are some 300 bytes.
        self.heard += len(page) + 300
        lines = (line.rpartition(" ") for line in page.splitlines() if line and not line.startswith("#"))
        samples = {}
        for name, _, value in lines:
            name = name.partition("{")[0]
            samples[name] = samples.get(name, 0) + float(value)
        return samples

    def sum(self, *names):
        pages = [self.metrics(node) for node in self.nodes]
        return [sum(page.get(f"trellis_{name}_total", 0) for page in pages) for name in names]

    def round_age_ms(self, node):
        page = node.http("/v1/status", 10)
        self.heard += len(page) + 300
        return json.loads(page)["anti_entropy"]["last_round_ms"]


def equal_round(watch, seconds_max=60):
    """Waits until two more rounds of every node have ended, of which the second began later, and says whether nothing was found apart."""
    before = watch.sum("sync_partitions_different")[0]
    ages, ended = [watch.round_age_ms(node) for node in watch.nodes], [0] * len(watch.nodes)
    stop = time.monotonic() + seconds_max
    while min(ended) < 2:
        if time.monotonic() > stop:
            raise AssertionError(f"no two rounds of every node within {seconds_max} s")
        time.sleep(0.5)
        for i, node in enumerate(watch.nodes):
            age = watch.round_age_ms(node)
            ended[i] += age is not None and (ages[i] is None or age < ages[i])
            ages[i] = age
    return watch.sum("sync_partitions_different")[0] == before


def settled(watch):
    """Waits until rounds of everybody find nothing apart."""
    if not any(equal_round(watch) for _ in range(4)):
        raise AssertionError("replicas do not become equal")


def diverge(nodes, victim, keys, missed, again):
    """Writes what the victim misses, half of it through each of the others: new keys, or some of those there are `again`."""
    others = [node for node in nodes if node is not victim]
    os.kill(victim.pid, signal.SIGSTOP)
    eventually(lambda: all(node.states().get(victim.address) == "down" for node in others), "it is down", 60)
    numbers = range(0, keys, keys // missed) if again else range(keys, keys + missed)
    for at, node in enumerate(others):
        write(node, list(numbers)[at:missed:2], b"w" * len(VALUE))


def converge(keys, missed, again, options):
    what = "old keys written again" if again else "new keys"
    with cluster(3, *options, ports=True) as nodes:
        write(nodes[0], range(keys))
        watch = Watch(nodes)
        settled(watch)
        victim = nodes[2]
        first = watch.metrics(victim)
        diverge(nodes, victim, keys, missed, again)
        sync_before = sync_bytes(nodes[:2]) + first.get("trellis_sync_bytes_total", 0)
        wire_before, heard_before = bytes_on_the_network(), watch.heard
        begun = time.monotonic()
        os.kill(victim.pid, signal.SIGCONT)
        last, came = first["trellis_entries_applied_total"], begun
        while time.monotonic() < max(came, begun + 5) + 3:
            time.sleep(0.05)
            now = watch.metrics(victim)["trellis_entries_applied_total"]
            if now > last:
                last, came = now, time.monotonic()
        took, brought = came - begun, last - first["trellis_entries_applied_total"]
        wire, heard, sync = bytes_on_the_network(), watch.heard, sync_bytes(nodes) - sync_before
        equal = equal_round(watch)
        differed = missed * (len(key(0)) + len(VALUE))
        print(f"\n{missed:,} of {keys:,} keys missed by one of three: {what}")
        say("  equal after", f"{took:.2f} s, {brought:,.0f} entries brought", "at most 5 s", took <= 5)
        say("  and nothing apart in later rounds", equal, True, equal)
        say("  bytes that differed (keys and values)", f"{differed:,}")
        if "trellis_sync_bytes_total" in first:
            say("  bytes of comparisons, entries included", f"{sync:,.0f}, {sync / differed:.2f} times", "at most 3 times", sync <= 3 * differed)
        if wire_before is not None:
            wire -= wire_before + heard - heard_before
            say("  all bytes on the network meanwhile", f"{wire:,.0f}, {wire / differed:.2f} times")


def sync_bytes(nodes):
    return sum(node.metrics().get("trellis_sync_bytes_total", 0) for node in nodes)


def idle(size, keys, seconds, options):
    with cluster(size, *options, ports=True) as nodes:
        write(nodes[0], range(keys))
        settled(Watch(nodes))
        say_quiet(nodes, f"{size} nodes with {keys:,} keys while nothing happens", seconds)


def say_quiet(nodes, title, seconds):
    """What they say to each other in so many seconds."""
    before, wire = [node.metrics() for node in nodes], bytes_on_the_network()
    cpu = sum(node.cpu_seconds() for node in nodes)
    time.sleep(seconds)
    wire_after, cpu = bytes_on_the_network(), sum(node.cpu_seconds() for node in nodes) - cpu
    after = [node.metrics() for node in nodes]
    grown = lambda name: sum(b.get(name, 0) - a.get(name, 0) for a, b in zip(before, after))
    each = seconds * len(nodes)
    print(f"\n{title}")
    if wire is not None:
        say("  bytes a second a node, headers and all", f"{(wire_after - wire) / each:,.0f}")
    if "trellis_sync_bytes_total" in after[0]:
        say("  of them for comparisons", f"{grown('trellis_sync_bytes_total') / each:,.0f}")
    say("  datagrams a second a node", f"{grown('trellis_gossip_datagrams_sent_total') / each:.1f}")
    say("  entries brought by comparisons", f"{grown('trellis_sync_entries_total'):,.0f}")
    say("  processor time a node", f"{cpu / each * 100:.2f} %")


def full_caches(keys, seconds, options):
    """Three copies of more than fits: each node evicts by its own order."""
    with cluster(3, "--max-memory", "64m", "--eviction", "lru", *options, ports=True) as nodes:
        for part in range(4):
            write(nodes[part % 3], range(part * keys // 4, (part + 1) * keys // 4))
        # What was written last is settled within 15 s.
        time.sleep(20)
        say_quiet(nodes, f"3 nodes of 64 MiB that evict, after {keys:,} keys, while nothing happens", seconds)
        stop = time.monotonic() + seconds
        before, wire = [node.metrics() for node in nodes], bytes_on_the_network()
        written = 0
        while time.monotonic() < stop:
            write(nodes[written % 3], range(keys + written, keys + written + 1000))
            written += 1000
            time.sleep(0.2)
        after = [node.metrics() for node in nodes]
        grown = sum(b.get("trellis_sync_bytes_total", 0) - a.get("trellis_sync_bytes_total", 0) for a, b in zip(before, after))
        print(f"\nthe same while {written / seconds:,.0f} new keys a second come")
        if wire is not None:
            say("  bytes a second a node, headers and all", f"{(bytes_on_the_network() - wire) / seconds / 3:,.0f}")
        say("  of them for comparisons", f"{grown / seconds / 3:,.0f}")
        say("  evicted a second a node", f"{sum(b['trellis_evicted_keys_total'] - a['trellis_evicted_keys_total'] for a, b in zip(before, after)) / seconds / 3:,.0f}")
        brought = sum(b["trellis_sync_entries_total"] - a["trellis_sync_entries_total"] for a, b in zip(before, after))
        say("  entries brought by comparisons", f"{brought:,.0f}")


def main():
    parser = stage.arguments(__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--missed", type=int, default=10_000, help="keys that one node misses")
    parser.add_argument("--seconds", type=int, default=60, help="how long quiet nodes are listened to")
    parser.add_argument("--only", choices=["new", "again", "idle", "full"], help="one part alone")
    parser.add_argument("--option", action="append", default=[], help="passed on to every node")
    options = stage.parsed(parser)
    in_a_network_of_its_own()
    parts = {
        "new": (converge, options.keys, options.missed, False, options.option),
        "again": (converge, options.keys, options.missed, True, options.option),
        "idle": (idle, 5, options.keys, options.seconds, options.option),
        "full": (full_caches, options.keys, options.seconds, options.option),
    }
    for name, arguments in parts.items():
        if options.only in (None, name):
            stage.part(*arguments)
    stage.finish()


main()
