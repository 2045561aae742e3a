"""pymemcache and pylibmc as a `Store` of `workload_parts.py`. Level quorum is the node's, for memcached clients name none.

Both hash keys over the nodes. That is not needed here, since every node answers for every key, and it is what gives them another node when one is gone.
"""

import pylibmc
from pymemcache.client.hash import HashClient
from pymemcache.client.retrying import RetryingClient
from pymemcache.exceptions import MemcacheServerError, MemcacheUnexpectedCloseError

PASSING = ("NOQUORUM", "TIMEOUT", "BUSY")


# What libmemcached says again and again once it has lost its way: a server that it neither uses nor leaves out.
STUCK = (pylibmc.ServerDown, pylibmc.UnknownReadFailure)


class Incomplete(Exception):
    """A client that could not store all of many says which, not why."""


class Pymemcache:
    """HashClient, which leaves out a node at its first error: while it hesitates it answers as if nothing were stored. Around it pymemcache's own
    RetryingClient, but for what counts."""

    threads, level = True, "quorum"

    def __init__(self, nodes, number, level):
        self.once = HashClient(
            nodes, connect_timeout=1, timeout=6, no_delay=True, retry_attempts=0, dead_timeout=60, allow_unicode_keys=True, default_noreply=False, encoding="utf-8"
        )
        self.safe = RetryingClient(self.once, attempts=4, retry_delay=0.02, retry_for=[OSError, MemcacheUnexpectedCloseError])

    def broken(self, error):
        return isinstance(error, (OSError, MemcacheUnexpectedCloseError))

    def passing(self, error):
        return isinstance(error, Incomplete) or isinstance(error, MemcacheServerError) and any(word in str(error) for word in PASSING)

    def doubtful(self, error):
        return "applied: no" not in str(error)

    def before_repeating(self, error):
        """Its clients find their way themselves."""

    async def set(self, key, value, seconds):
        if not self.safe.set(key, value, expire=seconds):
            raise AssertionError(f"set of {key} was not stored")

    async def get(self, key):
        return self.safe.get(key)

    async def touch(self, key, seconds):
        return self.safe.touch(key, seconds)

    async def delete(self, key):
        return self.safe.delete(key)

    async def count(self, key, seconds):
        number = self.once.incr(key, 1)
        if number is None:
            self.once.add(key, b"0", expire=seconds)
            number = self.once.incr(key, 1)
        return number

    async def take(self, key, token, seconds):
        return self.safe.add(key, token, expire=seconds) or self.safe.get(key) == token

    async def give_back(self, key, token):
        self.safe.delete(key)

    async def set_many(self, pairs):
        failed = self.safe.set_many(pairs)
        if failed:
            raise Incomplete(f"{len(failed)} were not stored")

    async def get_many(self, keys):
        return self.safe.get_many(keys)

    async def close(self):
        self.once.close()


class Pylibmc(Pymemcache):
    """libmemcached: a node that does not answer is taken out at once. It repeats nothing by itself, and names no reason but the kind of error.

    The first time that it uses a connection to a node that died, a `get` behind another command may answer that there is nothing, of memcached too; the second
    time it says that the node is dead. So what is not there is asked for twice."""

    # A node answers within 5 seconds; one that is slower is dead. Milliseconds to wait for a connection and for an answer, microseconds for its bytes.
    BEHAVIORS = {
        "tcp_nodelay": True, "ketama": True, "remove_failed": 1, "retry_timeout": 1, "dead_timeout": 60,
        "connect_timeout": 2_000, "_poll_timeout": 6_000, "receive_timeout": 6_000_000,
    }

    def __init__(self, nodes, number, level):
        self.nodes = [f"{host}:{port}" for host, port in nodes]
        self.begin()

    def begin(self):
        self.client = pylibmc.Client(self.nodes, behaviors=self.BEHAVIORS)

    def broken(self, error):
        return isinstance(error, (pylibmc.ConnectionError, pylibmc.ServerDead, pylibmc.WriteError, *STUCK))

    def passing(self, error):
        return isinstance(error, (pylibmc.ServerError, Incomplete))

    def doubtful(self, error):
        return True

    def before_repeating(self, error):
        if isinstance(error, STUCK):
            self.begin()

    async def set(self, key, value, seconds):
        if not self.client.set(key, value, time=seconds):
            raise AssertionError(f"set of {key} was not stored")

    async def get(self, key):
        return self.twice(lambda: self.client.get(key))

    def twice(self, call):
        got = call()
        return call() if got is None else got

    async def touch(self, key, seconds):
        try:
            return self.client.touch(key, seconds) or self.client.touch(key, seconds)
        except pylibmc.WriteError:
            # A touch takes no dead node out, however often; a get does, and says so.
            self.client.get(key)
            raise

    async def delete(self, key):
        return self.client.delete(key)

    async def count(self, key, seconds):
        try:
            return self.client.incr(key)
        except pylibmc.NotFound:
            self.client.add(key, b"0", time=seconds)
            return self.client.incr(key)

    async def take(self, key, token, seconds):
        return self.client.add(key, token, time=seconds) or self.twice(lambda: self.client.get(key)) == token

    async def give_back(self, key, token):
        self.client.delete(key)

    async def set_many(self, pairs):
        failed = self.client.set_multi(pairs)
        if failed:
            raise Incomplete(f"{len(failed)} were not stored")

    async def get_many(self, keys):
        got = self.client.get_multi(keys)
        missing = [key for key in keys if key not in got]
        return {**got, **self.client.get_multi(missing)} if missing else got

    async def close(self):
        self.client.disconnect_all()


CLIENTS = {"pymemcache": Pymemcache, "pylibmc": Pylibmc}
