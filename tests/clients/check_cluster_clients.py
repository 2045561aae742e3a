"""Cluster-aware clients, as published, against three nodes while one joins and another dies: redis-py's RedisCluster and ioredis' Cluster.

Shows what such a client spares: the share of requests that a node had to forward, next to that of a client that knows one node only.
ioredis runs where IOREDIS names a folder with it in `node_modules`. Replies are compared with `redis-server` in cluster mode where it is installed.
"""

import shutil
import tempfile
from pathlib import Path

import redis
from redis.cluster import ClusterNode, RedisCluster

from cluster import Node, Process, cluster, eventually, free_port, met
from resp import Connection
from workload_ioredis import Bridge, available

checks = 0


def same(got, expected, what):
    global checks
    checks += 1
    if got != expected:
        raise AssertionError(f"{what}: {got!r:.300}, expected {expected!r:.300}")


def below(got, limit, what):
    global checks
    checks += 1
    if not got < limit:
        raise AssertionError(f"{what}: {got!r}, expected less than {limit!r}")


def skeleton(stream):
    """A reply's shape: its types, and the text of what names a field of a map. Numbers and other texts are left out."""
    line = stream.readline()
    kind, rest = line[:1], line[1:].strip()
    if kind in b"$=" and rest != b"-1":
        return (kind, stream.read(int(rest) + 2)[:-2])
    if kind in b"*~>":
        return (kind, [skeleton(stream) for _ in range(int(rest))])
    if kind == b"%":
        return (kind, [(skeleton(stream), skeleton(stream)) for _ in range(int(rest))])
    return (kind, rest)


def shape(part):
    """The kinds in a reply; elements of a list that are alike count once."""
    kind, inside = part
    if kind == b"%":
        return kind, [(name[1], shape(value)) for name, value in inside]
    if isinstance(inside, list):
        shapes = [shape(element) for element in inside]
        return kind, [element for n, element in enumerate(shapes) if n == 0 or element != shapes[n - 1]]
    return kind, b""


def ask(address, protocol, *command):
    host, port = address.rsplit(":", 1)
    connection = Connection(host, int(port), 5)
    try:
        connection.send(b"HELLO %d\r\n" % protocol)
        skeleton(connection.file)
        connection.send(" ".join(command).encode() + b"\r\n")
        return skeleton(connection.file)
    finally:
        connection.close()


# Alike in kind; what they say differs, because the clusters do.
SHAPES = ["SLOTS", "SHARDS", "NODES", "INFO", "MYID", "COUNTKEYSINSLOT 1", "GETKEYSINSLOT 1 10"]
# Alike to the letter.
EQUAL = [
    "CLUSTER KEYSLOT foo", "CLUSTER KEYSLOT x{foo}y", "CLUSTER COUNTKEYSINSLOT 12182", "CLUSTER GETKEYSINSLOT 12182 10", "READONLY", "READWRITE",
    "ASKING", "CLUSTER", "CLUSTER FOO", "CLUSTER SLOTS x", "CLUSTER KEYSLOT", "CLUSTER COUNTKEYSINSLOT x", "CLUSTER COUNTKEYSINSLOT 16384",
    "CLUSTER COUNTKEYSINSLOT -1", "CLUSTER GETKEYSINSLOT 5 -1", "CLUSTER GETKEYSINSLOT 16384 1", "CLUSTER GETKEYSINSLOT 5 x", "CLUSTER REPLICAS abc",
    "CLUSTER COUNT-FAILURE-REPORTS abc", "CLUSTER ADDSLOTS", "CLUSTER MEET 1", "COMMAND INFO readonly readwrite asking cluster|keyslot cluster|slots "
    "cluster|nodes cluster|meet cluster|replicas",
]


def like_redis(nodes):
    """Every reply next to that of one Redis that is a whole cluster."""
    if not shutil.which("redis-server"):
        print("redis-server is not installed: replies are not compared")
        return
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="trellis-"))
    arguments = ["redis-server", "--port", str(port), "--cluster-enabled", "yes", "--save", "", "--appendonly", "no"]
    server = Process(arguments, folder / "log", cwd=folder, stdout=(folder / "out").open("wb"))
    try:
        theirs, ours = redis.Redis(port=port), redis.Redis(nodes[0].host, nodes[0].port)
        eventually(lambda: responds(theirs), "redis-server answers")
        theirs.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        eventually(lambda: b"cluster_state:ok" in theirs.execute_command("CLUSTER", "INFO"), "Redis is a cluster")
        for client in (theirs, ours):
            client.set("foo", "1")
            client.set("{foo}", "2")
        addresses = (nodes[0].address, f"127.0.0.1:{port}")
        for protocol in (2, 3):
            for command in SHAPES:
                replies = [shape(ask(address, protocol, "CLUSTER", command)) for address in addresses]
                same(replies[0], replies[1], f"CLUSTER {command}, RESP{protocol}")
            for command in EQUAL:
                replies = [sorted_keys(ask(address, protocol, command)) for address in addresses]
                same(replies[0], replies[1], f"{command}, RESP{protocol}")
        ours.flushall()
    finally:
        server.kill()


