#!/usr/bin/env python3
"""Asks nodes and redis-server the same about channels and keys, and compares what subscribers hear: random dialogues of subscribers and publishers byte
by byte, and the events of random commands on keys (notify-keyspace-events KEAmn) key by key, on three nodes as on one server.

Where a command concerns several keys, events of different keys have no order over several nodes. Patterns are heard in any order, as in Redis, whose order is
that of a hash table. Not compared: SET with a deadline that is past, which expires here at once and there when
somebody looks; MSETNX that names a key twice, which sets it once here.
"""

import argparse
import random
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from cluster import Process, cluster, eventually, free_port
from resp import Connection, Refusal, command

NAMES = ["a", "b", "news", "n", ""]
PATTERNS = ["*", "n*", "a", "[ab]", "?"]
# A message by a pattern, of either version.
BY_PATTERN = re.compile(rb"[*>]4\r\n\$8\r\npmessage\r\n(?:\$\d+\r\n[^\r]*\r\n){3}")


def line(rng):
    names = lambda pool, least=1: " ".join(rng.choice([word for word in pool if word] or pool) for _ in range(rng.randint(least, 3)))
    return rng.choice([
        lambda: f"SUBSCRIBE {names(NAMES)}", lambda: f"PSUBSCRIBE {names(PATTERNS)}", lambda: f"SSUBSCRIBE {names(NAMES)}",
        lambda: f"UNSUBSCRIBE {names(NAMES)}", lambda: f"PUNSUBSCRIBE {names(PATTERNS)}", lambda: f"SUNSUBSCRIBE {names(NAMES)}",
        lambda: "UNSUBSCRIBE", lambda: "PUNSUBSCRIBE", lambda: "SUNSUBSCRIBE", lambda: "RESET", lambda: "PING", lambda: "PING x", lambda: "PING x y",
        lambda: f"PUBLISH {names(NAMES[:4]).split()[0]} m{rng.randint(0, 9)}", lambda: f"SPUBLISH {names(NAMES[:4]).split()[0]} s",
        lambda: "GET k", lambda: "SET k v", lambda: "FOO", lambda: "GET", lambda: "HELLO 3", lambda: "HELLO 2", lambda: "SUBSCRIBE", lambda: "PUBLISH a",
        lambda: f"PUBSUB NUMSUB {names(NAMES, 0)}", lambda: "PUBSUB NUMPAT", lambda: f"PUBSUB SHARDNUMSUB {names(NAMES, 0)}", lambda: "PUBSUB FOO",
        lambda: "PUBSUB CHANNELS zz*", lambda: "PUBSUB NUMPAT x", lambda: "PUBSUB CHANNELS a b", lambda: "PUBSUB HELP", lambda: "PUBSUB",
        lambda: "CLIENT REPLY SKIP", lambda: "CLIENT KILL TYPE pubsub ID 999999",
        lambda: "\r\n".join(["MULTI", *(rng.choice(["SUBSCRIBE a n", "PUBLISH a t", "PUBLISH n t", "UNSUBSCRIBE a", "PSUBSCRIBE n*", "GET k", "SET k w", "PING"])
                                        for _ in range(rng.randint(1, 4))), "EXEC"]),
    ])()


class Talker:
    """A connection of which everything that has come is known: markers say so."""

    def __init__(self, host, port):
        self.connection, self.markers, self.held = Connection(host, port, 20), 0, b""

    def settle(self):
        """All that has come. What was pushed before the first marker is there before the second."""
        for _ in range(2):
            self.markers += 1
            marker = b"marker%d" % self.markers
            self.connection.send(b"PING %s\r\n" % marker)
            forms = [b"*2\r\n$4\r\npong\r\n$%d\r\n%s\r\n" % (len(marker), marker), b"$%d\r\n%s\r\n" % (len(marker), marker)]
            while not any(form in self.held for form in forms):
                data = self.connection.socket.recv(1 << 16)
                if not data:
                    raise AssertionError(f"hung up after {self.held!r:.300}")
                self.held += data
            for form in forms:
                self.held = self.held.replace(form, b"")
        came, self.held = self.held, b""
        return came


def plain(text, sent):
    """What Redis leaves to a hash table is put in order; what names a version is left out."""
    text = re.sub(rb"(\r\nversion\r\n)\$\d+\r\n[\d.]+|(\r\nid\r\n):\d+", rb"\1\2", text)
    if sent.startswith(b"HELLO") or sent in (b"UNSUBSCRIBE", b"PUNSUBSCRIBE", b"SUNSUBSCRIBE"):
        return sorted(text.split(b"\r\n"))
    return BY_PATTERN.sub(b"", text), sorted(BY_PATTERN.findall(text))


