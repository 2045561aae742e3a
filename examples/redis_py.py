"""What an application that uses redis-py may add to it for Trellis; copy what you need.

`AnyNode` and `AsyncAnyNode` connect to whichever of several nodes is there, so that the death of one costs a reconnection. `ConditionalLock` is redis-py's
own Lock without its Lua scripts. `tests/clients/workload.py` runs all three while a node is killed.

    pool = redis.ConnectionPool(connection_class=AnyNode, nodes=[("10.0.0.1", 5000), ("10.0.0.2", 5000)], **PATIENT)
    client = redis.Redis(connection_pool=pool)
    with ConditionalLock(client, "report", timeout=30):
        ...
"""

import random

import redis
import redis.asyncio
from redis.backoff import ExponentialBackoff
from redis.exceptions import LockNotOwnedError
from redis.retry import Retry

# Trellis answers within 5 seconds, so a reply that takes longer won't come. What is asked may be asked again.
PATIENT = {"socket_connect_timeout": 1, "socket_timeout": 6, "retry": Retry(ExponentialBackoff(cap=0.5, base=0.02), 6)}


class AnyNode(redis.Connection):
    """A connection to one of `nodes`, drawn anew whenever it has to connect."""

    def __init__(self, nodes, **options):
        super().__init__(**options)
        self.nodes = list(nodes)

    def _connect(self):
        error = None
        for self.host, self.port in random.sample(self.nodes, len(self.nodes)):
            try:
                return super()._connect()
            except OSError as refused:
                error = refused
        raise error


class AsyncAnyNode(redis.asyncio.Connection):
    """The same for redis.asyncio."""

    def __init__(self, nodes, **options):
        super().__init__(**options)
        self.nodes = list(nodes)

    async def _connect(self):
        error = None
        for self.host, self.port in random.sample(self.nodes, len(self.nodes)):
            try:
                return await super()._connect()
            except (OSError, TimeoutError) as refused:
                error = refused
        raise error


class ConditionalLock(redis.lock.Lock):
    """redis-py's Lock by conditional writes. To be used on connections of level quorum.

    A client that asks again may have taken the lock the first time, so the holder's token is compared. One that asks again to release may have
    released it the first time: LockNotOwnedError then means that it is released, or was lost before."""

    def register_scripts(self):
        """There are none."""

    def do_acquire(self, token):
        milliseconds = int(self.timeout * 1000) if self.timeout else None
        holder = self.redis.set(self.name, token, nx=True, get=True, px=milliseconds)
        return holder is None or self.redis.get_encoder().encode(holder) == token

    def do_release(self, expected_token):
        if not self.redis.execute_command("DELEX", self.name, "IFEQ", expected_token):
            raise LockNotOwnedError("Cannot release a lock that's no longer owned", lock_name=self.name)

    def do_extend(self, additional_time, replace_ttl):
        milliseconds = int(additional_time * 1000)
        if not replace_ttl:
            milliseconds += max(self.redis.pttl(self.name), 0)
        return self.prolong(milliseconds)

    def do_reacquire(self):
        return self.prolong(int(self.timeout * 1000))

    def prolong(self, milliseconds):
        if not self.redis.execute_command("SET", self.name, self.local.token, "IFEQ", self.local.token, "PX", milliseconds):
            raise LockNotOwnedError("Cannot extend a lock that's no longer owned", lock_name=self.name)
        return True
