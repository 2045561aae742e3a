"""ioredis, plain and Cluster, as a `Store` of `workload_parts.py`: a process of Node.js that does what it is told by lines (`ioredis_bridge.js`).

It runs where IOREDIS names a folder with ioredis in `node_modules`.
"""

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

# What a node may answer while a member is being found dead, and what ioredis says of connections that broke.
PASSING = ("NOQUORUM", "TIMEOUT", "BUSY")
BROKEN = (
    "Connection is closed", "Reached the max retries per request limit", "connect ECONNREFUSED", "read ECONNRESET", "write EPIPE", "Command timed out",
    "Failed to refresh slots cache", "Command aborted due to connection close",
    # An automatic pipeline of Cluster whose slots were told anew between its making and its sending; nothing was sent.
    "All keys in the pipeline should belong to the same slots allocation group",
)
# A line of an answer may hold a value of 1 MiB in base64, and there may be several.
LINE_BYTES_MAX = 1 << 26


def available():
    return bool(os.environ.get("IOREDIS") and shutil.which("node"))


def started(kind, nodes):
    """The arguments of a bridge and its environment."""
    script = Path(__file__).with_name("ioredis_bridge.js")
    environment = {**os.environ, "NODE_PATH": str(Path(os.environ["IOREDIS"]).resolve() / "node_modules")}
    return ["node", str(script), kind, *[f"{host}:{port}" for host, port in nodes]], environment


def encoded(*arguments):
    name, *rest = arguments
    parts = [a if isinstance(a, bytes) else str(a).encode() for a in rest]
    return [name, *[base64.b64encode(part).decode() for part in parts]]


def decoded(reply):
    if isinstance(reply, dict):
        return base64.b64decode(reply["bytes"])
    return [decoded(part) for part in reply] if isinstance(reply, list) else reply


class BridgeError(Exception):
    """What ioredis said."""


class Bridge:
    """A bridge for a check that asks one thing at a time."""

    def __init__(self, kind, nodes):
        arguments, environment = started(kind, nodes)
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def tell(self, **call):
        self.process.stdin.write(json.dumps({"id": 0, **call}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise BridgeError(answer["error"])
        return decoded(answer["replies"])

    def ask(self, *arguments):
        return self.tell(commands=[encoded(*arguments)])[0]

    def nodes(self):
        return set(self.tell(nodes=True))

    def close(self):
        self.process.kill()
        self.process.wait()


class Ioredis:
    """All workers of a client tell one process, whose clients are connected to different nodes; its answers come in any order."""

    threads, level, kind = False, "quorum", "plain"
    process, waiting, ids, users = None, {}, itertools.count(), 0

    def __init__(self, nodes, number, level):
        self.nodes = nodes
        type(self).users += 1

    async def begin(self):
        """Starts the process, for whoever is first."""
        cls = type(self)
        arguments, environment = started(self.kind, self.nodes)
        cls.process = asyncio.ensure_future(
            asyncio.create_subprocess_exec(*arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, limit=LINE_BYTES_MAX)
        )
        cls.reader = asyncio.create_task(self.read(await cls.process))

    async def ask(self, *commands, once=False):
        if self.process is None:
            await self.begin()
        process = await self.process
        number, answer = next(self.ids), asyncio.get_running_loop().create_future()
        self.waiting[number] = answer
        line = json.dumps({"id": number, "once": once, "commands": [encoded(*command) for command in commands]})
        process.stdin.write(line.encode() + b"\n")
        await process.stdin.drain()
        return decoded(await answer)

    async def read(self, process):
        async for line in process.stdout:
            answer = json.loads(line)
            future = self.waiting.pop(answer["id"])
            if "error" in answer:
                future.set_exception(BridgeError(answer["error"]))
            else:
                future.set_result(answer["replies"])
        for future in self.waiting.values():
            future.set_exception(AssertionError("the bridge ended"))

    def broken(self, error):
        return isinstance(error, BridgeError) and any(text in str(error) for text in BROKEN)

    def passing(self, error):
        return isinstance(error, BridgeError) and str(error).startswith(PASSING)

    def doubtful(self, error):
        return not str(error).endswith("applied: no")

    def before_repeating(self, error):
        """Its clients find their way themselves."""

    async def set(self, key, value, seconds):
        await self.ask(("set", key, value, "EX", seconds))

    async def get(self, key):
        return (await self.ask(("get", key)))[0]

    async def touch(self, key, seconds):
        return (await self.ask(("expire", key, seconds)))[0]

    async def delete(self, key):
        return (await self.ask(("del", key)))[0]

    async def count(self, key, seconds):
        return (await self.ask(("incr", key), once=True))[0]

    async def take(self, key, token, seconds):
        return (await self.ask(("set", key, token, "EX", seconds, "NX", "GET")))[0] in (None, token)

    async def give_back(self, key, token):
        await self.ask(("delex", key, "IFEQ", token))

    async def set_many(self, pairs):
        await self.ask(*[("set", key, value) for key, value in pairs.items()])

    async def get_many(self, keys):
        return dict(zip(keys, await self.ask(*[("get", key) for key in keys])))

    async def close(self):
        cls = type(self)
        cls.users -= 1
        if cls.users == 0 and cls.process:
            process, cls.process = await cls.process, None
            process.kill()
            await process.wait()
            await cls.reader


class IoredisCluster(Ioredis):
    """ioredis' Cluster, with automatic pipelining for many commands at once."""

    kind = "cluster"


CLIENTS = {"ioredis": Ioredis, "ioredis-cluster": IoredisCluster}
