"""Clients that record everything they ask and are told, and what is to be found in such a record.

Registers have one writer each, which writes rising numbers, so that every stale or backward read shows. Names of a set are written once. Counters are shared. Keys that
were deleted, or whose deadline has passed, are looked at again. All is at the level of the nodes, which is quorum.
"""

import bisect
import collections
import multiprocessing
import pickle
import random
import tempfile
import time
from pathlib import Path

from resp import Connection, Refusal

REGISTERS, COUNTERS = 20, 4
# What a client waits for an answer: longer than any node takes to give one.
ANSWER_SECONDS_MAX = 3
LIFETIME_MS = 2_000
# By so much a deadline may be off.
DEADLINE_SLACK_SECONDS = 1

# What came of an operation: it was done, it was not, or nobody knows.
DONE, NOT_DONE, UNKNOWN = "done", "not done", "unknown"
Record = collections.namedtuple("Record", "kind key begun ended value outcome")


class Client(multiprocessing.Process):
    """One client, which goes to another node whenever one fails it. `addresses` are those of all nodes there may be."""

    def __init__(self, number, clients, addresses, rate, stop):
        super().__init__(daemon=True)
        self.number, self.clients, self.addresses, self.rate, self.stop = number, clients, addresses, rate, stop
        self.file = Path(tempfile.mkdtemp(prefix="trellis-")) / "history"

    def run(self):
        self.dice = random.Random(self.number)
        self.history, self.errors, self.longest, self.failing_since = [], collections.Counter(), (0, 0), None
        self.connection, self.written, self.members, self.deleted, self.mortal = None, collections.Counter(), 0, [], []
        while not self.stop.is_set():
            began = time.monotonic()
            self.one()
            time.sleep(max(0, 1 / self.rate - (time.monotonic() - began)))
        self.file.write_bytes(pickle.dumps((self.history, self.errors, self.longest)))

    def one(self):
        roll = self.dice.random()
        if roll < 0.3:
            key = f"r:{self.number}:{self.dice.randrange(REGISTERS)}"
            self.written[key] += 1
            self.ask("write", key, self.written[key], "SET", key, self.written[key])
        elif roll < 0.65:
            self.read("read", f"r:{self.dice.randrange(self.clients)}:{self.dice.randrange(REGISTERS)}")
        elif roll < 0.75:
            self.members += 1
            self.ask("add", f"s:{self.number}:{self.members}", 1, "SET", f"s:{self.number}:{self.members}", 1)
        elif roll < 0.85:
            key = f"c:{self.dice.randrange(COUNTERS)}"
            self.ask("count", key, 1, "INCR", key)
        elif roll < 0.93:
            self.delete()
        else:
            self.expire()

    def delete(self):
        if self.deleted and self.dice.random() < 0.5:
            return self.read("read deleted", self.dice.choice(self.deleted))
        key = f"d:{self.number}:{len(self.history)}"
        # Whether a write of unknown outcome comes before its delete, nobody can say.
        if self.ask("add deleted", key, 1, "SET", key, 1) == DONE and self.ask("delete", key, None, "DEL", key) == DONE:
            self.deleted.append(key)

    def expire(self):
        if self.mortal and self.dice.random() < 0.6:
            return self.read("read mortal", self.dice.choice(self.mortal[-50:]))
        key = f"e:{self.number}:{len(self.history)}"
        if self.ask("add mortal", key, 1, "SET", key, 1, "PX", LIFETIME_MS) == DONE:
            self.mortal.append(key)

    def read(self, kind, key):
        self.ask(kind, key, None, "GET", key)

    def ask(self, kind, key, value, *words):
        begun, outcome = time.monotonic(), UNKNOWN
        try:
            self.connection = self.connection or Connection(*self.dice.choice(self.addresses), ANSWER_SECONDS_MAX)
            answer = self.connection.ask(*words)
            outcome, value = DONE, answer if words[0] == "GET" else value
        except Refusal as refusal:
            text = str(refusal)
            self.errors[text.split(" ")[0]] += 1
            outcome = UNKNOWN if "applied: unknown" in text else NOT_DONE
            self.change_node()
        except OSError as error:
            self.errors[type(error).__name__] += 1
            # Without a connection nothing was sent.
            outcome = UNKNOWN if self.connection else NOT_DONE
            self.change_node()
        ended = time.monotonic()
        self.history.append(Record(kind, key, begun, ended, value, outcome))
        if outcome == DONE:
            if self.failing_since is not None:
                self.longest = max(self.longest, (ended - self.failing_since, ended))
            self.failing_since = None
        elif self.failing_since is None:
            self.failing_since = begun
        return outcome

    def change_node(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def report(self):
        self.join(ANSWER_SECONDS_MAX * 4)
        if not self.file.exists():
            raise AssertionError(f"client {self.number} did not come to its end")
        return pickle.loads(self.file.read_bytes())


class Rising:
    """The greatest value known at a moment."""

    def __init__(self, pairs):
        self.times, self.values, greatest = [], [], 0
        for moment, value in sorted(pairs):
            greatest = max(greatest, value)
            self.times.append(moment)
            self.values.append(greatest)

    def before(self, moment):
        at = bisect.bisect_left(self.times, moment)
        return self.values[at - 1] if at else 0


def number(value):
    return int(value or 0)


def check(history):
    """What is wrong, by kind, and what there was of it."""
    of_key = collections.defaultdict(lambda: collections.defaultdict(list))
    for record in history:
        of_key[record.key][record.kind].append(record)
    found, seen = collections.Counter(), collections.Counter(record.kind for record in history if record.outcome == DONE)
    for records in of_key.values():
        registers(records, found)
        deletes(records, found)
        deadlines(records, found)
    return found, seen


def registers(records, found):
    if not records["write"]:
        return
    # What nobody was answered to may be done at any later time, once.
    late = {write.value for write in records["write"] if write.outcome == UNKNOWN}
    reads = [read for read in records["read"] + records["final read"] if read.outcome == DONE]
    written = Rising((write.ended, write.value) for write in records["write"] if write.outcome == DONE)
    begun = Rising((write.begun, write.value) for write in records["write"])
    told = Rising((read.ended, number(read.value)) for read in reads)
    for read in reads:
        value = number(read.value)
        if value in late:
            continue
        if value < written.before(read.begun):
            found["lost" if read.kind == "final read" else "stale reads"] += 1
        if value < told.before(read.begun):
            found["backward reads"] += 1
        if value > begun.before(read.ended):
            found["values from nowhere"] += 1


def deletes(records, found):
    gone = [record.ended for record in records["delete"] if record.outcome == DONE]
    if gone:
        looked = records["read deleted"] + records["final read"]
        found["resurrected"] += sum(read.outcome == DONE and read.value is not None and read.begun > gone[0] for read in looked)


def deadlines(records, found):
    for add in records["add mortal"]:
        for read in records["read mortal"] + records["final read"]:
            if read.outcome != DONE or add.outcome != DONE:
                continue
            lifetime = LIFETIME_MS / 1000
            if read.value is None and read.begun > add.ended and read.ended < add.begun + lifetime - DEADLINE_SLACK_SECONDS:
                found["gone too soon"] += 1
            if read.value is not None and read.begun > add.ended + lifetime + DEADLINE_SLACK_SECONDS:
                found["outlived its deadline"] += 1


def finals(history):
    """Keys that are to be read in the end."""
    written = {record.key for record in history if record.kind in ("write", "count")}
    added = {record.key for record in history if record.kind == "add" and record.outcome == DONE}
    dead = {record.key for record in history if record.kind in ("delete", "add mortal") and record.outcome == DONE}
    return sorted(written | added | dead)


def check_finals(history, values):
    """What the values of all keys in the end say of sets and counters."""
    found = collections.Counter()
    for record in history:
        if record.kind == "add" and record.outcome == DONE and values.get(record.key) is None:
            found["lost"] += 1
    for counter in {record.key for record in history if record.kind == "count"}:
        outcomes = collections.Counter(record.outcome for record in history if record.key == counter and record.kind == "count")
        value = number(values.get(counter))
        found["increments lost"] += max(0, outcomes[DONE] - value)
        found["increments counted twice"] += max(0, value - outcomes[DONE] - outcomes[UNKNOWN])
    return found