def dialogue(seed, ours, theirs):
    rng = random.Random(seed)
    pairs = [(Talker(*ours), Talker(*theirs)) for _ in range(2)]
    said = []
    try:
        for _ in range(25):
            who, text = rng.randrange(2), line(rng).encode()
            said.append((who, text))
            for side in pairs[who]:
                side.connection.send(text + b"\r\n")
            # A reply that is skipped must not be a marker's: that of the next command is.
            if text == b"CLIENT REPLY SKIP":
                for side in pairs[who]:
                    side.connection.send(b"PING\r\n")
            for mine, its in (pairs[who], pairs[1 - who]):
                got, expected = plain(mine.settle(), text), plain(its.settle(), text)
                if got != expected:
                    raise AssertionError(f"seed {seed}: after {said}\n  node  {got!r}\n  redis {expected!r}")
    finally:
        for mine, its in pairs:
            mine.connection.close()
            its.connection.close()
    # Who hung up is a subscriber until the server sees it.
    for server in (ours, theirs):
        asker = Connection(*server, 20)
        eventually(lambda asker=asker: is_unheard(asker), "nobody is subscribed to anything")
        asker.close()
    return len(said)


def is_unheard(asker):
    counts = asker.ask("PUBSUB", "NUMSUB", *NAMES)[1::2] + asker.ask("PUBSUB", "SHARDNUMSUB", *NAMES)[1::2]
    return not any(counts) and asker.ask("PUBSUB", "NUMPAT") == 0


TAGGED = ["{t}a", "{t}b", "{t}c"]
APART = ["k1", "k2", "k3", "k4"]
VALUES = ["", "v", "10", "1.5", "abcdefgh", "-3"]


def key_command(rng, keys):
    key, value = rng.choice(keys), rng.choice(VALUES)
    other = rng.choice(keys)
    together = keys is TAGGED
    until = rng.choice([["EX", "100"], ["PX", "100000"], ["EXAT", "99999999999"], ["KEEPTTL"], []])
    choices = [
        ["SET", key, value, *until], ["SET", key, value, rng.choice(["NX", "XX"])], ["SET", key, value, "GET"],
        ["SETNX", key, value], ["SETEX", key, "100", value], ["PSETEX", key, "100000", value], ["GETSET", key, value], ["GETDEL", key],
        ["GETEX", key], ["GETEX", key, "EX", "100"], ["GETEX", key, "PERSIST"], ["GETEX", key, "PXAT", "1"],
        ["DEL", key], ["DEL", key, other], ["UNLINK", key], ["APPEND", key, value], ["INCR", key], ["DECRBY", key, "5"], ["INCRBY", key, "2"],
        ["INCRBYFLOAT", key, "1.5"], ["SETRANGE", key, "3", value], ["SETBIT", key, "7", rng.choice("01")],
        ["BITFIELD", key, "SET", "u8", "0", "65"], ["BITFIELD", key, "GET", "u8", "0"], ["BITFIELD", key, "INCRBY", "u8", "0", "0"],
        ["EXPIRE", key, "100"], ["EXPIRE", key, "-1"], ["PEXPIRE", key, str(rng.randint(10**5 + 10**4, 10**8)), rng.choice(["NX", "XX", "GT", "LT"])], ["EXPIREAT", key, "1"],
        ["PERSIST", key], ["MSET", key, value, other, "w"], ["MGET", key, other], ["GET", key], ["EXISTS", key, other], ["TYPE", key], ["TTL", key],
        ["STRLEN", key], ["GETRANGE", key, "0", "1"], ["GETBIT", key, "1"], ["BITCOUNT", key], ["BITPOS", key, "1"], ["TOUCH", key], ["DUMP", key],
        ["OBJECT", "ENCODING", key], ["RENAME", key, other], ["RENAMENX", key, other], ["COPY", key, other, *rng.choice([[], ["REPLACE"]])],
        ["BITOP", rng.choice(["AND", "OR", "XOR"]), key, other, rng.choice(keys)], ["BITOP", "NOT", key, other], ["MSETNX", key, value, rng.choice([name for name in keys if name != key]), "w"],
        ["LCS", key, other], ["RESTORE", key, "0", "bad"],
    ]
    chosen = rng.choice(choices)
    if not together and chosen[0] == "COPY":
        # An absent key that would be copied to another partition is no miss here.
        return ["GET", key]
    return chosen


