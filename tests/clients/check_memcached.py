"""pymemcache and pylibmc, as published, against three nodes: sessions, counters, compare-and-set, large and binary values, keys in Unicode,
through whichever node is at hand; and the same keys by Redis clients.

`check_memcached.py PORT` runs what needs no cluster against any server, memcached itself among them.
"""

import shutil
import subprocess
import sys
import threading

import pylibmc
import redis
from pymemcache.client.base import Client, PooledClient
from pymemcache.exceptions import MemcacheClientError, MemcacheIllegalInputError, MemcacheServerError

from cluster import cluster, eventually

checks = 0


def same(got, expected, what):
    global checks
    checks += 1
    if got != expected:
        raise AssertionError(f"{what}: {got!r:.300}, expected {expected!r:.300}")


def refused(call, kind, what):
    try:
        got = call()
    except kind:
        same(True, True, what)
    else:
        raise AssertionError(f"{what}: {got!r:.300}, expected {kind.__name__}")


def pymemcache_basics(port):
    client = Client(("127.0.0.1", port), timeout=5, allow_unicode_keys=True, default_noreply=False)
    client.flush_all()
    same(client.set("s", "1"), True, "set")
    same(client.get("s"), b"1", "get")
    same(client.get("missing", "default"), "default", "get of nothing")
    same(client.add("s", "2"), False, "add on a present key")
    same(client.replace("none", "2"), False, "replace of nothing")
    same(client.append("s", "23"), True, "append")
    same(client.prepend("s", "0"), True, "prepend")
    same(client.get("s"), b"0123", "both ends")
    same(client.set_many({f"m{n}": str(n) for n in range(500)}), [], "set_many")
    same(client.get_many([f"m{n}" for n in range(600)]), {f"m{n}": str(n).encode() for n in range(500)}, "get_many")
    same(client.delete("m1"), True, "delete")
    same(client.delete("m1"), False, "delete of nothing")
    same(client.delete_many([f"m{n}" for n in range(500)]), True, "delete_many")
    same(client.touch("s", 100), True, "touch")
    same(client.raw_command("gat 0 s", "END\r\n"), b"VALUE s 0 4\r\n0123\r\n", "gat")
    same(client.touch("none"), False, "touch of nothing")
    same(client.set("gone", "x", expire=-1), True, "a deadline in the past")
    same(client.get("gone"), None, "gone")
    for key in ("schlüssel", "鍵", "clé-é"):
        same(client.set(key, "wert"), True, "a key in Unicode")
        same(client.get(key), b"wert", "its value")
    refused(lambda: client.get("k" * 251), MemcacheIllegalInputError, "a key of 251 bytes")
    same(client.set("k" * 250, "x"), True, "a key of 250 bytes")
    refused(lambda: client.set("nul", "x" * 1_048_577), MemcacheServerError, "a value above 1 MiB")
    refused(lambda: client.incr("s", "x"), (MemcacheClientError, MemcacheIllegalInputError, ValueError), "incr by no number")
    same(client.set("s", "y", noreply=True), True, "noreply")
    same(client.get("s"), b"y", "what it set")
    same(client.raw_command("mg s v t f"), b"VA 1 t-1 f0", "a meta command by hand")
    client.close()


def large_and_binary(port):
    client = Client(("127.0.0.1", port), timeout=5, default_noreply=False)
    blob = bytes(range(256)) * 4_000
    for n, value in enumerate((b"", b"\r\n", b"\0" * 1_000, blob[:32_768], blob[:32_767], blob)):
        same(client.set(f"blob{n}", value), True, f"{len(value)} bytes")
        same(client.get(f"blob{n}") == value, True, f"the same {len(value)} bytes")
    same(client.set("edge", b"x" * 1_000_000), True, "almost 1 MiB")
    refused(lambda: client.set("edge", b"x" * 1_048_576), MemcacheServerError, "1 MiB and its header")
    same(client.get("edge"), None, "what a refused set leaves")
    client.close()


