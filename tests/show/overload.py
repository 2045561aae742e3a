#!/usr/bin/env python3
"""Twice the load that a node can take, for a while: what was refused, how long the rest took from the moment it was due, and memory
before, during and after. Then five nodes under full load while every one of them is asked again and again whom it calls dead."""

import time

import stage
from cluster import Node, cluster, eventually
from generator import VALUE, generate
from resp import Connection, load
from stage import mib, say


def one_node(options):
    node = Node([], ["--threads", str(options.threads)])
    try:
        load(node.host, node.port, [(b"key:%012d" % i, VALUE) for i in range(options.keys)])
        address, shape = [(node.host, node.port)], (options.batch, options.connections, options.keys)
        print(f"one node, --threads {options.threads}; half GET, half SET of {len(VALUE)} bytes, batches of {options.batch} over {options.connections} connections")
        saturation = saturated(address, shape, options)
        at_half(address, shape, saturation, options)
        twice(node, address, shape, saturation, options)
    finally:
        node.kill()


def saturated(address, shape, options):
    """The most it serves: each connection's next batch as soon as one is answered, then fixed rates that rise until it falls behind."""
    closed = generate(address, shape, 0, 5, options.processes)
    say("next batch as soon as one is answered", f"{closed.per_second:,.0f}/s, p50 {closed.latency_ms(0.5):.1f} ms, p99 {closed.latency_ms(0.99):.1f} ms")
    most = rate = closed.per_second
    for _ in range(6):
        tried = generate(address, shape, rate, 3, options.processes)
        say(f"  {rate:,.0f}/s offered", f"{tried.per_second:,.0f}/s served, p99 {tried.latency_ms(0.99):.1f} ms, refused {tried.refused:,}")
        most = max(most, tried.per_second)
        if tried.per_second < 0.85 * rate:
            break
        rate *= 1.3
    say("saturation", f"{most:,.0f}/s")
    return most


def at_half(address, shape, saturation, options):
    half = generate(address, shape, saturation / 2, 5, options.processes)
    say("half of it: served, p50, p99", f"{half.per_second:,.0f}/s, {half.latency_ms(0.5):.2f} ms, {half.latency_ms(0.99):.2f} ms; refused {half.refused}",
        "nothing refused", half.refused == 0)


def twice(node, address, shape, saturation, options):
    before, peak, counted = node.resident_bytes(), 0, node.metrics()

    def watch(seconds):
        nonlocal peak
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            peak = max(peak, node.resident_bytes())
            time.sleep(0.1)

    result = generate(address, shape, 2 * saturation, options.seconds, options.processes, meanwhile=watch)
    time.sleep(2)
    print(f"twice of it for {options.seconds} s")
    say("  offered", f"{result.offered / result.seconds:,.0f}/s (generator late by p50 {stage.percentile(result.lateness, .5) * 1000:.1f}, p99 {stage.percentile(result.lateness, .99) * 1000:.1f} ms)")
    say("  served", f"{result.per_second:,.0f}/s, in the end {result.served / result.offered:.0%} of what was offered",
        "half of saturation at least", result.per_second >= saturation / 2)
    refused = {name: int(value - counted.get(name, 0)) for name, value in node.metrics().items() if "refused" in name and value > counted.get(name, 0)}
    say("  refused with BUSY", f"{result.refused:,} ({result.refused / result.offered:.0%}); counters {refused}")
    say("  never answered within 10 s of the end, hung up", f"{result.unanswered:,}, {result.hung_up}", "0, 0", (result.unanswered, result.hung_up) == (0, 0))
    say("  latency of what was served, from when it was due", f"p50 {result.latency_ms(0.5):.1f} ms, p99 {result.latency_ms(0.99):.1f} ms",
        f"p99 <= {options.p99_max_ms} ms", result.latency_ms(0.99) <= options.p99_max_ms)
    after = node.resident_bytes()
    say("  memory before / during / after", f"{mib(before)} / {mib(peak)} / {mib(after)}", f"growth <= {options.growth_mib_max} MiB",
        peak - before <= options.growth_mib_max << 20)
    start = time.monotonic()
    Connection(node.host, node.port).ask("PING")
    say("  a PING right after", f"{(time.monotonic() - start) * 1000:.1f} ms")


def five_nodes(options):
    print(f"five nodes, --threads 1, full load through all of them for {options.calm_seconds} s")
    seen, late = {}, []
    with cluster(5, "--threads", "1", ports=True) as nodes:
        addresses = [(node.host, node.port) for node in nodes]
        load(*addresses[0], [(b"key:%012d" % i, VALUE) for i in range(options.keys)])

        def watch(seconds):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for node in nodes:
                    asked = time.monotonic()
                    try:
                        for state in node.states().values():
                            seen[state] = seen.get(state, 0) + 1
                    except OSError as error:
                        seen[f"no answer ({type(error).__name__})"] = seen.get(f"no answer ({type(error).__name__})", 0) + 1
                    late.append(time.monotonic() - asked)
                time.sleep(0.05)

        result = generate(addresses, (options.batch, options.connections, options.keys), 0, options.calm_seconds, options.processes, meanwhile=watch)
        say("  served", f"{result.per_second:,.0f}/s, p99 {result.latency_ms(0.99):.1f} ms, refused {result.refused:,}, hung up {result.hung_up}")
        late.sort()
        say("  /v1/status answered", f"{len(late)} times, p99 {stage.percentile(late, .99) * 1000:.0f} ms, longest {late[-1] * 1000:.0f} ms")
        say("  live members called down", seen.get("down", 0) + seen.get("left", 0), "0", not seen.get("down") and not seen.get("left"))
        say("  called suspect", seen.get("suspect", 0))
        say("  states seen", seen)
        eventually(lambda: all(state == "alive" for node in nodes for state in node.states().values()), "all alive after the load", 15)


def main():
    parser = stage.arguments(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--calm-seconds", type=float, default=60)
    parser.add_argument("--batch", type=int, default=128, help="commands a batch")
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--p99-max-ms", type=float, default=1000)
    parser.add_argument("--growth-mib-max", type=int, default=1024)
    parser.add_argument("--only", choices=["one", "five"], help="one half")
    options = stage.parsed(parser)
    if options.only != "five":
        stage.part(one_node, options)
    if options.only != "one":
        stage.part(five_nodes, options)
    stage.finish()


main()
