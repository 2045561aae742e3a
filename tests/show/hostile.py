#!/usr/bin/env python3
"""Hostile input on every door of one node: random bytes, truncated and oversized frames on RESP and the native protocol, idle and slow
connections by the thousand, garbage datagrams by the million. Meanwhile a well-behaved client measures what others get."""

import multiprocessing
import random
import resource
import select
import socket
import struct
import time

import stage
from cluster import Node
from resp import Connection, command
from stage import mib, say

PREFACE = b"\xf5TRL\x04"
HELLO = b"\x00\x07trellis\x00"


def frame(payload):
    return struct.pack("<I", len(payload)) + payload


def probe(address, stop, pipe):
    """A client that means well: PING, SET, GET, every few milliseconds. Sends back its latencies and errors since it was last asked."""
    connection, latencies, errors, number = Connection(*address), [], [], 0
    while not stop.is_set():
        number += 1
        start = time.monotonic()
        try:
            good = connection.ask("PING") == "PONG" and connection.ask("SET", "probe", number) == "OK" and connection.ask("GET", "probe") == b"%d" % number
            if not good:
                errors.append("wrong answer")
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}"[:80])
            connection = Connection(*address)
        latencies.append((time.monotonic() - start) * 1000 / 3)
        if pipe.poll():
            pipe.recv()
            pipe.send((sorted(latencies), errors))
            latencies, errors = [], []
        time.sleep(0.002)


def connect(address):
    raw = socket.create_connection(address, 10)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return raw


def provoke(address, data, half_close=True, seconds_max=10):
    """Sends it, hangs up halfway, and reads what comes back until the server hangs up. None: it did not hang up."""
    with connect(address) as raw:
        raw.settimeout(seconds_max)
        try:
            raw.sendall(data)
            if half_close:
                raw.shutdown(socket.SHUT_WR)
            got = b""
            while len(got) < 1 << 20:
                part = raw.recv(1 << 16)
                if not part:
                    return got
                got += part
            return got
        except TimeoutError:
            return None
        except OSError:
            # A reset: it hung up on what we still had to send.
            return b""


def many(address, inputs, half_close=True):
    """How many of them were not hung up on."""
    return sum(provoke(address, data, half_close) is None for data in inputs)


def random_resp(node, options, dice):
    inputs = [bytes([dice.choice(b"*$+-:PGS\r\n\x00\xff")]) + dice.randbytes(dice.randrange(1, 4000)) for _ in range(options.inputs)]
    say("  inputs, connections left hanging", f"{len(inputs)}, {many((node.host, node.port), inputs)}")


def mutated_resp(node, options, dice):
    """Valid pipelines with bytes changed, dropped, doubled."""
    whole = b"".join(command("SET", f"k{i}", "v" * dice.randrange(200)) + command("GET", f"k{i}") for i in range(20))
    inputs = []
    for _ in range(options.inputs):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 6)):
            at = dice.randrange(len(data))
            data[at : at + dice.randrange(0, 3)] = dice.randbytes(dice.randrange(0, 3))
        inputs.append(bytes(data))
    say("  inputs, connections left hanging", f"{len(inputs)}, {many((node.host, node.port), inputs)}")


def truncated_resp(node, options, dice):
    whole = command("SET", "key", "v" * 1000)
    inputs = [whole[: dice.randrange(1, len(whole))] for _ in range(options.inputs)]
    say("  inputs, connections left hanging", f"{len(inputs)}, {many((node.host, node.port), inputs)}", "0 hanging", True)


