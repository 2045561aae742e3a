"""The same random commands to a Trellis node and to redis-server, replies compared byte for byte.

    differential_redis.py [--sequences N] [--seed S] [--commands a,b,...] [--redis-server PATH]

Covers every command that `COMMAND INFO` of both servers knows, except those of EXCLUDED; what may differ, and why, is written below. Prints
each difference with the fewest commands that show it, and how much was compared. Exits 1 if anything differs. Starts and stops both servers.
"""

import argparse
import io
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter

from cluster import Node, eventually, free_port
from grammar import DUMPED, Grammar
from resp import command

VALUE_BYTES_MAX = "1048576"
# Longer than the short deadlines of the grammar.
PAUSE_SECONDS = 0.03

# ---- the written list: what is not compared, or not byte for byte, each with its reason ----

EXCLUDED = {
    "time": "is another moment on each",
    "randomkey": "is drawn by lot",
    "info": "describes the server",
    "hello": "describes the server; the version of the protocol is set by it before each sequence",
    "auth": "no password is configured; the session's own tests hold its replies",
    "quit": "closes the connection",
    "reset": "ends RESP3 in the midst of a sequence",
    "wait": "counts replicas, of which there are none in one and others in the other",
    "lolwut": "is drawn by lot",
    "config": "describes the server", "client": "describes the connection", "command": "describes the server, whose commands are fewer",
    "cluster": "describes the server", "slowlog": "describes the server", "latency": "describes the server", "debug": "is off",
    "acl": "describes the server", "module": "describes the server", "function": "describes the server",
    "memory|doctor": "is refused", "memory|stats": "is refused", "memory|purge": "is refused", "memory|malloc-stats": "is refused",
    "memory|help": "lists what there is",
    "monitor": "never ends", "sync": "never ends", "psync": "never ends", "shutdown": "ends the server", "replicaof": "makes a replica",
    "slaveof": "makes a replica", "failover": "needs a replica", "save": "writes a file", "bgsave": "writes a file", "bgrewriteaof": "writes a file",
    "lastsave": "is another moment on each", "role": "describes the server",
    "subscribe": "is in differential_pubsub.py", "unsubscribe": "is in differential_pubsub.py", "psubscribe": "is in differential_pubsub.py", "punsubscribe": "is in differential_pubsub.py", "ssubscribe": "is in differential_pubsub.py", "sunsubscribe": "is in differential_pubsub.py",
    "publish": "is in differential_pubsub.py", "spublish": "is in differential_pubsub.py", "pubsub": "is in differential_pubsub.py", "readonly": "is of a cluster", "readwrite": "is of a cluster", "asking": "is of a cluster",
}

# Commands that leave a value which Redis keeps in another way than what was SET, though the bytes are the same.
EDITS = {b"append", b"setrange", b"setbit", b"bitfield", b"incrbyfloat", b"bitop", b"copy", b"restore"}


def is_error(reply):
    return reply[:1] == b"-"


def is_missing(reply):
    return reply in (b"$-1\r\n", b"_\r\n")


def both(test, ours, theirs):
    return test(ours) and test(theirs)


def integers_within(distance):
    def same(ours, theirs, _):
        return both(lambda reply: reply[:1] == b":", ours, theirs) and abs(int(ours[1:]) - int(theirs[1:])) <= distance

    return same


def in_any_order(ours, theirs, _):
    split = lambda reply: (reply.split(b"\r\n")[0], sorted(reply.split(b"\r\n")[1:]))
    return split(ours) == split(theirs)


def both_found(ours, theirs, _):
    return not is_error(ours) and not is_error(theirs) and is_missing(ours) == is_missing(theirs)


def neither_refused(ours, theirs, _):
    return not is_error(ours) and not is_error(theirs)


def strict_about(*absent):
    """Redis answers one of these of a key that is not there before it has read the other arguments; Trellis reads them first."""

    def same(ours, theirs, _):
        return is_error(ours) and theirs in absent

    return same


def encoded_otherwise(ours, theirs, asked):
    return both_found(ours, theirs, asked) and any(words and lower(words[0]) in EDITS for words in asked)


def expired_counted(ours, theirs, asked):
    deadlines = {b"ex", b"px", b"exat", b"pxat"}
    ends = any(words and (b"ex" in lower(words[0]) or deadlines & {lower(word) for word in words if word is not DUMPED}) for words in asked)
    return both(lambda reply: reply[:1] == b":", ours, theirs) and ends


def about_equal_beyond_64_bits(ours, theirs, _):
    if not both(lambda reply: reply[:1] == b"$", ours, theirs):
        return False
    ours, theirs = (int(reply.split(b"\r\n")[1].split(b".")[0]) for reply in (ours, theirs))
    return abs(theirs) >= 1 << 64 and abs(ours - theirs) <= abs(theirs) >> 50