def counters(ports):
    first = Client(("127.0.0.1", ports[0]), timeout=5, default_noreply=False)
    same(first.incr("n", 1), None, "incr of nothing")
    first.set("n", "10")
    same([first.incr("n", 5), first.decr("n", 6), first.decr("n", 100)], [15, 9, 0], "counting")
    first.set("n", "18446744073709551615")
    same(first.incr("n", 2), 1, "it wraps at 64 bits")
    first.set("n", "x")
    refused(lambda: first.incr("n", 1), MemcacheClientError, "incr of a word")
    first.set("hits", "0")

    def count(port):
        client = Client(("127.0.0.1", port), timeout=10, default_noreply=False)
        for _ in range(100):
            client.incr("hits", 1)
        client.close()

    threads = [threading.Thread(target=count, args=(ports[n % len(ports)],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(int(first.get("hits")), 400, "four clients counting at once")
    first.close()


def compare_and_set(ports):
    first, second = (Client(("127.0.0.1", port), timeout=10, default_noreply=False) for port in (ports[0], ports[-1]))
    first.set("list", b"")
    value, cas = first.gets("list")
    same(first.cas("list", b"a", cas), True, "cas")
    same(second.cas("list", b"b", cas), False, "cas of what has changed")
    same(second.cas("none", b"b", cas), None, "cas of nothing")

    def push(port, word):
        client = Client(("127.0.0.1", port), timeout=10, default_noreply=False)
        for n in range(25):
            while True:
                value, cas = client.gets("list")
                if client.cas("list", value + b"%s%d " % (word, n), cas):
                    break
        client.close()

    first.set("list", b"")
    threads = [threading.Thread(target=push, args=(ports[n % len(ports)], word)) for n, word in enumerate((b"x", b"y", b"z"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(sorted(first.get("list").split()), sorted(b"%s%d" % (word, n) for word in (b"x", b"y", b"z") for n in range(25)), "cas loops lose nothing")
    first.close()
    second.close()


def sessions(ports):
    pools = [PooledClient(("127.0.0.1", port), timeout=5, max_pool_size=4, default_noreply=False) for port in ports]
    for n in range(60):
        pools[n % len(pools)].set(f"session:{n}", b"user=%d" % n, expire=2 if n % 2 else 1_000)
    for n in range(60):
        same(pools[(n + 1) % len(pools)].get(f"session:{n}"), b"user=%d" % n, "a session through another node")
    for n in range(1, 60, 4):
        pools[0].touch(f"session:{n}", 1_000)
    eventually(lambda: pools[0].get("session:59") is None, "sessions end")
    same(sorted(pools[0].get_many([f"session:{n}" for n in range(60)])), sorted(f"session:{n}" for n in range(60) if n % 2 == 0 or n % 4 == 1), "who is left")
    for pool in pools:
        pool.close()


def pylibmc_basics(ports):
    for behaviors in ({"tcp_nodelay": True}, {"cas": True, "verify_keys": True}):
        client = pylibmc.Client([f"127.0.0.1:{port}" for port in ports[:1]], behaviors=behaviors)
        client.flush_all()
        for value in (1, 1 << 70, 1.5, "text", "schlüssel", b"\0bytes", {"a": [1, 2]}, True):
            same(client.set("v", value), True, "set of a Python value")
            same(client.get("v"), value, "the same value")
        same(client.set_multi({f"m{n}": n for n in range(200)}), [], "set_multi")
        same(client.get_multi([f"m{n}" for n in range(200)]), {f"m{n}": n for n in range(200)}, "get_multi")
        same(client.add("m1", 1), False, "add on a present key")
        same(client.incr("m1"), 2, "incr")
        same(client.incr_multi(["m1", "m2"], delta=2) is None, True, "incr_multi")
        same(client.delete_multi(["m1", "m2"]), True, "delete_multi")
        same(client.get("m1"), None, "gone")
        same(client.append("v", b"x") if behaviors.get("cas") else True, True, "append")
        same(client.touch("m3", 100), True, "touch")
        if behaviors.get("cas"):
            client.set("c", "1")
            value, cas = client.gets("c")
            same((client.cas("c", "2", cas), client.cas("c", "3", cas), client.get("c")), (True, False, "2"), "cas")
        same(len(client.get_stats()[0][1]) > 10, True, "stats")
        same(client.set("z", "y" * 500_000, min_compress_len=1_000), True, "compressed")
        same(client.get("z") == "y" * 500_000, True, "and back")


def through_every_door(nodes):
    memcached = Client(("127.0.0.1", nodes[0].memcached), timeout=5, default_noreply=False)
    others = [redis.Redis(port=node.port) for node in nodes]
    for n, other in enumerate(others * 5):
        memcached.set(f"door{n}", b"a", expire=500)
        same(other.append(f"door{n}", "b"), 2, "APPEND to what memcached set")
        same(other.ttl(f"door{n}") in (499, 500), True, "its deadline")
        same(memcached.get(f"door{n}"), b"ab", "get of what Redis changed")
        other.set(f"door{n}", 5)
        same(memcached.incr(f"door{n}", 5), 10, "incr of what Redis set")
        same(other.incr(f"door{n}"), 11, "INCR of what memcached counted")
    memcached.close()


def capable(port):
    """libmemcached's own judgement of a server, where its tools are installed."""
    if not shutil.which("memccapable"):
        print("check_memcached: no memccapable here, left out")
        return
    judged = subprocess.run(["memccapable", "-h", "127.0.0.1", "-p", str(port), "-a"], capture_output=True, text=True, timeout=60)
    tests = judged.stdout.splitlines()
    same((judged.returncode, [line for line in tests if "[pass]" not in line and line != "All tests passed"]), (0, []), "memccapable")


def everything(ports):
    pymemcache_basics(ports[0])
    large_and_binary(ports[-1])
    counters(ports)
    compare_and_set(ports)
    sessions(ports)
    pylibmc_basics(ports)
    capable(ports[0])


def main():
    if len(sys.argv) > 1:
        everything([int(sys.argv[1])])
    else:
        # Counters and cas loops are to be right whichever node is asked: at quorum.
        with cluster(3, "--memcached-port", "0", "--consistency", "quorum") as nodes:
            everything([node.memcached for node in nodes])
            through_every_door(nodes)
    print(f"check_memcached: {checks} checks passed")


if __name__ == "__main__":
    main()
