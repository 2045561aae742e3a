"""redis-py as a `Store` of `workload_parts.py`: plain, by pipelines, asyncio, RedisCluster, and its Lock.

What is safe to do twice is asked by a client that repeats it by itself (`PATIENT`); what counts, by one that repeats nothing, so that the caller knows what
is in doubt.
"""

import re
import sys
from pathlib import Path

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, LoadBalancingStrategy, RedisCluster
from redis.exceptions import LockError, LockNotOwnedError
from redis.retry import Retry

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
from redis_py import PATIENT, AnyNode, AsyncAnyNode, ConditionalLock  # noqa: E402

# What a node may answer while a member is being found dead; a pipeline tells of which of its commands.
PASSING = re.compile(r"^(Command # \d+ .* of pipeline caused error: )?(NOQUORUM|TIMEOUT|BUSY)\b", re.DOTALL)
ONCE = {**PATIENT, "retry": Retry(NoBackoff(), 0)}
# A connection may be kept to a node that is no more.
BROKEN = (redis.ConnectionError, redis.TimeoutError)


class Plain:
    """redis.Redis, connected to any of the nodes."""

    threads = True

    def __init__(self, nodes, number, level):
        self.level = level
        self.safe, self.once = self.client(nodes, PATIENT), self.client(nodes, ONCE)

    def client(self, nodes, options):
        return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=AnyNode, nodes=nodes, redis_connect_func=self.connected, **options))

    def connected(self, connection):
        connection.on_connect()
        connection.send_command("TRELLIS", "CONSISTENCY", self.level)
        connection.read_response()

    def broken(self, error):
        return isinstance(error, BROKEN)

    def passing(self, error):
        return isinstance(error, redis.ResponseError) and bool(PASSING.match(str(error)))

    def doubtful(self, error):
        return not str(error).endswith("applied: no")

    def before_repeating(self, error):
        """Its clients find their way themselves."""

    async def set(self, key, value, seconds):
        self.safe.set(key, value, ex=seconds)

    async def get(self, key):
        return self.safe.get(key)

    async def touch(self, key, seconds):
        return self.safe.expire(key, seconds)

    async def delete(self, key):
        return self.safe.delete(key)

    async def count(self, key, seconds):
        return self.once.incr(key)

    async def take(self, key, token, seconds):
        return self.safe.set(key, token, nx=True, get=True, ex=seconds) in (None, token)

    async def give_back(self, key, token):
        self.safe.execute_command("DELEX", key, "IFEQ", token)

    async def set_many(self, pairs):
        self.safe.mset(pairs)

    async def get_many(self, keys):
        return dict(zip(keys, self.safe.mget(keys)))

    async def close(self):
        self.safe.close()
        self.once.close()


class Pipeline(Plain):
    """Everything by pipelines: transactions, as redis-py makes them unless told otherwise, and plain ones for the import."""

    async def set(self, key, value, seconds):
        with self.safe.pipeline() as pipe:
            pipe.set(key, value).expire(key, seconds)
            pipe.execute()

    async def get(self, key):
        with self.safe.pipeline() as pipe:
            pipe.get(key).exists(key)
            got, there = pipe.execute()
        if (got is not None) != bool(there):
            raise AssertionError(f"GET {key} answered {got!r:.40}, EXISTS in the same transaction {there}")
        return got

    async def count(self, key, seconds):
        with self.once.pipeline() as pipe:
            pipe.incr(key).expire(key, seconds, nx=True)
            return pipe.execute()[0]

    async def set_many(self, pairs):
        with self.safe.pipeline(transaction=False) as pipe:
            for key, value in pairs.items():
                pipe.set(key, value)
            pipe.execute()

    async def get_many(self, keys):
        with self.safe.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.get(key)
            return dict(zip(keys, pipe.execute()))


class Cluster(Plain):
    """RedisCluster, which asks the owner of a key; every other worker's reads from replicas as well."""

    def __init__(self, nodes, number, level):
        self.reads = {"load_balancing_strategy": LoadBalancingStrategy.ROUND_ROBIN} if number % 2 else {}
        super().__init__(nodes, number, level)

    def client(self, nodes, options):
        start = [ClusterNode(host, port) for host, port in nodes]
        return RedisCluster(startup_nodes=start, redis_connect_func=self.connected, **self.reads, **options)

    async def set_many(self, pairs):
        with self.safe.pipeline() as pipe:
            for key, value in pairs.items():
                pipe.set(key, value)
            pipe.execute()

    async def get_many(self, keys):
        return dict(zip(keys, self.safe.mget_nonatomic(keys)))


