"""Publish and subscribe as applications use it, over three nodes of which one is killed and another joins: redis-py plain, asyncio and cluster-aware,
RESP2 and RESP3, channels, patterns, shard channels, events of keys; and clients that take nothing, ask for too much, or name channels as nobody does.
"""

import asyncio
import socket
import time

import redis
import redis.asyncio
from redis.cluster import RedisCluster

from cluster import Node, cluster, eventually
from resp import Connection, Refusal, command

checks = 0
# Bounds of base/limits.rs.
SUBSCRIPTIONS_MAX = 64 * 1024
CHANNEL_BYTES_MAX = 64 * 1024 + 64
PUSH_BYTES_MAX = 32 * 1024 * 1024


def same(got, expected, what):
    global checks
    checks += 1
    if got != expected:
        raise AssertionError(f"{what}: {got!r:.400}, expected {expected!r:.400}")


def client(node, protocol=2):
    return redis.Redis(node.host, node.port, protocol=protocol, socket_timeout=10)


def listener(node, protocol=2, **how):
    """A subscriber whose confirmations have come: what is published from now on it must hear."""
    pubsub = client(node, protocol).pubsub()
    for verb, names in how.items():
        getattr(pubsub, verb)(*names)
        for _ in names:
            same(take(pubsub)["type"], verb, "a confirmation")
    return pubsub


def take(pubsub):
    # redis-py has its own way with shard messages of a cluster; here every node answers for all.
    message = pubsub.get_message(timeout=10)
    if message is None:
        raise AssertionError("no message within 10 s")
    return message


def heard(pubsub, count):
    return [(message["type"], message["channel"], message["data"]) for message in (take(pubsub) for _ in range(count))]


def silent(pubsub, what):
    same(pubsub.get_message(timeout=0.05), None, what)


def everywhere(nodes):
    """Each message once to each subscriber on each node, whichever node it was published through, in the publisher's order."""
    listeners = [listener(node, protocol, subscribe=["news"]) for node in nodes for protocol in (2, 3)]
    patterns = [listener(node, 3, psubscribe=["n?ws", "x*"]) for node in nodes]
    shards = [listener(node, protocol, ssubscribe=["news"]) for node in nodes for protocol in (2, 3)]
    count = 40
    for n, node in enumerate(nodes):
        publisher = client(node)
        for i in range(count):
            receivers = publisher.publish("news", f"{n}:{i}")
            same(receivers, len(listeners) + len(patterns), "receivers over the cluster")
        same(publisher.execute_command("SPUBLISH", "news", f"{n}"), len(shards), "receivers of a shard message")
        same(publisher.publish("other", "x"), 0, "nobody listens")
        same(publisher.pubsub_numsub("news", "other"), [(b"news", len(listeners)), (b"other", 0)], "subscribers over the cluster")
        same(publisher.pubsub_channels(), [b"news"], "channels over the cluster")
        same(publisher.pubsub_numpat(), 2, "different patterns over the cluster")
        same(publisher.execute_command("PUBSUB", "SHARDNUMSUB", "news"), [b"news", len(shards)], "shard subscribers")
    expected = [f"{n}:{i}".encode() for n in range(len(nodes)) for i in range(count)]
    for pubsub in listeners:
        same(heard(pubsub, len(expected)), [("message", b"news", data) for data in expected], "what a subscriber hears")
        silent(pubsub, "nothing comes twice")
    for pubsub in patterns:
        same(heard(pubsub, len(expected)), [("pmessage", b"news", data) for data in expected], "what a pattern hears")
    for pubsub in shards:
        same(heard(pubsub, len(nodes)), [("smessage", b"news", f"{n}".encode()) for n in range(len(nodes))], "what a shard hears")
        silent(pubsub, "a shard hears nothing else")
    for pubsub in listeners + patterns + shards:
        pubsub.close()
    eventually(lambda: client(nodes[0]).publish("news", "x") == 0, "closed connections are no subscribers")


