"""redis-py, as published, against three nodes: what its users do with Redis, through whichever node is at hand.

`check_redis_py.py PORT` runs all that needs no cluster against any server, Redis itself among them.
"""

import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import redis

from cluster import Node, cluster, eventually

checks = 0


def same(got, expected, what):
    global checks
    checks += 1
    if got != expected:
        raise AssertionError(f"{what}: {got!r:.300}, expected {expected!r:.300}")


def refused(call, text):
    try:
        got = call()
    except redis.ResponseError as error:
        same(str(error), text, "error text")
    else:
        raise AssertionError(f"{got!r}, expected the error {text!r}")


def strings(client):
    same(client.set("s", "1"), True, "SET")
    same(client.get("s"), b"1", "GET")
    same(client.get("missing"), None, "GET of nothing")
    same(client.set("s", "2", nx=True), None, "SET NX on a present key")
    same(client.set("s", "2", get=True), b"1", "SET GET")
    same(client.append("s", "34"), 3, "APPEND")
    same(client.getrange("s", 1, -1), b"34", "GETRANGE")
    same(client.setrange("s", 5, "x"), 6, "SETRANGE")
    same(client.get("s"), b"234\x00\x00x", "zero padding")
    same(client.strlen("s"), 6, "STRLEN")
    same(client.getdel("s"), b"234\x00\x00x", "GETDEL")
    same(client.exists("s"), 0, "EXISTS")
    blob = bytes(range(256)) * 4096
    client.set("blob", blob)
    same(client.get("blob") == blob, True, "1 MiB of every byte")
    client.set("schlüssel 🗝", "wert")
    same(client.get("schlüssel 🗝"), b"wert", "a key in Unicode")


def numbers(client):
    client.delete("n", "f")
    same([client.incr("n"), client.incrby("n", 41), client.decr("n", 2)], [1, 42, 40], "counting")
    same(client.incrbyfloat("f", 10.5), 10.5, "INCRBYFLOAT")
    client.set("n", "x")
    refused(lambda: client.incr("n"), "value is not an integer or out of range")


def deadlines(client):
    client.set("d", "1", ex=100)
    same(95 <= client.ttl("d") <= 100, True, "TTL")
    same(client.persist("d"), True, "PERSIST")
    same(client.ttl("d"), -1, "no deadline")
    same(client.ttl("missing"), -2, "no key")
    same(client.pexpire("d", 50), True, "PEXPIRE")
    eventually(lambda: client.get("d") is None, "a value past its deadline is gone", 2)
    refused(lambda: client.set("d", "1", ex=0), "invalid expire time in 'set' command")


def many(client):
    keys = [f"m{i}" for i in range(200)]
    same(client.mset({key: key for key in keys}), True, "MSET")
    same(client.mget(keys + ["missing"]), [key.encode() for key in keys] + [None], "MGET")
    same(client.exists(*keys), 200, "EXISTS of many")
    same(sorted(client.scan_iter("m*", count=50)), sorted(key.encode() for key in keys), "SCAN")
    same(client.delete(*keys), 200, "DEL of many")
    same(client.msetnx({"a": 1, "b": 2}), True, "MSETNX")
    same(client.msetnx({"b": 3, "c": 4}), False, "MSETNX with one present")
    same(client.exists("c"), 0, "nothing was set")
    with client.pipeline(transaction=False) as pipeline:
        for i in range(10_000):
            pipeline.set(f"p{i}", i)
        same(all(pipeline.execute()), True, "10,000 SETs in one pipeline")
    same(client.dbsize() >= 10_000, True, "DBSIZE")


def several(client):
    """On keys of one hash tag, and of others."""
    for one, other in (("{t}x", "{t}y"), ("x", "y")):
        client.set(one, "value", ex=100)
        same(client.rename(one, other), True, "RENAME")
        same([client.get(one), client.get(other), 90 < client.ttl(other) <= 100], [None, b"value", True], "a renamed key")
        refused(lambda: client.rename(one, other), "no such key")
        same([client.copy(other, one), client.copy(other, one), client.copy(other, one, replace=True)], [True, False, True], "COPY")
        same([client.ttl(one) > 90, client.renamenx(one, other), client.delete(one)], [True, False, 1], "RENAMENX")
        same([client.renamenx(other, one), client.exists(other)], [True, 0], "RENAMENX to a free key")
        client.set(one, "ohmytext")
        client.set(other, "mynewtext")
        same([client.lcs(one, other), client.lcs(one, other, len=True)], [b"mytext", 6], "LCS")
        client.set(one, b"\xff\x0f")
        client.set(other, b"\x3c")
        same(client.bitop("AND", "to", one, other), 2, "BITOP")
        same([client.get("to"), client.bitop("NOT", other, other), client.get(other)], [b"\x3c\x00", 1, b"\xc3"], "its result")