def sorted_keys(reply):
    """Keys of a slot come in any order."""
    kind, inside = reply
    return (kind, sorted(inside)) if kind == b"*" and all(part[0] == b"$" for part in inside) else reply


def responds(client):
    try:
        return client.ping()
    except redis.ConnectionError:
        return False


def slots_of(node):
    """`CLUSTER SLOTS` as a node tells it: every slot's members, by port, the leader first."""
    slots = {}
    for first, last, *members in unparsed(node, "CLUSTER SLOTS"):
        for slot in range(first, last + 1):
            slots[slot] = [member[1] for member in members]
    return slots


def unparsed(node, command):
    """A reply before redis-py makes something else of it."""
    with redis.Redis(node.host, node.port) as client:
        client.set_response_callback(command, lambda reply, **_: reply)
        return client.execute_command(command)


def told(nodes):
    """What the members tell of each other agrees, once it has gone around, and covers everything."""
    eventually(lambda: agreed([slots_of(node) for node in nodes]), "all nodes tell the same")
    views = [slots_of(node) for node in nodes]
    for view in views:
        same(sorted(view), list(range(16384)), "every slot is told")
        same({port for members in view.values() for port in members}, {node.port for node in nodes}, "every node is told, nobody else")
    client = redis.Redis(nodes[0].host, nodes[0].port)
    same(client.execute_command("CLUSTER KEYSLOT", "foo"), 12182, "KEYSLOT")
    for key in ("{tag}1", "{tag}2", "{tag}3"):
        client.set(key, "x")
    slot = client.execute_command("CLUSTER KEYSLOT", "tag")
    for node in nodes:
        any_node = redis.Redis(node.host, node.port)
        same(any_node.execute_command("CLUSTER COUNTKEYSINSLOT", slot), 3, "COUNTKEYSINSLOT through any node")
        same(sorted(any_node.execute_command("CLUSTER GETKEYSINSLOT", slot, 10)), ["{tag}1", "{tag}2", "{tag}3"], "GETKEYSINSLOT through any node")
        same(len(any_node.execute_command("CLUSTER GETKEYSINSLOT", slot, 2)), 2, "GETKEYSINSLOT of two")
    client.delete("{tag}1", "{tag}2", "{tag}3")


def agreed(views):
    return all(view == views[0] for view in views)


def forwarded(nodes):
    return sum(node.metrics().get("trellis_ops_forwarded_total", 0) for node in nodes)


def share(nodes, ops, work):
    """Requests forwarded of `ops` that `work` does."""
    before = forwarded(nodes)
    work()
    return (forwarded(nodes) - before) / ops