def cheap(nodes):
    """Who does not listen is sent nothing."""
    forwarded = lambda: sum(node.metrics()["trellis_messages_forwarded_total"] for node in nodes)
    before, publisher = forwarded(), client(nodes[0])
    for _ in range(200):
        publisher.publish("nobody", "x")
    same(forwarded() - before, 0, "no member is sent what nobody there wants")
    pubsub = listener(nodes[1], subscribe=["somebody"])
    for _ in range(200):
        publisher.publish("somebody", "x")
    same(forwarded() - before, 200, "one member is, not two")
    pubsub.close()


def transactions(nodes):
    pubsub = listener(nodes[1], subscribe=["in"])
    with client(nodes[0]).pipeline() as pipe:
        pipe.set("{t}a", 1)
        pipe.publish("in", "side")
        pipe.get("{t}a")
        same(pipe.execute(), [True, 1, b"1"], "a transaction that publishes")
    same(heard(pubsub, 1), [("message", b"in", b"side")], "it is heard")
    pubsub.close()


def clients_of_a_cluster(nodes):
    aware = RedisCluster(host=nodes[0].host, port=nodes[0].port)
    plain = aware.pubsub()
    plain.subscribe("c")
    same(take(plain)["type"], "subscribe", "RedisCluster subscribes")
    shard = aware.pubsub()
    shard.ssubscribe("s{1}")
    eventually(lambda: (shard.get_sharded_message(timeout=0.2) or {}).get("type") == "ssubscribe", "RedisCluster subscribes to a shard")
    same(client(nodes[2]).publish("c", "1"), 1, "published elsewhere")
    same(aware.publish("c", "2"), 1, "RedisCluster publishes")
    same(aware.spublish("s{1}", "3"), 1, "RedisCluster publishes to a shard")
    same(heard(plain, 2), [("message", b"c", b"1"), ("message", b"c", b"2")], "RedisCluster hears")
    found = []
    eventually(lambda: found.append(shard.get_sharded_message(timeout=0.2)) or found[-1] is not None, "RedisCluster hears of its shard")
    same((found[-1]["type"], found[-1]["data"]), ("smessage", b"3"), "RedisCluster hears of its shard")
    plain.close()
    shard.close()
    aware.close()


def asynchronous(nodes):
    async def talk(protocol):
        here = redis.asyncio.Redis(host=nodes[0].host, port=nodes[0].port, protocol=protocol)
        there = redis.asyncio.Redis(host=nodes[2].host, port=nodes[2].port)
        async with here.pubsub() as pubsub:
            await pubsub.subscribe("async")
            same((await pubsub.get_message(timeout=10))["type"], "subscribe", "asyncio subscribes")
            await asyncio.gather(*(there.publish("async", str(i)) for i in range(50)))
            data = [(await pubsub.get_message(timeout=10))["data"] for _ in range(50)]
            same(sorted(data, key=int), [str(i).encode() for i in range(50)], "asyncio hears everything once")
            await pubsub.unsubscribe()
            same((await pubsub.get_message(timeout=10))["type"], "unsubscribe", "asyncio unsubscribes")
        await here.aclose()
        await there.aclose()

    for protocol in (2, 3):
        asyncio.run(talk(protocol))


def a_node_dies_and_another_joins(nodes):
    first, doomed, third = nodes
    here, there, lost = (listener(node, subscribe=["life"]) for node in (first, third, doomed))
    same(client(first).publish("life", "before"), 3, "all three hear")
    doomed.kill()
    publisher = client(third)
    eventually(lambda: publisher.publish("life", "after") == 2, "the dead one is not counted")
    started = time.monotonic()
    more = listener(first, subscribe=["while one is dead"])
    same(time.monotonic() - started < 5, True, "a subscription does not wait for the dead")
    more.close()
    same(heard(here, 1), [("message", b"life", b"before")], "before the crash")
    new = Node([first.address])
    try:
        # At once: who has just come and knows nothing of others' wishes sends them everything.
        eventually(lambda: client(new).publish("life", "from the new one") == 2, "the new member reaches everybody")
        late = listener(new, subscribe=["late"])
        for node in (first, third, new):
            eventually(lambda node=node: client(node).publish("late", "x") == 1, "the new member is reached by everybody")
        for pubsub in (here, there):
            same(next(message["data"] for message in iter(lambda: take(pubsub), None) if message["data"] == b"from the new one"),
                 b"from the new one", "what was published through the new member")
        late.close()
    finally:
        new.kill()
    here.close()
    there.close()
    lost.close()


