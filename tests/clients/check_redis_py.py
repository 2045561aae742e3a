"""redis-py, as published, against three nodes: what its users do with Redis, through whichever node is at hand.

`check_redis_py.py PORT` runs the single-server part against any server, Redis itself among them.
"""

import sys

import redis

from cluster import cluster, eventually

checks = 0


def same(got, expected, what):
    global checks
    checks += 1
    if got != expected:
        raise AssertionError(f"{what}: {got!r}, expected {expected!r}")


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


def single(client):
    same(client.ping(), True, "PING")
    client.flushall()
    for part in (strings, numbers, deadlines, many):
        part(client)
    client.flushall()
    same(client.dbsize(), 0, "nothing is left")


def across(nodes):
    clients = [redis.Redis(node.host, node.port) for node in nodes]
    for i in range(300):
        clients[i % 3].set(f"k{i}", i)
    for client in clients:
        values = client.mget([f"k{i}" for i in range(300)])
        same(values, [str(i).encode() for i in range(300)], "every key through every node")
    nodes[1].kill()
    for i in range(300):
        same(clients[0].get(f"k{i}"), str(i).encode(), "every key while one of three is dead")


def main():
    if len(sys.argv) > 1:
        for protocol in (2, 3):
            single(redis.Redis(port=int(sys.argv[1]), protocol=protocol))
    else:
        with cluster(3) as nodes:
            for node, protocol in zip(nodes, (2, 3, 3)):
                single(redis.Redis(node.host, node.port, protocol=protocol))
            across(nodes)
    print(f"{checks} checks passed")


main()