class Locked(Plain):
    """redis.Redis, and redis-py's Lock in its form without Lua."""

    def __init__(self, nodes, number, level):
        super().__init__(nodes, number, level)
        self.locks = {}

    def lock(self, key, **options):
        return ConditionalLock(self.safe, key, **options)

    async def take(self, key, token, seconds):
        lock = self.lock(key, timeout=seconds, blocking=False)
        if lock.acquire(token=token):
            self.locks[key] = lock
        return key in self.locks

    async def give_back(self, key, token):
        lock = self.locks[key]
        # Lock forgets it before it asks, and this may be a second attempt.
        lock.local.token = token
        try:
            lock.release()
        except LockNotOwnedError:
            # It was released by the first of two attempts: nobody else had it, or the workload notices.
            if self.safe.get(key) == token:
                raise
        del self.locks[key]

    async def lock_rules(self, key):
        """What users of Lock rely on besides, as (what, whether it held)."""
        mine, other = self.lock(key, timeout=5), self.lock(key, timeout=5, blocking_timeout=0.2, sleep=0.05)
        rules = [("a free lock is taken", mine.acquire()), ("a held lock is not", not other.acquire())]
        rules.append(("it knows its holder", mine.owned() and not other.owned() and other.locked()))
        mine.extend(10)
        rules.append(("it is extended", 10 < self.safe.ttl(key) <= 15))
        mine.extend(20, replace_ttl=True)
        rules.append(("its deadline is replaced", 15 < self.safe.ttl(key) <= 20))
        mine.reacquire()
        rules.append(("it is prolonged", 0 < self.safe.ttl(key) <= 5))
        self.safe.set(key, "stolen", px=5000)
        for what, call in (("released", mine.release), ("extended", lambda: mine.extend(1))):
            try:
                call()
            except LockError:
                rules.append((f"what another holds is not {what}", self.safe.get(key) == b"stolen"))
            else:
                rules.append((f"what another holds is not {what}", False))
        self.safe.delete(key)
        with self.lock(key, timeout=5):
            rules.append(("the context manager takes it", self.safe.exists(key) == 1))
        rules.append(("and gives it back", self.safe.exists(key) == 0))
        return rules


class Asyncio(Plain):
    """redis.asyncio.Redis: all workers in one event loop."""

    threads = False

    def client(self, nodes, options):
        pool = redis.asyncio.ConnectionPool(
            connection_class=AsyncAnyNode, nodes=nodes, redis_connect_func=self.connected, **{**options, "retry": async_retry(options["retry"])}
        )
        return redis.asyncio.Redis(connection_pool=pool)

    async def connected(self, connection):
        await connection.on_connect()
        await connection.send_command("TRELLIS", "CONSISTENCY", self.level)
        await connection.read_response()

    async def set(self, key, value, seconds):
        await self.safe.set(key, value, ex=seconds)

    async def get(self, key):
        return await self.safe.get(key)

    async def touch(self, key, seconds):
        return await self.safe.expire(key, seconds)

    async def delete(self, key):
        return await self.safe.delete(key)

    async def count(self, key, seconds):
        return await self.once.incr(key)

    async def take(self, key, token, seconds):
        return await self.safe.set(key, token, nx=True, get=True, ex=seconds) in (None, token)

    async def give_back(self, key, token):
        await self.safe.execute_command("DELEX", key, "IFEQ", token)

    async def set_many(self, pairs):
        async with self.safe.pipeline(transaction=False) as pipe:
            for key, value in pairs.items():
                pipe.set(key, value)
            await pipe.execute()

    async def get_many(self, keys):
        return dict(zip(keys, await self.safe.mget(keys)))

    async def close(self):
        await self.safe.connection_pool.disconnect()
        await self.once.connection_pool.disconnect()


def async_retry(retry):
    """redis.asyncio has a Retry of its own."""
    return redis.asyncio.retry.Retry(retry._backoff, retry.get_retries())


CLIENTS = {"redis": Plain, "redis-pipeline": Pipeline, "redis-asyncio": Asyncio, "redis-cluster": Cluster, "redis-lock": Locked}