def oversized_resp(node, options, dice):
    """Each with the words that Redis answers; it must hang up by itself."""
    address = (node.host, node.port)
    for what, data, wanted in (
        ("arguments", b"*1048577\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        ("arguments beyond 64 bits", b"*99999999999999999999\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        ("bulk", b"*2\r\n$3\r\nGET\r\n$9999999999\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        ("negative bulk", b"*1\r\n$-5\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        ("no dollar", b"*1\r\nGET\r\n", b"-ERR Protocol error: expected '$', got 'G'\r\n"),
        ("inline line", b"x" * 70_000, b"-ERR Protocol error: too big inline request\r\n"),
        ("count line", b"*" + b"1" * 70_000, b"-ERR Protocol error: too big mbulk count string\r\n"),
        ("bulk length line", b"*1\r\n$" + b"1" * 70_000, b"-ERR Protocol error: too big bulk count string\r\n"),
        ("quotes", b'SET "foo\r\n', b"-ERR Protocol error: unbalanced quotes in request\r\n"),
    ):
        got = provoke(address, data, half_close=False)
        say(f"  oversized or malformed {what}", got and got[:60], wanted[:60], got == wanted)


def long_keys(node, options, dice):
    """A key beyond 64 KiB is an error reply, and the connection lives on. A large number that is promised and not sent reserves nothing."""
    client = Connection(node.host, node.port)
    client.send(command("SET", "k" * 70_000, "v") + command("PING"))
    refused, alive = client.read(), client.read()
    say("  a key of 70,000 bytes", f"{refused!r:.60}, then {alive}", "an error, then PONG", isinstance(refused, Exception) and alive == "PONG")
    before = node.resident_bytes()
    raws = [connect((node.host, node.port)) for _ in range(200)]
    for raw in raws:
        raw.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$60000000\r\nabc")
    time.sleep(1)
    grown = node.resident_bytes() - before
    say("  200 clients promise 60 MB each and send 3 bytes", f"grew by {mib(grown)}", "<= 64 MiB", grown <= 64 << 20)
    for raw in raws:
        raw.close()


def native(node, options, dice):
    address = (node.host, node.port)
    inputs = [b"\xf5" + dice.randbytes(dice.randrange(1, 2000)) for _ in range(options.inputs)]
    inputs += [PREFACE + dice.randbytes(dice.randrange(1, 2000)) for _ in range(options.inputs)]
    inputs += [PREFACE + frame(dice.randbytes(dice.randrange(1, 300))) for _ in range(options.inputs)]
    inputs += [PREFACE + frame(HELLO) + frame(bytes([dice.randrange(10)]) + dice.randbytes(dice.randrange(300))) for _ in range(options.inputs)]
    whole = PREFACE + frame(HELLO)
    inputs += [whole[:cut] for cut in range(1, len(whole))]
    say("  random, mutated, truncated: inputs, left hanging", f"{len(inputs)}, {many(address, inputs)}")
    for what, data in (
        ("a length of 4 GiB before the hello", PREFACE + b"\xff" * 4),
        ("a length of 4 GiB after it", PREFACE + frame(HELLO) + b"\xff" * 4),
        ("another version", b"\xf5TRL\x63" + frame(HELLO)),
        ("another cluster's name", PREFACE + frame(b"\x00\x05other\x00")),
        ("a hello that is none", PREFACE + frame(b"\x07\x00")),
    ):
        got = provoke(address, data, half_close=False)
        say(f"  {what}", "no hang-up" if got is None else f"hung up after {got[:80]!r}", "hangs up", got is not None)


def idle_connections(node, options, dice):
    held, refused = [], 0
    before, start = node.resident_bytes(), time.monotonic()
    for _ in range(options.idle):
        try:
            held.append(connect((node.host, node.port)))
        except OSError:
            refused += 1
    opened = time.monotonic() - start
    time.sleep(1)
    grown = node.resident_bytes() - before
    answered = sum(asked(raw) for raw in held[:: max(1, len(held) // 100)])
    say("  idle connections held, refused", f"{len(held):,} in {opened:.1f} s, {refused}", f"{options.idle:,}, 0", len(held) == options.idle)
    say("  memory for them", f"{mib(grown)}, {grown / max(1, len(held)) / 1024:.1f} KiB each", "<= 256 MiB", grown <= 256 << 20)
    say("  a hundred of them asked for a PONG", answered, "100 or so", answered >= 99)
    for raw in held:
        raw.close()


def asked(raw):
    try:
        raw.settimeout(5)
        raw.sendall(b"PING\r\n")
        return raw.recv(100) == b"+PONG\r\n"
    except OSError:
        return False


def one_byte_a_second(node, options, dice):
    """Slow writers of one long request. They may be cut off; nobody else may notice."""
    request = command("SET", "slow", "x" * 1000)
    raws = [connect((node.host, node.port)) for _ in range(options.slow)]
    cut = set()
    for at in range(int(options.slow_seconds)):
        for raw in raws:
            if raw not in cut:
                try:
                    raw.sendall(request[at : at + 1])
                except OSError:
                    cut.add(raw)
        time.sleep(1)
        readable = select.poll()
        for raw in set(raws) - cut:
            readable.register(raw, select.POLLIN)
        gone = {fd for fd, _ in readable.poll(0)}
        cut |= {raw for raw in raws if raw.fileno() in gone}
    say("  slow clients, cut off by the server", f"{len(raws)}, {len(cut)} within {options.slow_seconds} s", "all", len(cut) == len(raws))
    for raw in raws:
        raw.close()


def datagrams(node, options, dice):
    """Random ones, ones with the right magic, ones of another version, ones of another cluster, and empty ones."""
    made = [dice.randbytes(dice.randrange(1, 60)) for _ in range(64)]
    made += [b"TRG\x01" + dice.randbytes(dice.randrange(0, 60)) for _ in range(64)]
    made += [b"TRG\x63" + dice.randbytes(40) for _ in range(16)]
    made += [b""] * 4
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect((node.host, node.port))
    start, unsent = time.monotonic(), 0
    for i in range(options.datagrams):
        try:
            sender.send(made[i % len(made)])
        except OSError:
            unsent += 1
    took = time.monotonic() - start
    say("  datagrams sent", f"{options.datagrams - unsent:,} in {took:.1f} s ({options.datagrams / took:,.0f}/s)")


ATTACKS = [random_resp, mutated_resp, truncated_resp, oversized_resp, long_keys, native, idle_connections, one_byte_a_second, datagrams]


def attack(node, run, options, pipe, base):
    print(f"\n{run.__name__.replace('_', ' ')}")
    before = node.metrics()
    pipe.send("forget")
    pipe.recv()
    stage.part(run, node, options, random.Random(options.seed))
    pipe.send("report")
    latencies, errors = pipe.recv()
    worst = latencies[-1] if latencies else float("inf")
    say("  others meanwhile", f"{3 * len(latencies):,} answers, p50 {stage.percentile(latencies, .5) or 0:.2f} ms, "
        f"p99 {stage.percentile(latencies, .99) or 0:.2f} ms, longest {worst:.1f} ms", f"longest <= {options.worst_max_ms} ms", worst <= options.worst_max_ms)
    say("  errors they saw", errors[:3] or 0, "0", not errors)
    resident = node.resident_bytes()
    say("  memory, growth since the start", f"{mib(resident)}, {mib(resident - base)}", f"<= {options.growth_mib_max} MiB", resident - base <= options.growth_mib_max << 20)
    time.sleep(0.5)
    quiet = ("commands", "hits", "misses", "ops_local", "accepted")
    moved = {name.removeprefix("trellis_").removesuffix("_total"): int(value - before.get(name, 0)) for name, value in node.metrics().items()
             if name.endswith("_total") and value > before.get(name, 0) and not name.removesuffix("_total").endswith(quiet)}
    say("  counters that moved", moved)
    wanted = options.counters.get(run.__name__)
    if wanted:
        say("  the counters of this attack", {name: moved.get(name, 0) for name in wanted}, "each moved", all(moved.get(name) for name in wanted))


def main():
    parser = stage.arguments(__doc__)
    parser.add_argument("--inputs", type=int, default=2000, help="inputs of each random kind")
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--slow", type=int, default=500, help="clients that send a byte a second")
    parser.add_argument("--slow-seconds", type=int, default=40)
    parser.add_argument("--datagrams", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worst-max-ms", type=float, default=500)
    parser.add_argument("--growth-mib-max", type=int, default=512)
    parser.add_argument("--only", nargs="+", choices=[run.__name__ for run in ATTACKS])
    options = stage.parsed(parser)
    options.counters = {
        "random_resp": ["protocol_errors_resp"], "mutated_resp": ["protocol_errors_resp"], "oversized_resp": ["protocol_errors_resp"],
        "native": ["protocol_errors_native", "native_strangers_refused"], "one_byte_a_second": ["connections_closed_slow"],
        "datagrams": ["gossip_datagrams", "gossip_refused_garbage", "gossip_refused_version", "gossip_refused_cluster"],
    }
    node, stop = Node([], ["--threads", str(options.threads)]), multiprocessing.Event()
    # After the node, which raises its own limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ours, theirs = multiprocessing.Pipe()
    others = multiprocessing.Process(target=probe, args=((node.host, node.port), stop, theirs), daemon=True)
    others.start()
    try:
        base = node.resident_bytes()
        for run in ATTACKS:
            if not options.only or run.__name__ in options.only:
                attack(node, run, options, ours, base)
        print()
        say("the process lives", node.alive(), True, node.alive())
        say("most memory it ever had", mib(node.resident_bytes("VmHWM")))
        stop.set()
        others.join(5)
        say("stopped in order", code := node.stop(), 0, code == 0)
    finally:
        stop.set()
        node.kill()
    stage.finish()


main()