class Hearer:
    """A subscriber to all events, and who says that nothing more will come: a marker through every node."""

    def __init__(self, nodes):
        self.listener = Connection(*nodes[0], 20)
        self.publishers = [Connection(*node, 20) for node in nodes]
        self.publishers[0].ask("CONFIG", "SET", "notify-keyspace-events", "KEAmn")
        for words in (["PSUBSCRIBE", "__key*__:*"], ["SUBSCRIBE", "marker"]):
            self.listener.ask(*words)

    def heard(self):
        """Of each key, what was told on its own channel and on those of events."""
        for publisher in self.publishers:
            publisher.ask("PUBLISH", "marker", "x")
        left, events = len(self.publishers), {}
        while left:
            message = self.listener.read()
            if message[0] == b"message":
                left -= 1
                continue
            _, _, channel, payload = message
            if channel.startswith(b"__keyspace@0__:"):
                events.setdefault(channel[15:], ([], []))[0].append(payload)
            else:
                events.setdefault(payload, ([], []))[1].append(channel[15:])
        return events


def key_events(seed, hearers):
    rng = random.Random(seed)
    keys = rng.choice([TAGGED, TAGGED, APART])
    asked = 0
    for hearer in hearers:
        hearer.publishers[0].ask("FLUSHALL")
        hearer.heard()
    for _ in range(30):
        block = [key_command(rng, keys)]
        if keys is TAGGED and rng.random() < 0.1:
            block = [["MULTI"], *(key_command(rng, keys) for _ in range(3)), ["EXEC"]]
        results = []
        for hearer in hearers:
            # Through any node.
            asker = rng.choice(hearer.publishers[1:] or hearer.publishers) if len(block) == 1 else hearer.publishers[-1]
            for words in block:
                asker.send(command(*words))
                asker.read()
            results.append(hearer.heard())
        asked += len(block)
        if results[0] != results[1]:
            raise AssertionError(f"seed {seed}: {block}\n  node  {results[0]}\n  redis {results[1]}")
    return asked


def deadlines(hearers):
    """Keys expire once, whether somebody looks or not, and are told of once, by one node."""
    told = []
    for hearer in hearers:
        hearer.publishers[0].ask("FLUSHALL")
        hearer.heard()
        asker = hearer.publishers[-1]
        for i in range(20):
            asker.ask("SET", f"d{i}", "v", "PX", "50")
        time.sleep(0.06)
        for i in range(10):
            asker.ask("EXISTS", f"d{i}")
        all_events = {}

        def all_told():
            for key, (by_key, by_event) in hearer.heard().items():
                events = all_events.setdefault(key, ([], []))
                events[0].extend(by_key)
                events[1].extend(by_event)
            return sum(b"expired" in by_key for by_key, _ in all_events.values()) == 20

        eventually(all_told, "all that expired is told of")
        # Whoever has a copy has swept it by then.
        time.sleep(1)
        all_told()
        # A look that came after the deadline is a miss; whether it was that or a sweep first is chance.
        told.append({key: tuple([e for e in events if e != b"keymiss"] for events in both) for key, both in all_events.items()})
    if told[0] != told[1]:
        raise AssertionError(f"deadlines:\n  node  {told[0]}\n  redis {told[1]}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--sequences", type=int, default=60, help="dialogues, and sequences of commands")
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    if not shutil.which("redis-server"):
        sys.exit("needs redis-server")
    folder, port = Path(tempfile.mkdtemp(prefix="trellis-")), free_port()
    theirs = Process(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)], folder / "redis.log",
                     stdout=open(folder / "redis.out", "wb"))
    try:
        eventually(lambda: answers(port), "redis-server answers")
        with cluster(1) as alone:
            seeds = range(given.seed, given.seed + given.sequences)
            said = sum(dialogue(seed, (alone[0].host, alone[0].port), ("127.0.0.1", port)) for seed in seeds)
        asked = 0
        for size in (1, 3):
            with cluster(size) as nodes:
                hearers = [Hearer([(node.host, node.port) for node in nodes]), Hearer([("127.0.0.1", port)])]
                asked += sum(key_events(seed, hearers) for seed in seeds)
                deadlines(hearers)
                for hearer in hearers:
                    hearer.listener.close()
    finally:
        theirs.kill()
    print(f"{given.sequences} dialogues with {said} lines and {2 * given.sequences} sequences with {asked} commands on keys: no difference")


def answers(port):
    try:
        Connection("127.0.0.1", port).ask("PING")
        return True
    except OSError:
        return False


main()