# Name to what else counts as the same, with the reason. Each is given both replies and all that was asked before.
TOLERATED = {
    "pttl": (integers_within(1000), "the two stamp a deadline some milliseconds apart"),
    "ttl": (integers_within(1), "the same, where it crosses the half of a second"),
    "expiretime": (integers_within(1), "the same"),
    "pexpiretime": (integers_within(1000), "the same"),
    "dbsize": (expired_counted, "both count keys that have expired until they are looked at or swept"),
    "incrbyfloat": (about_equal_beyond_64_bits, "from 2^64 on Trellis adds in 64 bits where Redis has 80"),
    "keys": (in_any_order, "keys come in no order"),
    "scan": (both_found, "cursors and pages differ; errors are compared"),
    "dump": (both_found, "the format is our own; each server restores its own payloads"),
    "memory|usage": (neither_refused, "entries take what they take; Redis tells of one that has expired until it is swept"),
    "object|idletime": (both_found, "Trellis knows the last change only"),
    "object|encoding": (encoded_otherwise, "Trellis tells how Redis would encode what was SET, not how the value came about"),
    "object|refcount": (integers_within(1), "in a transaction the queued SET has the value as well"),
    "getex": (strict_about(b"$-1\r\n", b"_\r\n"), "a bad number is an error whether or not the key exists"),
    "bitcount": (strict_about(b":0\r\n"), "as Redis 7.2: a bad range is an error whether or not the key exists"),
    "bitpos": (strict_about(b":0\r\n", b":-1\r\n"), "as Redis 7.2: a bad range is an error whether or not the key exists"),
    "restore": (lambda ours, theirs, _: is_error(ours) and theirs.startswith(b"-BUSYKEY"), "arguments are read before the key is looked for"),
    "delex": (strict_about(b":0\r\n"), "a bad condition is an error whether or not the key exists"),
}

# What is stored differs after a tolerated difference of these, so the rest of the sequence is not compared.
LEAVES_ANOTHER_VALUE = {"incrbyfloat"}


# ---- servers ----


def raw(file):
    """One reply, its bytes."""
    line = file.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("the server hung up")
    kind, size = line[:1], line[1:-2]
    if kind in b"+-:_,#(":
        return line
    if kind in b"$=!":
        return line + (file.read(int(size) + 2) if int(size) >= 0 else b"")
    if kind in b"*~>%":
        return line + b"".join(raw(file) for _ in range(int(size) * (2 if kind == b"%" else 1)))
    raise ConnectionError(f"not a reply: {line!r}")


def elements(array):
    """The replies in an array, their bytes."""
    file = io.BytesIO(array)
    return [raw(file) for _ in range(int(file.readline()[1:]))]


class Server:
    """A connection to one of the two, which gives replies as they come."""

    def __init__(self, port):
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", 1 << 16)
        self.dumped = b"nothing was dumped yet"

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, words):
        self.socket.sendall(b"".join(command(*[self.dumped if word is DUMPED else word for word in each]) for each in words))

    def ask(self, *words):
        self.send([words])
        return raw(self.file)

    def table(self):
        """The server's commands, subcommands as `container|name`."""
        names = self.parsed(self.ask("COMMAND", "LIST"))
        table = {}
        for name, info in zip(names, self.parsed(self.ask("COMMAND", "INFO", *names))):
            if info:
                table[name.decode()] = info
        return table

    def parsed(self, raw):
        """A RESP2 reply as Python has it."""
        lines = iter(raw.split(b"\r\n"))

        def value():
            line = next(lines)
            if line[:1] == b"*":
                return [value() for _ in range(int(line[1:]))]
            if line[:1] == b":":
                return int(line[1:])
            return line[1:] if line[:1] == b"+" else None if line == b"$-1" else next(lines)

        return value()


def lower(word):
    return (word if isinstance(word, bytes) else str(word).encode()).lower()


def name_of(words, table):
    name = lower(words[0]).decode(errors="replace")
    full = f"{name}|{lower(words[1]).decode(errors='replace')}" if len(words) > 1 and words[1] is not DUMPED else name
    return full if full in table else name


def segments(steps):
    """Commands that may go out together: a payload is known only once DUMP was answered, and a pause is one."""
    run = []
    for step in steps:
        if step is None or DUMPED in step:
            yield run
            run = []
        if step is None:
            yield None
        else:
            run.append(step)
    yield run


def play(servers, wire, steps):
    """The replies of both to a sequence on an empty store: a list of pairs."""
    connections = [Server(port) for port in servers]
    try:
        for server in connections:
            server.ask("HELLO", wire)
            server.ask("FLUSHALL")
        replies = []
        for run in segments(steps):
            if run is None:
                time.sleep(PAUSE_SECONDS)
                continue
            for server in connections:
                server.send(run)
            for words in run:
                ours, theirs = (raw(server.file) for server in connections)
                replies.append((ours, theirs))
                if lower(words[0]) == b"dump":
                    # Redis compresses; a payload of ours may be longer than an argument.
                    if both(lambda reply: reply[:1] == b"$" and not is_missing(reply) and len(reply) < int(VALUE_BYTES_MAX), ours, theirs):
                        for server, reply in zip(connections, (ours, theirs)):
                            server.dumped = reply.split(b"\r\n", 1)[1][:-2]
        return replies
    finally:
        for server in connections:
            server.close()


