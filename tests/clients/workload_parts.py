"""The parts of a realistic workload and what must be true of their replies, for any client: sessions, a rate limiter, a cache with one loader a miss, an
import, large and odd values.

A part speaks to a `Store` (`workload_redis.py`, `workload_memcached.py`, `workload_ioredis.py`) and counts what it asserts in a `Tally`. `workload.py` runs them.

Of a Store's errors, `broken(error)` is what the client says of a connection to the node that was killed, whenever it comes to use it; `passing(error)` what a
node may answer while another is being found dead, and not later. Both are repeated, and counted. `doubtful(error)` may have been done all the same. Anything
else, and anything at another time, is a failure. Only in the crowd of the short form may nodes answer so at any time.
"""

import asyncio
import collections
import random
import threading
import time

# What nodes answer may pass from the moment that the fourth node is started until so many seconds after the kill: as long as a member may be silent, and a
# request under way.
UNREST_SECONDS = 10
# Until a request must have had a good reply.
REPEATED_SECONDS_MAX = 20
# Longer than any request may be repeated: nobody loses a lock to its deadline.
LOCK_SECONDS = 60
# Between the clock of a node and of this process, when both are on one machine.
MARGIN_SECONDS = 0.05
LIMIT, WINDOW_SECONDS, KEPT_SECONDS = 20, 2, 600
PAGE_EVERY_SECONDS, LOAD_SECONDS = 0.25, 0.03
# Faults of one part that are told in words.
FAULTS_TOLD_MAX = 20
# At level one a write that was acknowledged this short before the kill may be lost with the node that took it.
ONE_LOSES_SECONDS = 0.2

ODD = [b"", b"\r\n", b"\0", b"END\r\n", b"$-1\r\n", b"VALUE x 0 1\r\nx\r\n", bytes(range(256)), bytes(range(255, -1, -1)) * 9]
BLOB = bytes(range(256)) * 4096


class Unexpected(Exception):
    """An error that is not among those that may pass."""


