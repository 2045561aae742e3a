#!/usr/bin/env python3
"""redis-benchmark against one node and against redis-server without persistence, alternating, on equal and loaded key sets; processor
time per operation; resident bytes per entry next to Redis and memcached, and next to what each server itself accounts for. Prints Markdown for docs/BENCHMARKS.md.

Server and client share the machine's cores, so a rate says what both cost together; the processor time says what the server costs."""

import csv
import os
import platform
import statistics
import subprocess
import time

import stage
from cluster import Node, bench_bin
from resp import Connection
from servers import memcached, redis_server

VALUE_BYTES = 64
REFERENCE = "redis"


def fill(server, entries, protocol="resp"):
    """Loads the key set that redis-benchmark asks for, over one connection, so that the server has no other's buffers."""
    command = [bench_bin(), server.address, "--protocol", protocol, "--load-only", "-c", "1", "-r", str(entries), "-d", str(VALUE_BYTES)]
    subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL)


def fill_memcached(server, entries):
    fill(server, entries, "memcached")


def benchmark(server, test, pipeline, options):
    """One run: operations a second, p99 in ms, and the server's processor microseconds per operation."""
    requests = options.requests * (1 if pipeline == 1 else 4 if pipeline < 64 else 8)
    command = [options.redis_benchmark, "-h", server.host, "-p", str(server.port), "-t", test, "-n", str(requests), "-c", "50",
               "-d", str(VALUE_BYTES), "-r", str(options.entries), "-P", str(pipeline), "--csv"]
    before, start = server.cpu_seconds(), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    took, used = time.monotonic() - start, server.cpu_seconds() - before
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    row = next(csv.DictReader([lines[0], lines[1]]))
    rate = float(row["rps"])
    # redis-benchmark rounds its time up to its cron; ours includes its start.
    if rate > 3 * requests / max(took - 0.5, 0.01):
        raise AssertionError(f"implausible: {row} in {took:.2f} s")
    return rate, float(row["p99_latency_ms"]), used / requests * 1e6


def rates(servers, options):
    """(pipeline, test, server) to its runs, the servers taking turns."""
    runs = {}
    for pipeline in options.pipelines:
        for test in ("get", "set"):
            for turn in range(options.runs):
                # The order changes from turn to turn, so that nobody always follows the same.
                names = list(servers)[turn % len(servers) :] + list(servers)[: turn % len(servers)]
                for name in names:
                    runs.setdefault((pipeline, test, name), []).append(benchmark(servers[name], test, pipeline, options))
    return runs


def rate_table(runs, servers, options):
    goals = {1: 0.95, 16: 1.3, 64: 1.5}
    print("| pipeline | command | server | median /s | spread | ratio | p99 ms | server CPU us/op | goal |")
    print("| ---: | --- | --- | ---: | --- | ---: | ---: | ---: | --- |")
    for pipeline in options.pipelines:
        for test in ("get", "set"):
            reference = statistics.median(run[0] for run in runs[pipeline, test, REFERENCE])
            for name in servers:
                mine = runs[pipeline, test, name]
                per_second = sorted(run[0] for run in mine)
                median, goal, verdict = statistics.median(per_second), goals.get(pipeline), ""
                if name != REFERENCE and goal:
                    held = median / reference >= goal
                    verdict = f">= {goal}{'' if held else ' MISSED'}"
                    if not held:
                        stage.misses.append(f"{test} at pipeline {pipeline}, {name}: {median / reference:.2f}")
                p99, cpu = (statistics.median(run[i] for run in mine) for i in (1, 2))
                print(f"| {pipeline} | {test.upper()} | {name} | {median:,.0f} | {per_second[0]:,.0f} - {per_second[-1]:,.0f} "
                      f"| {median / reference:.2f} | {p99:.2f} | {cpu:.2f} | {verdict} |", flush=True)


def settled_bytes(server):
    """Resident bytes once they stop moving."""
    last = -1
    while (now := server.resident_bytes()) != last:
        last = now
        time.sleep(0.3)
    return now


def accounted_bytes(server):
    """What a server that speaks RESP says it holds: the size that --max-memory bounds."""
    connection = Connection(server.host, server.port, 60)
    memory = connection.ask("INFO", "memory").decode()
    connection.close()
    return int(next(line for line in memory.splitlines() if line.startswith("used_memory:")).partition(":")[2])


def memory_table(options):
    print("\n| server | empty | with all entries | bytes an entry, all in | bytes an entry, growth | goal | accounted an entry | accounted / growth |")
    print("| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: |")
    starts = {
        "trellis --threads 1": (lambda: Node([], ["--threads", "1"]), fill),
        "trellis --threads 2": (lambda: Node([], ["--threads", "2"]), fill),
        REFERENCE: (lambda: redis_server(options.redis_server), fill),
        "memcached": (lambda: memcached(options.memcached), fill_memcached),
    }
    for name, (start, load) in starts.items():
        server = start()
        try:
            empty, accounts = settled_bytes(server), load is fill
            accounted = accounted_bytes(server) if accounts else 0
            load(server, options.entries)
            full = settled_bytes(server)
            accounted = accounted_bytes(server) - accounted if accounts else 0
        finally:
            server.kill()
        each, goal = (full - empty) / options.entries, ""
        if name.startswith("trellis"):
            goal = f"<= 172{'' if each <= 172 else ' MISSED'}"
            if each > 172:
                stage.misses.append(f"{name}: {each:.1f} bytes an entry")
        told = f"{accounted / options.entries:.1f} | {accounted / (full - empty):.2f}" if accounts else "- | -"
        print(f"| {name} | {stage.mib(empty)} | {stage.mib(full)} | {full / options.entries:.1f} | {each:.1f} | {goal} | {told} |", flush=True)


def first_line(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]


def main():
    parser = stage.arguments(__doc__)
    parser.add_argument("--redis-server", default="redis-server")
    parser.add_argument("--redis-benchmark", default="redis-benchmark")
    parser.add_argument("--memcached", default="memcached")
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=200_000, help="a run without a pipeline; 4 and 8 times as many with 16 and 64")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--pipelines", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--only", choices=["rates", "memory"], help="one half")
    options = stage.parsed(parser)
    print(f"{first_line(options.redis_server, '--version')}; {first_line(options.redis_benchmark, '--version')}; "
          f"{os.cpu_count()} cores ({platform.machine()}), shared by server and client.")
    print(f"`redis-benchmark -c 50 -d {VALUE_BYTES} -r {options.entries}`, every key present; medians of {options.runs} alternating runs.\n")
    if options.only != "memory":
        servers = {}
        try:
            servers[REFERENCE] = redis_server(options.redis_server)
            for threads in ("1", "2"):
                servers[f"trellis --threads {threads}"] = Node([], ["--threads", threads])
            for server in servers.values():
                fill(server, options.entries)
            rate_table(rates(servers, options), servers, options)
        finally:
            for server in servers.values():
                server.kill()
    if options.only != "rates":
        memory_table(options)
    stage.finish()


main()