def transactions(client):
    with client.pipeline() as pipeline:
        pipeline.set("{t}a", 1).incr("{t}a").get("{t}a").mget("{t}a", "{t}none").delete("{t}a").exists("{t}a")
        same(pipeline.execute(), [True, 2, b"2", [b"2", None], 1, 0], "a transaction under one hash tag")
        for i in range(1000):
            pipeline.set(f"t{i}", i).incr(f"t{i}")
        same(pipeline.execute()[1::2], [i + 1 for i in range(1000)], "a transaction over all slots")
        pipeline.set("{t}a", "x").incr("{t}a").set("{t}b", 1)
        got = pipeline.execute(raise_on_error=False)
        same([got[0], str(got[1]), got[2]], [True, "value is not an integer or out of range", True], "an error among replies")
        pipeline.set("{t}a", 1).execute_command("NONSENSE")
        try:
            pipeline.execute()
        except redis.ResponseError as error:
            same("unknown command 'NONSENSE'" in str(error), True, str(error))
        else:
            raise AssertionError("an unknown command was executed")
        pipeline.reset()
    same(client.get("{t}a"), b"x", "nothing of a refused transaction is done")
    with client.pipeline() as pipeline:
        pipeline.watch("{t}n")
        seen = int(pipeline.get("{t}n") or 0)
        client.set("{t}n", 5)
        pipeline.multi()
        pipeline.set("{t}n", seen + 1)
        try:
            pipeline.execute()
        except redis.WatchError:
            same(client.get("{t}n"), b"5", "a watched key that changed")
        else:
            raise AssertionError("a watched key changed and nobody minded")
        pipeline.watch("{t}n", "elsewhere")
        pipeline.multi()
        pipeline.incr("{t}n").ping()
        same(pipeline.execute(), [6, True], "watched keys that did not change")

    def double(pipeline):
        seen = int(pipeline.get("{t}n"))
        pipeline.multi()
        pipeline.set("{t}n", 2 * seen)

    same(client.transaction(double, "{t}n"), [True], "the helper transaction()")
    same(client.get("{t}n"), b"12", "what it set")