class Tally:
    """What one client asserted, a part at a time, and what failed; used by many threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.asserted, self.failed = collections.Counter(), collections.Counter()
        self.repeated = collections.Counter()
        self.faults, self.slowest, self.doubts = [], 0.0, 0

    def expect(self, part, truth, what):
        with self.lock:
            self.asserted[part] += 1
        if not truth:
            self.fault(part, what)

    def fault(self, part, what):
        with self.lock:
            self.failed[part] += 1
            if self.failed[part] <= FAULTS_TOLD_MAX:
                self.faults.append(f"{part}: {what}")

    def passed(self, error, doubtful):
        with self.lock:
            # A pipeline tells the command before the error.
            text = str(error).rpartition("caused error: ")[2]
            self.repeated[f"{type(error).__name__}: {text}"[:110]] += 1
            self.doubts += doubtful

    def answered(self, seconds):
        with self.lock:
            self.slowest = max(self.slowest, seconds)


class Control:
    """What the processes of a round know of it. Times are those of the monotonic clock, which they share."""

    def __init__(self, context, crowded):
        # Nine clients and four nodes on one small machine: a node may not be heard in time before anybody dies.
        self.crowded = crowded
        self.unrest_at, self.killed_at = context.Value("d", float("inf")), context.Value("d", float("inf"))
        self.settled, self.half = context.Event(), context.Semaphore(0)

    def killed(self):
        return self.killed_at.value < float("inf")

    def unrest(self, now):
        return self.crowded or self.unrest_at.value <= now <= self.killed_at.value + UNREST_SECONDS

    def when(self, now):
        return f"{now - self.killed_at.value:+.2f} s from the kill" if self.killed() else "before the kill"


class Shared:
    """What the workers of one client share, besides the servers."""

    def __init__(self, client, control, options):
        self.client, self.control, self.options = client, control, options
        self.tally, self.started = Tally(), time.monotonic()
        self.replies, self.doubts, self.loads = collections.defaultdict(list), collections.Counter(), collections.Counter()
        self.turns, self.doubtful_turns = 0, 0
        self.halves = 0


class Worker:
    """One user of one client: its part, its store, its own dice."""

    def __init__(self, shared, part, number, store):
        self.shared, self.part, self.number, self.store = shared, part, number, store
        self.name = f"{shared.client}:{part}:{number}"
        self.dice = random.Random(f"{shared.options.seed}:{self.name}")
        self.control, self.tally = shared.control, shared.tally

    def over(self):
        return self.control.settled.is_set()

    async def pause(self, seconds=None):
        await asyncio.sleep(seconds or self.shared.options.pause * self.dice.uniform(0.5, 1.5))

    def expect(self, truth, what):
        self.tally.expect(self.part, truth, f"{self.name}: {what}, {self.control.when(time.monotonic())}")

    async def attempt(self, what, call):
        """The reply, and how many attempts before it may have been done as well."""
        start, doubts = time.monotonic(), 0
        while True:
            try:
                reply = await call()
            except Exception as error:
                now = time.monotonic()
                broken = self.store.broken(error) and now >= self.control.unrest_at.value
                if not broken and not (self.store.passing(error) and self.control.unrest(now)):
                    raise Unexpected(f"{what}: {type(error).__name__}: {error}, {self.control.when(now)}") from error
                if now - start > REPEATED_SECONDS_MAX:
                    raise Unexpected(f"{what}: no good reply for {now - start:.1f} s, at last {type(error).__name__}: {error}") from error
                doubts += self.store.doubtful(error)
                self.tally.passed(error, self.store.doubtful(error))
                self.store.before_repeating(error)
                await asyncio.sleep(0.02)
            else:
                self.tally.answered(time.monotonic() - start)
                return reply, doubts

    async def ask(self, what, call):
        return (await self.attempt(what, call))[0]

    async def run(self):
        try:
            await PARTS[self.part](self)
        except Unexpected as error:
            self.tally.fault(self.part, f"{self.name}: {error}")
        finally:
            await self.store.close()


def told(value):
    return f"{value!r:.60}"


async def sessions(worker):
    """Sessions with a deadline: there before it, gone after it, whichever node is asked. A request is done somewhen between its start and its end."""
    known, store, sessions_max = {}, worker.store, worker.shared.options.sessions
    for turn in range(1 << 30):
        if worker.over():
            return
        await worker.pause()
        seconds = worker.dice.choice([1, 2, 4, 60])
        start = time.monotonic()
        if len(known) < sessions_max:
            key, value = f"{worker.name}:{turn}", f"visits={turn} ⏱".encode()
            await worker.ask("a session is written", lambda: store.set(key, value, seconds))
            known[key] = (value, start + seconds, time.monotonic() + seconds)
            continue
        key = worker.dice.choice(list(known))
        value, earliest, latest = known[key]
        action = worker.dice.choices(["read", "touch", "write", "delete"], [12, 4, 2, 1])[0]
        if action == "read":
            got = await worker.ask("a session is read", lambda: store.get(key))
            if time.monotonic() < earliest - MARGIN_SECONDS:
                worker.expect(got == value, f"{key} before its deadline: {told(got)}, expected {told(value)}")
            elif start > latest + MARGIN_SECONDS:
                worker.expect(got is None, f"{key} {start - latest:.3f} s after its deadline: {told(got)}")
                del known[key]
            else:
                worker.expect(got in (None, value), f"{key} about its deadline: {told(got)}")
        elif action == "touch":
            touched = await worker.ask("a session is touched", lambda: store.touch(key, seconds))
            end = time.monotonic()
            if end < earliest - MARGIN_SECONDS:
                worker.expect(touched, f"{key} can't be touched {earliest - end:.3f} s before its deadline")
            elif start > latest + MARGIN_SECONDS:
                worker.expect(not touched, f"{key} is touched {start - latest:.3f} s after its deadline")
            if touched:
                known[key] = (value, start + seconds, end + seconds)
            else:
                del known[key]
        elif action == "write":
            value += b"!"
            await worker.ask("a session is written again", lambda: store.set(key, value, seconds))
            known[key] = (value, start + seconds, time.monotonic() + seconds)
        else:
            await worker.ask("a session is ended", lambda: store.delete(key))
            worker.expect(await worker.ask("an ended session is read", lambda: store.get(key)) is None, f"{key} is there after its end")
            del known[key]


async def limiter(worker):
    """A fixed window: every acknowledged request has a number of its own, so no more than the limit are let through."""
    shared, store = worker.shared, worker.store
    while not worker.over():
        await worker.pause()
        key = f"{shared.client}:limit:{worker.dice.randrange(2)}:{int(time.monotonic() / WINDOW_SECONDS)}"
        number, doubts = await worker.attempt("a request is counted", lambda: store.count(key, KEPT_SECONDS))
        if number == 1 or doubts:
            await worker.ask("a window gets its deadline", lambda: store.touch(key, KEPT_SECONDS))
        with worker.tally.lock:
            twice = number in shared.replies[key]
            shared.replies[key].append(number)
            shared.doubts[key] += doubts
        worker.expect(not twice, f"{key}: {number} was given twice")


async def limiter_at_the_end(worker):
    """What is in the counters is what was acknowledged, and at most what was left in doubt besides."""
    shared = worker.shared
    for key, numbers in shared.replies.items():
        value = int(await worker.ask("a counter is read", lambda key=key: worker.store.get(key)) or 0)
        least, most = len(numbers), len(numbers) + shared.doubts[key]
        worker.expect(least <= value <= most, f"{key} is {value}, acknowledged were {least}, in doubt {most - least}")
        worker.expect(sum(number <= LIMIT for number in numbers) <= LIMIT, f"{key}: more than {LIMIT} were let through")
        worker.expect(all(1 <= number <= value for number in numbers), f"{key} is {value}, and {max(numbers)} was given")


async def cache(worker):
    """Cache-aside: all want a page at once, one loads it."""
    shared, store = worker.shared, worker.store
    last = None
    while not worker.over():
        page = int((time.monotonic() - shared.started) / PAGE_EVERY_SECONDS)
        if page == last:
            await worker.pause()
            continue
        last, key = page, f"{shared.client}:page:{page}"
        content = f"<html>{key}</html>".encode() * 20
        while True:
            got = await worker.ask("a page is read", lambda: store.get(key))
            if got is not None:
                break
            async with Turn(worker, f"{key}:lock") as mine:
                if mine and await worker.ask("a page is looked at again", lambda: store.get(key)) is None:
                    with worker.tally.lock:
                        shared.loads[key] += 1
                    await asyncio.sleep(LOAD_SECONDS)
                    await worker.ask("a page is stored", lambda: store.set(key, content, KEPT_SECONDS))
            if not mine:
                await asyncio.sleep(0.01)
        worker.expect(got == content, f"{key}: {told(got)}, expected {told(content)}")
        worker.expect(shared.loads[key] == 1, f"{key} was loaded {shared.loads[key]} times")


class Turn:
    """A lock that is tried once and given back."""

    def __init__(self, worker, key):
        self.worker, self.key, self.token = worker, key, f"{worker.name}:{worker.dice.getrandbits(64):x}".encode()
        self.mine = False

    async def __aenter__(self):
        store = self.worker.store
        self.mine = await self.worker.ask("a lock is asked for", lambda: store.take(self.key, self.token, LOCK_SECONDS))
        return self.mine

    async def __aexit__(self, *_):
        if self.mine:
            await self.worker.ask("a lock is given back", lambda: self.worker.store.give_back(self.key, self.token))


async def guarded(worker):
    """What a lock guards is done by one at a time: a number that is read, then written, loses nothing."""
    shared, store = worker.shared, worker.store
    key = f"{shared.client}:guarded"
    while not worker.over():
        async with Turn(worker, f"{shared.client}:guard") as mine:
            if mine:
                seen = int(await worker.ask("a guarded number is read", lambda: store.get(key)) or 0)
                worker.expect(seen == shared.turns, f"{seen} is read under the lock after {shared.turns} turns")
                await worker.ask("a guarded number is written", lambda: store.set(key, b"%d" % (seen + 1), KEPT_SECONDS))
                shared.turns += 1
        await worker.pause()
    for what, truth in await worker.ask("the rules of a lock", lambda: store.lock_rules(f"{worker.name}:rules:{worker.dice.random()}")):
        worker.expect(truth, what)


def imported(number):
    """The value of a key of the import: bytes of all kinds, each length from 0 to 199."""
    start = number % 256
    return (b"%d:" % number + BLOB[start : start + number % 200])[: max(number % 200, 8)]


async def bulk(worker):
    """An import: half of it before the kill, half during and after it; every key is read back at the end."""
    shared, store = worker.shared, worker.store
    importers = PARTS_OF[shared.client]["bulk"]
    numbers = range(worker.number, shared.options.keys, importers)
    chunks = [numbers[start : start + shared.options.chunk] for start in range(0, len(numbers), shared.options.chunk)]

    def key(number):
        return f"{shared.client}:bulk:{number}"

    for n, chunk in enumerate(chunks):
        if n == len(chunks) // 2:
            worker.control.half.release()
            while not worker.control.killed():
                await asyncio.sleep(0.01)
        pairs = {key(number): imported(number) for number in chunk}
        await worker.ask("a part of the import", lambda pairs=pairs: store.set_many(pairs))
        await worker.pause()
    while not worker.over():
        await asyncio.sleep(0.05)
    for chunk in chunks:
        got = await worker.ask("a part is read back", lambda chunk=chunk: store.get_many([key(number) for number in chunk]))
        for number in chunk:
            value = got.get(key(number))
            worker.expect(value == imported(number), f"{key(number)}: {told(value)}, expected {told(imported(number))}")


async def odd(worker):
    """Values of 1 MiB, values of every byte, keys in Unicode. At level one a value may be missing or old about the kill, and is never another's."""
    store, written = worker.store, {}
    for turn in range(1 << 30):
        if worker.over():
            break
        n = turn % 12
        key = f"{worker.name}:schlüssel-鍵-🗝-{n}"
        value = ODD[n] if n < len(ODD) else b"%d\r\n" % turn + BLOB[: (1 << 20) - len(b"%d\r\n" % turn)]
        await worker.ask("an odd value is written", lambda: store.set(key, value, KEPT_SECONDS))
        written[key] = (value, time.monotonic())
        other = worker.dice.choice(list(written))
        await odd_is_read(worker, other, *written[other])
        await worker.pause()
    for key, (value, at) in written.items():
        await odd_is_read(worker, key, value, at)


