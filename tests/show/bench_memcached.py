#!/usr/bin/env python3
"""One node's memcached port against memcached itself, with equal threads, by trellis-bench: the servers take turns, round by round, on
equal and loaded key sets. Ratios of medians with the spread of the rounds, and the server's processor time per request. Prints Markdown;
with --write it goes into docs/BENCHMARKS.md.

Server and client share the machine's cores, so a rate says what both cost together; the processor time says what the server costs."""

import json
import os
import platform
import subprocess
from pathlib import Path

import stage
from cluster import Node, bench_bin
from servers import memcached

REFERENCE = "memcached"
# Least share of memcached's rate, by pipeline and whether it writes.
GOALS = {(1, False): 1.0, (1, True): 1.0, (16, False): 1.8, (16, True): 1.5}
BEGIN, END = "<!-- bench_memcached.py writes from here -->", "<!-- to here -->"


def bench(addresses, options, *arguments):
    """One comparison, as trellis-bench tells it."""
    command = [bench_bin(), "--compare", *(f"{name}={address}" for name, address in addresses.items()), "--protocol", "memcached",
               "-r", str(options.entries), "-d", str(options.value_bytes), "--json", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.returncode} {done.stderr}{done.stdout[-500:]}")
    return json.loads(done.stdout) if done.stdout.strip() else None


def compared(threads, options):
    """Rows of the table, for servers with so many threads."""
    server = memcached(options.memcached, threads)
    node = None
    try:
        node = Node([], ["--threads", str(threads), "--memcached-port", "0"])
        addresses = {REFERENCE: server.address, "trellis": f"{node.host}:{node.memcached}"}
        bench(addresses, options, "--load-only")
        for pipeline in options.pipelines:
            for command in options.commands:
                told = bench(addresses, options, "--mix", command, "-P", pipeline, "-c", options.connections, "--rounds", options.runs,
                             "--duration", f"{options.seconds}s", "--warm-up", "500ms")
                if any(run["commands"][command]["misses"] for run in told["runs"]):
                    raise AssertionError("a key that was stored is not there")
                yield row(threads, pipeline, command, told["compared"])
    finally:
        server.kill()
        if node:
            node.kill()


def row(threads, pipeline, command, told):
    theirs, mine = told
    ratio, cpu = mine["rate_ratio"], mine["server_cpu_ratio"]
    goal = GOALS.get((pipeline, command in ("set", "ms")))
    what = f"{command} at pipeline {pipeline}, {threads} thread{'s' if threads > 1 else ''}"
    marks = []
    for got, held, name in ((ratio["medians"], goal is None or ratio["medians"] >= goal, f">= {goal}"), (cpu["medians"], cpu["medians"] <= 1, "CPU <= 1")):
        if not held:
            stage.misses.append(f"{what}: {got:.2f}, not {name}")
            marks.append(f"{name} MISSED")
    def spread(of):
        return f"{of['medians']:.2f} ({of['least']:.2f}-{of['most']:.2f})"

    def cost(of):
        return f"{of['server_cpu_us_per_request']['median']:.2f}"

    def late(of):
        return f"{of['latency']['p99']['us']['median'] / 1000:.2f}"

    return (f"| {threads} | {pipeline} | {command} | {theirs['rate']['median']:,.0f} | {spread(ratio)} | {cost(mine)} ({cost(theirs)}) | {spread(cpu)} "
            f"| {late(mine)} ({late(theirs)}) | {mine['own_cpu_us_per_request']['median']:.2f} | {', '.join(marks) or 'held'} |")


def written(text):
    """Puts the text between the marks in docs/BENCHMARKS.md."""
    page = Path(__file__).resolve().parents[2] / "docs" / "BENCHMARKS.md"
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def first_line(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]


def main():
    parser = stage.arguments(__doc__)
    parser.add_argument("--memcached", default="memcached")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pipelines", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--commands", nargs="+", default=["get", "set", "mg", "ms"])
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--value-bytes", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of a run")
    parser.add_argument("--write", action="store_true", help="into docs/BENCHMARKS.md")
    options = stage.parsed(parser)
    lines = [f"{first_line(options.memcached, '-V')}; {os.cpu_count()} cores ({platform.machine()}), shared by server and client. "
             f"`trellis-bench --compare ... -c {options.connections} -d {options.value_bytes} -r {options.entries}`, every key present; medians of "
             f"{options.runs} rounds of {options.seconds} s, in brackets the least and the greatest of a round.", "",
             "| threads | pipeline | command | memcached /s | ratio | CPU us/op (memcached) | CPU ratio | p99 ms (memcached) | generator us/op | goals |",
             "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"]
    print("\n".join(lines), flush=True)
    for threads in options.threads:
        for line in compared(threads, options):
            lines.append(line)
            print(line, flush=True)
    if options.write:
        written("\n".join(lines))
    stage.finish()


main()