def alone(client, count, name):
    """`count` requests, each by itself: what a web application does."""
    for i in range(count // 2):
        same(client.set(f"{name}:{i}", i, ex=600), True, "SET")
        same(client.get(f"{name}:{i}"), str(i).encode(), "GET")


def cluster_client(nodes, **options):
    return RedisCluster(startup_nodes=[ClusterNode(node.host, node.port) for node in nodes], socket_timeout=10, **options)


def everyday(client):
    """What users of RedisCluster do."""
    with client.pipeline() as pipe:
        for i in range(500):
            pipe.set(f"p{i}", i).incr(f"c{i % 5}")
        same(all(pipe.execute()), True, "a pipeline over all nodes")
    same(sum(int(client.get(f"c{i}")) for i in range(5)), 500, "counters of the pipeline")
    same(client.mget_nonatomic([f"p{i}" for i in range(500)]), [str(i).encode() for i in range(500)], "keys of all nodes")
    same(client.dbsize(), 505, "DBSIZE is that of the cluster, once")
    same(len(client.keys("p*")), 500, "KEYS finds each key once")
    same(sorted(client.scan_iter("c*", count=100)), [b"c0", b"c1", b"c2", b"c3", b"c4"], "SCAN finds each key once")
    same(client.set("{user:1}:name", "Zoë 🗝"), True, "hash tags and Unicode")
    same(client.get("{user:1}:name").decode(), "Zoë 🗝", "what was written")
    blob = bytes(range(256)) * 4096
    client.set("blob", blob)
    same(client.get("blob") == blob, True, "1 MiB of every byte")
    same(client.delete("blob", "{user:1}:name"), 2, "DEL of keys of several nodes")
    same(client.cluster_keyslot("foo"), 12182, "CLUSTER KEYSLOT")
    same(client.cluster_info(target_nodes=client.get_random_node())["cluster_state"], "ok", "CLUSTER INFO")
    same(client.flushall(), True, "FLUSHALL")
    same(client.dbsize(), 0, "nothing is left")


def alone_by_ioredis(ioredis, count, name):
    """The same by ioredis."""
    for i in range(count // 2):
        same(ioredis.ask("set", f"{name}:{i}", f"ü{i}", "EX", 600), b"OK", "SET")
        same(ioredis.ask("get", f"{name}:{i}"), f"ü{i}".encode(), "GET")


def shares(nodes, ioredis):
    """A client that knows one node has two thirds of its requests forwarded; one that knows the cluster none."""
    count = 3000
    plain = share(nodes, count, lambda: alone(redis.Redis(nodes[0].host, nodes[0].port), count, "plain"))
    aware = share(nodes, count, lambda: alone(cluster_client(nodes), count, "aware"))
    print(f"requests forwarded: {plain:.1%} of a plain redis-py's, {aware:.2%} of RedisCluster's")
    below(0.5, plain, "a plain client's requests are forwarded")
    below(aware, 0.01, "RedisCluster's requests go to their owner")
    if ioredis:
        by_node = share(nodes, count, lambda: alone_by_ioredis(ioredis, count, "io"))
        print(f"requests forwarded: {by_node:.2%} of ioredis Cluster's")
        below(by_node, 0.01, "ioredis' requests go to their owner")


def through_a_join_and_a_death(nodes, ioredis):
    """What members tell of a join and a death, and that clients follow. What they may see meanwhile is `workload.py`'s."""
    client = cluster_client(nodes[:1])
    alone(client, 100, "before")
    fourth = Node([nodes[0].address], nodes[0].options)
    try:
        everybody = [*nodes, fourth]
        eventually(lambda: all(met(node, everybody) for node in everybody), "the fourth node holds its share", 60)
        eventually(lambda: fourth.port in {members[0] for members in slots_of(nodes[0]).values()}, "the fourth node leads slots", 30)
        told(everybody)
        same(len(cluster_client(everybody).get_primaries()), 1, "RedisCluster asks one node for what every node knows")
        victim = nodes[2]
        victim.kill()
        left = [nodes[0], nodes[1], fourth]
        took = eventually(lambda: all(victim.port not in members for node in left for members in slots_of(node).values()), "the dead is told by nobody", 10)
        print(f"a killed node was out of every node's CLUSTER SLOTS after {took:.2f} s")
        eventually(lambda: all(failed(node, victim) for node in left), "the dead is `fail`", 10)
        told(left)
        # Its connection to the dead breaks, and it asks who is there.
        alone(client, 100, "after")
        same({node.port for node in client.get_nodes()}, {node.port for node in left}, "RedisCluster knows who is there")
        count = 1000
        aware = share(left, count, lambda: alone(client, count, "after"))
        print(f"requests forwarded: {aware:.2%} of the same RedisCluster's afterwards")
        below(aware, 0.01, "RedisCluster's requests go to their owner afterwards")
        if ioredis:
            eventually(lambda: ioredis.nodes() == {node.address for node in left}, "ioredis knows who is there", 20)
            by_node = share(left, count, lambda: alone_by_ioredis(ioredis, count, "io:after"))
            below(by_node, 0.01, "ioredis' requests go to their owner afterwards")
    finally:
        fourth.kill()


def failed(node, victim):
    lines = unparsed(node, "CLUSTER NODES").decode().splitlines()
    return any(f":{victim.port}@" in line and line.split()[2] == "master,fail" for line in lines)


def main():
    with cluster(3, "--consistency", "quorum") as nodes:
        # Ownership settles a moment after the nodes are ready.
        eventually(lambda: len({port for members in slots_of(nodes[0]).values() for port in members[:1]}) == 3, "all three lead slots", 30)
        told(nodes)
        like_redis(nodes)
        everyday(cluster_client(nodes))
        everyday(cluster_client(nodes, protocol=3))
        ioredis = Bridge("cluster", [(node.host, node.port) for node in nodes]) if available() else None
        if not ioredis:
            print("ioredis is not checked: node or IOREDIS is missing")
        try:
            shares(nodes, ioredis)
            through_a_join_and_a_death(nodes, ioredis)
        finally:
            if ioredis:
                ioredis.close()
    print(f"{checks} checks passed")


main()