async def odd_is_read(worker, key, value, at):
    got = await worker.ask("an odd value is read", lambda: worker.store.get(key))
    right = got == value
    if not right and worker.store.level == "one":
        # What it was before, or nothing, may be read by whoever was there at the kill.
        killed = worker.control.killed_at.value
        lost = at < killed + ONE_LOSES_SECONDS or worker.control.crowded
        near = worker.control.unrest(time.monotonic()) and lost or killed - ONE_LOSES_SECONDS < at < killed
        right = near and (got is None or got.partition(b"\r\n")[2] in value)
    worker.expect(right, f"{key} of {len(value)} bytes: {told(got)}, {None if got is None else len(got)} bytes")


PARTS = {"sessions": sessions, "limiter": limiter, "cache": cache, "guarded": guarded, "bulk": bulk, "odd": odd, "counters": limiter_at_the_end}
EVERYBODY = {"sessions": 2, "limiter": 3, "cache": 3, "bulk": 2, "odd": 1}
PARTS_OF = {
    "redis": EVERYBODY,
    "redis-pipeline": EVERYBODY,
    "redis-asyncio": EVERYBODY,
    "redis-cluster": EVERYBODY,
    "redis-lock": {**EVERYBODY, "guarded": 3},
    "ioredis": EVERYBODY,
    "ioredis-cluster": EVERYBODY,
    "pymemcache": EVERYBODY,
    "pylibmc": EVERYBODY,
}