def counted_by_watching(clients, count):
    """Threads that read, add one and write under WATCH: every one counts, whichever node it goes through."""
    clients[0].delete("{w}n")

    def work(client):
        def add(pipeline):
            seen = int(pipeline.get("{w}n") or 0)
            pipeline.multi()
            pipeline.set("{w}n", seen + 1)

        for _ in range(count):
            client.transaction(add, "{w}n")

    threads = [threading.Thread(target=work, args=(clients[n % len(clients)],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(clients[0].get("{w}n"), str(8 * count).encode(), "a counter that eight clients watch")


def single(client):
    same(client.ping(), True, "PING")
    client.flushall()
    for part in (strings, numbers, deadlines, many, several, transactions):
        part(client)
    client.flushall()
    same(client.dbsize(), 0, "nothing is left")


def written_ahead(client, count):
    """All commands go out before the first reply is read: the server must keep the replies, not stop reading."""
    connection = client.connection_pool.get_connection()
    try:
        packed = connection.pack_commands([("SET", f"ahead:{i}", i) if i % 2 else ("GET", f"ahead:{i - 1}") for i in range(1, count + 1)])
        connection.send_packed_command(packed)
        replies = [connection.read_response() for _ in range(count)]
    finally:
        client.connection_pool.release(connection)
    same(all(reply in (True, b"OK") for reply in replies[0::2]), True, f"{count} commands ahead: the writes")
    same(replies[1::2] == [str(i).encode() for i in range(1, count, 2)], True, f"{count} commands ahead: each read sees the write before it")


def across(clients):
    """What one node wrote, every other one answers, in every way to ask."""
    first, second, third = clients
    for client in clients:
        client.ping()
    first.flushall()
    keys = [f"k{i}" for i in range(300)]
    for i, key in enumerate(keys):
        clients[i % 3].set(key, i)
    for client in clients:
        same(client.mget(keys), [str(i).encode() for i in range(300)], "MGET of every key through every node")
        same(sorted(client.scan_iter(count=37)), sorted(key.encode() for key in keys), "SCAN of the whole cluster from any node")
        same(sorted(client.keys("k1*")), sorted(key.encode() for key in keys if key.startswith("k1")), "KEYS")
        same(client.dbsize(), 300, "DBSIZE of the whole cluster")
    with second.pipeline(transaction=False) as pipeline:
        for i in range(5000):
            pipeline.set(f"p{i}", i).get(f"p{i}").incr(f"c{i % 7}")
        got = pipeline.execute()
    same(got[1::3], [str(i).encode() for i in range(5000)], "a pipeline reads its own writes, in order")
    same(sum(int(n) for n in third.mget([f"c{i}" for i in range(7)])), 5000, "counters of a pipeline, read elsewhere")
    same(third.delete(*[f"p{i}" for i in range(5000)]), 5000, "DEL of keys of every owner")
    same(first.exists("p0", "p1", "c0", "c1"), 2, "EXISTS across owners")
    blob = bytes(range(256)) * 4096
    for i, client in enumerate(clients):
        client.set(f"blob{i}", blob)
        client.append(f"blob{i}", b"\r\n$-1\r\n\x00")
    for client in clients:
        same([client.get(f"blob{i}") == blob + b"\r\n$-1\r\n\x00" for i in range(3)], [True] * 3, "a binary value of 1 MiB, from everywhere")
    for client in clients:
        written_ahead(client, 200_000)
    counted_by_watching(clients, 25)
    third.flushall()
    same([client.dbsize() for client in clients], [0, 0, 0], "FLUSHALL of the whole cluster")


def over_unix_socket(nodes):
    path = str(Path(tempfile.mkdtemp(prefix="trellis-")) / "socket")
    node = Node([nodes[0].address], ["--unix", path])
    try:
        # Until it has met the others it answers from what it holds itself.
        eventually(node.ready, "the node on a Unix socket is ready")
        single(redis.Redis(unix_socket_path=path))
        redis.Redis(unix_socket_path=path).set("by-socket", "1")
        same(redis.Redis(nodes[1].host, nodes[1].port).get("by-socket"), b"1", "written over the Unix socket, read elsewhere")
        same(node.stop(), 0, "exit code of a node stopped in order")
    finally:
        node.kill()


def locks(nodes):
    """A lock taken if it is free and given back by comparison, at quorum, through every node: what it guards is done by one at a time."""

    def work(worker):
        node = nodes[worker % 3]
        client = redis.Redis(node.host, node.port, single_connection_client=True)
        client.execute_command("TRELLIS", "CONSISTENCY", "quorum")
        for turn in range(20):
            token = f"{worker}-{turn}"
            while not client.set("lock", token, nx=True, px=30_000):
                time.sleep(0.002)
            client.set("guarded", int(client.get("guarded") or 0) + 1)
            same(client.execute_command("DELEX", "lock", "IFEQ", "another"), 0, "a lock is not given back by another")
            same(client.execute_command("SET", "lock", token, "IFEQ", token, "PX", "30000"), True, "its holder prolongs it")
            same(client.execute_command("DELEX", "lock", "IFEQ", token), 1, "its holder gives it back")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    same(redis.Redis(nodes[0].host, nodes[0].port).get("guarded"), b"120", "turns under a lock")


def one_dead(nodes):
    clients = [redis.Redis(node.host, node.port) for node in nodes]
    for i in range(300):
        clients[i % 3].set(f"k{i}", i)
    nodes[1].kill()
    for i in range(300):
        same(clients[0].get(f"k{i}"), str(i).encode(), "every key while one of three is dead")


def main():
    if len(sys.argv) > 1:
        port = int(sys.argv[1])
        for protocol in (2, 3):
            single(redis.Redis(port=port, protocol=protocol))
        across([redis.Redis(port=port) for _ in range(3)])
    else:
        with cluster(3) as nodes:
            same(redis.Redis(nodes[0].host, nodes[0].port).execute_command("HELLO", 3)[b"proto"], 3, "HELLO 3")
            for node, protocol in zip(nodes, (2, 3, 3)):
                single(redis.Redis(node.host, node.port, protocol=protocol))
            across([redis.Redis(node.host, node.port) for node in nodes])
            locks(nodes)
            over_unix_socket(nodes)
            one_dead(nodes)
    print(f"{checks} checks passed")


main()