def the_slow(nodes):
    """Who takes nothing is cut off, and nobody else notices."""
    slow = Connection(nodes[1].host, nodes[1].port)
    slow.send(command("SUBSCRIBE", "flood"))
    same(slow.read(), [b"subscribe", b"flood", 1], "it subscribes")
    quick = listener(nodes[1], subscribe=["flood"])
    publisher, payload = client(nodes[0]), b"x" * (1024 * 1024)
    # Twice the bound, and what sockets hold.
    for _ in range(2 * PUSH_BYTES_MAX // len(payload) + 16):
        publisher.publish("flood", payload)
        same(len(take(quick)["data"]), len(payload), "who takes what comes gets all of it")
    same(nodes[1].metrics()["trellis_connections_closed_subscriber_total"], 1, "the slow one was cut off and counted")
    same(publisher.publish("flood", "x"), 1, "and is no subscriber any more")
    slow.close()
    quick.close()


def the_greedy(node):
    """Each bound has a clear error, costs nothing else, and leaves the connection as it was."""
    greedy = Connection(node.host, node.port, seconds_max=60)
    taken = 0
    for n in range(0, 100_000, 1_000):
        greedy.send(command("SUBSCRIBE", *(f"channel {i}" for i in range(n, n + 1_000))))
        reply = greedy.read()
        if isinstance(reply, Refusal):
            same(str(reply), "ERR this connection would subscribe to too much, nothing was added", "the refusal")
            continue
        taken += 1
        for _ in range(999):
            greedy.read()
    same(taken, SUBSCRIPTIONS_MAX // 1_000, "as many as there is room for")
    same(client(node).publish("channel 1", "x"), 1, "it hears what it has subscribed to")
    same(greedy.read(), [b"message", b"channel 1", b"x"], "it hears what it has subscribed to")
    giant = "c" * CHANNEL_BYTES_MAX
    for words in (["SUBSCRIBE", giant + "c"], ["PSUBSCRIBE", giant + "c"], ["SSUBSCRIBE", giant + "c"]):
        greedy.send(command(*words))
        refusal = str(greedy.read())
        same(refusal.startswith("ERR "), True, refusal)
    giants = Connection(node.host, node.port)
    same(giants.ask("SUBSCRIBE", giant), [b"subscribe", giant.encode(), 1], "the longest name")
    same(client(node).publish(giant, "x"), 1, "the longest name is published to")
    for words in (["PUBLISH", giant + "c", "x"], ["PUBSUB", "NUMSUB", giant + "c"]):
        try:
            client(node).execute_command(*words)
            raise AssertionError("no refusal")
        except redis.ResponseError as refusal:
            same(str(refusal), f"a channel may have at most {CHANNEL_BYTES_MAX} bytes, nothing was done", "the refusal")
    greedy.close()
    giants.close()
    eventually(lambda: node.metrics()["trellis_subscriptions"] == 0, "nothing is left of them")


def listed(node):
    pubsub = listener(node, subscribe=["a", "b"], psubscribe=["c*"], ssubscribe=["d"])
    admin = client(node)
    lines = [line for line in admin.client_list() if line["sub"] == "2"]
    same([(line["flags"], line["psub"], line["ssub"]) for line in lines], [("P", "1", "1")], "CLIENT LIST tells subscribers")
    same([line["id"] for line in admin.client_list(_type="pubsub")], [lines[0]["id"]], "CLIENT LIST TYPE pubsub")
    same(admin.info("stats")["pubsub_channels"], 2, "INFO tells channels")
    same(admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub"), 1, "CLIENT KILL TYPE pubsub")
    eventually(lambda: admin.publish("a", "x") == 0, "who was killed is no subscriber")
    pubsub.close()


def memcached(node, line, data=b""):
    with socket.create_connection((node.host, node.memcached), 10) as connection:
        connection.sendall(line + b"\r\n" + (data + b"\r\n" if data else b""))
        return connection.recv(1000)


def events_of_keys(nodes):
    """Whatever happens to a key is told once, to those alone whose node asks for it, wherever and in whichever protocol it was done."""
    asks, others = nodes[0], nodes[1:]
    admin = client(asks)
    same(admin.config_get("notify-keyspace-events"), {"notify-keyspace-events": ""}, "nothing is asked for at first")
    admin.config_set("notify-keyspace-events", "KEA")
    same(admin.config_get("notify-keyspace-events"), {"notify-keyspace-events": "AKE"}, "as Redis shows it")
    hearing = listener(asks, 3, psubscribe=["__keyspace@0__:e*"])
    deaf = listener(others[0], 3, psubscribe=["__keyspace@0__:*"])
    for n, node in enumerate(nodes * 3):
        keys = client(node)
        keys.set(f"e{n}", "v")
        keys.incrby(f"n{n}", 1)
        keys.expire(f"e{n}", 100)
        keys.delete(f"e{n}")
    told = {}
    for kind, channel, event in heard(hearing, 27):
        same(kind, "pmessage", "an event")
        told.setdefault(channel.decode(), []).append(event)
    same(told, {f"__keyspace@0__:e{n}": [b"set", b"expire", b"del"] for n in range(9)}, "each once, in order")
    for node in nodes:
        same(memcached(node, b"set e 0 0 1", b"1"), b"STORED\r\n", "memcached sets")
        same(memcached(node, b"incr e 5"), b"6\r\n", "memcached counts")
        same(memcached(node, b"delete e"), b"DELETED\r\n", "memcached deletes")
    same([event for _, _, event in heard(hearing, 9)], [b"set", b"incrby", b"del"] * 3, "what memcached clients do")
    evented = listener(asks, 2, subscribe=["__keyevent@0__:expired"])
    client(nodes[2]).set("short", "v", px=30)
    same(heard(evented, 1), [("message", b"__keyevent@0__:expired", b"short")], "a key that nobody looks at expires")
    silent(hearing, "nothing comes twice")
    silent(evented, "nothing comes twice")
    silent(deaf, "a node that does not ask hears nothing")
    admin.config_set("notify-keyspace-events", "")
    client(nodes[1]).set("e", "v")
    silent(hearing, "nothing is told any more")
    same(refusal(admin, "CONFIG", "SET", "notify-keyspace-events", "Kq"), True, "a letter that is nobody's")
    for pubsub in (hearing, deaf, evented):
        pubsub.close()
    alone = Node(options=["--notify-keyspace-events", "Kg"])
    try:
        same(client(alone).config_get("notify-keyspace-events"), {"notify-keyspace-events": "gK"}, "the option")
        pubsub = listener(alone, psubscribe=["*"])
        client(alone).set("a", "v")
        client(alone).delete("a")
        same(heard(pubsub, 1), [("pmessage", b"__keyspace@0__:a", b"del")], "what it asks for and nothing else")
        pubsub.close()
    finally:
        alone.kill()


def refusal(admin, *words):
    try:
        admin.execute_command(*words)
    except redis.ResponseError:
        return True
    return False


def main():
    with cluster(3, "--memcached-port", "0") as nodes:
        for part in (everywhere, cheap, transactions, clients_of_a_cluster, asynchronous, events_of_keys, the_slow):
            part(nodes)
        the_greedy(nodes[0])
        listed(nodes[0])
        a_node_dies_and_another_joins(nodes)
    print(f"{checks} checks passed")


main()