def first_difference(servers, wire, steps, table, seen=None):
    """The index of the first command that is answered otherwise, and the two replies; None if there is none."""
    replies = iter(play(servers, wire, steps))
    queued = []
    for at, words in enumerate(steps):
        if words is None:
            continue
        ours, theirs = next(replies)
        name = name_of(words, table)
        if seen is not None:
            seen[name] += 1
        if theirs == b"+QUEUED\r\n":
            queued.append(name)
        parts = [(name, ours, theirs)]
        if name == "exec" and both(lambda reply: reply[:1] == b"*" and reply[1:2] != b"-", ours, theirs):
            parts = list(zip(queued, elements(ours), elements(theirs)))
        if name in ("exec", "discard"):
            queued = []
        different = [part for part in parts if part[1] != part[2]]
        if ours != theirs and not all(tolerated(*part, steps[:at]) for part in different or parts):
            return at, ours, theirs
        if any(part[0] in LEAVES_ANOTHER_VALUE for part in different):
            break
    return None


def tolerated(name, ours, theirs, asked):
    return name in TOLERATED and TOLERATED[name][0](ours, theirs, asked)


def shrunk(servers, wire, steps, table):
    """The fewest of these commands that still differ in the last."""
    at = 0
    while at < len(steps) - 1:
        fewer = steps[:at] + steps[at + 1 :]
        found = first_difference(servers, wire, fewer, table)
        if found and found[0] == len(fewer) - 1:
            steps = fewer
        else:
            at += 1
    return steps


def show(words):
    if words is None:
        return f"(pause {PAUSE_SECONDS} s)"
    return " ".join("<last dump>" if word is DUMPED else repr(word)[:80] for word in words)


def compare(servers, options):
    tables = [Server(port).table() for port in servers]
    first_words = {name.split("|")[0] for name in tables[0]}
    table = {name: info for name, info in tables[0].items() if name in tables[1]}
    containers = {name.split("|")[0] for name in table if "|" in name}
    named = {name for name in table if name not in EXCLUDED and name.split("|")[0] not in EXCLUDED and name not in containers}
    if options.commands:
        named &= set(options.commands.split(","))
    print(f"{len(named)} commands: {' '.join(sorted(named))}")
    print(f"of ours, not there: {' '.join(sorted(first_words - {name.split('|')[0] for name in tables[1]}))}")
    seen, differences = Counter(), 0
    for number in range(options.sequences):
        dice = random.Random(f"{options.seed}/{number}")
        wire = dice.choice((2, 3))
        steps = Grammar(dice, {name: table[name] for name in named}, "delex" in table).sequence()
        found = first_difference(servers, wire, steps, table, seen)
        if found:
            differences += 1
            steps = shrunk(servers, wire, steps[: found[0] + 1], table)
            _, ours, theirs = first_difference(servers, wire, steps, table) or found
            print(f"\nsequence {number} of seed {options.seed}, RESP{wire}:")
            for words in steps:
                print(f"    {show(words)}")
            print(f"  Trellis {ours[:300]!r}\n  Redis   {theirs[:300]!r}", flush=True)
            if differences == options.differences_max:
                break
    never = sorted(named - set(seen))
    if never:
        print(f"never asked: {' '.join(never)}")
    print(f"{number + 1} sequences, {sum(seen.values())} commands compared, {differences} differences")
    return differences


def answers(port):
    try:
        Server(port).close()
        return True
    except ConnectionRefusedError:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--commands", help="only these")
    parser.add_argument("--redis-server", default=shutil.which("redis-server") or "redis-server")
    parser.add_argument("--differences-max", type=int, default=20, help="stop after so many")
    options = parser.parse_args()
    port = free_port()
    # With a limit and LRU, as a node is: then integers are not shared, and OBJECT REFCOUNT is 1.
    settings = {"port": port, "save": "", "databases": "1", "proto-max-bulk-len": VALUE_BYTES_MAX, "maxmemory": "1gb", "maxmemory-policy": "allkeys-lru"}
    arguments = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    redis = subprocess.Popen([options.redis_server, *arguments, "--dir", tempfile.mkdtemp()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: answers(port), "redis-server answers")
        node = Node(options=["--max-value-size", VALUE_BYTES_MAX, "--max-memory", "1gb", "--threads", "2"])
        try:
            sys.exit(1 if compare((node.port, port), options) else 0)
        finally:
            node.kill()
    finally:
        redis.kill()
        redis.wait()


main()
