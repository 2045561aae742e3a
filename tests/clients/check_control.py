"""What operators and client libraries say to a node to control it: CLIENT, SLOWLOG, LATENCY, CONFIG SET, next to redis-server where that is installed.

What is compared is compared byte by byte, in RESP2 and RESP3.
"""

import http.client
import json
import shutil
import tempfile
import threading
import time
from pathlib import Path

import redis

from cluster import Node, Process, eventually, free_port
from resp import Connection

checks = 0


def same(got, expected, what):
    global checks
    checks += 1
    if got != expected:
        raise AssertionError(f"{what}: {got!r:.400}, expected {expected!r:.400}")


# Lines that a fresh server answers in one way only.
EQUAL = """
CLIENT KILL|CLIENT KILL 1.2.3.4:5|CLIENT KILL ID x|CLIENT KILL ID 0|CLIENT KILL ID 99999|CLIENT KILL TYPE foo|CLIENT KILL TYPE pubsub|CLIENT KILL USER foo
CLIENT KILL USER default SKIPME yes|CLIENT KILL SKIPME maybe|CLIENT KILL SKIPME|CLIENT KILL ADDR x LADDR y|CLIENT KILL FOO x|CLIENT KILL ID 1 FOO
CLIENT PAUSE|CLIENT PAUSE x|CLIENT PAUSE -1|CLIENT PAUSE 1 FOO|CLIENT PAUSE 1 write|CLIENT PAUSE 1 ALL x|CLIENT UNPAUSE|CLIENT UNPAUSE x
CLIENT REPLY|CLIENT REPLY foo|CLIENT REPLY on|CLIENT NO-EVICT|CLIENT NO-EVICT on|CLIENT NO-EVICT off|CLIENT NO-EVICT x|CLIENT TRACKING|CLIENT TRACKING x
CLIENT TRACKING off|CLIENT TRACKINGINFO|CLIENT GETREDIR|CLIENT CACHING yes|CLIENT CACHING x|CLIENT TRACKING on foo|CLIENT TRACKING off FOO
CLIENT TRACKING on REDIRECT x|CLIENT TRACKING off OPTIN OPTOUT|CLIENT UNBLOCK x|CLIENT UNBLOCK 1|CLIENT UNBLOCK 1 FOO|CLIENT UNBLOCK 1 TIMEOUT|CLIENT UNBLOCK 1 ERROR x
SLOWLOG|SLOWLOG GET x|SLOWLOG GET -2|SLOWLOG GET 1 2|SLOWLOG LEN x|SLOWLOG LEN|SLOWLOG GET|SLOWLOG RESET|SLOWLOG HELP|SLOWLOG FOO
LATENCY|LATENCY LATEST|LATENCY LATEST x|LATENCY HISTORY foo|LATENCY RESET|LATENCY RESET foo bar|LATENCY GRAPH|LATENCY GRAPH foo|LATENCY HELP
CONFIG SET|CONFIG SET a|CONFIG SET a b|CONFIG SET a b c|CONFIG SET timeout 0 a b|CONFIG SET databases 3|CONFIG SET unixsocket x|CONFIG SET maxmemory x
CONFIG SET maxmemory -1|CONFIG SET maxmemory 1.5mb|CONFIG SET maxmemory 10zb|CONFIG SET maxmemory 0 maxmemory 1|CONFIG SET timeout -1|CONFIG SET timeout x
CONFIG SET timeout 99999999999|CONFIG SET slowlog-log-slower-than -5|CONFIG SET slowlog-log-slower-than x|CONFIG SET maxmemory 1 timeout|CONFIG RESETSTAT
CONFIG RESETSTAT x|CONFIG REWRITE|CONFIG HELP|CONFIG SET maxmemory 100mb|CONFIG GET maxmemory|CONFIG SET maxmemory 100k|CONFIG GET maxmemory
CONFIG SET maxmemory 0|CONFIG SET timeout 7|CONFIG GET timeout|CONFIG SET TIMEOUT 0|CONFIG GET slowlog-log-slower-than|CONFIG GET slowlog-max-len
CONFIG SET slowlog-max-len 5 slowlog-log-slower-than -1|CONFIG GET slowlog-max-len|CONFIG SET slowlog-max-len 128 slowlog-log-slower-than 10000
CONFIG SET maxmemory-policy allkeys-lru|CONFIG GET maxmemory-policy|CONFIG SET maxmemory-policy noeviction|CONFIG GET maxmemory-policy
CONFIG GET latency-monitor-threshold|DEBUG|DEBUG SLEEP 0|DEBUG HELP|SELECT 0|SELECT 1|SELECT -1|SELECT x|SWAPDB|SWAPDB 0 0|SWAPDB 0 1|SWAPDB x 0|SWAPDB 0 x
MOVE|MOVE k 0|MOVE k 1|MOVE k x|COMMAND GETKEYSANDFLAGS set a b|COMMAND GETKEYSANDFLAGS set a b get|COMMAND GETKEYS get|COMMAND GETKEYSANDFLAGS mset a b c d|COMMAND GETKEYSANDFLAGS ping x|COMMAND GETKEYSANDFLAGS
COMMAND GETKEYSANDFLAGS rename a b|COMMAND GETKEYSANDFLAGS renamenx a b|COMMAND GETKEYSANDFLAGS copy a b|COMMAND GETKEYSANDFLAGS bitop and a b c
COMMAND GETKEYSANDFLAGS lcs a b|COMMAND GETKEYSANDFLAGS bitfield a get u8 0|COMMAND GETKEYSANDFLAGS bitfield a set u8 0 1|COMMAND GETKEYSANDFLAGS bitfield a
COMMAND GETKEYSANDFLAGS setbit a 0 1|COMMAND GETKEYSANDFLAGS dump a|COMMAND GETKEYSANDFLAGS watch a b|COMMAND GETKEYS memory usage a
COMMAND GETKEYSANDFLAGS foo x|COMMAND GETKEYS del a b|COMMAND GETKEYS foo|COMMAND LIST FILTERBY PATTERN get|COMMAND LIST FILTERBY MODULE x
COMMAND LIST FILTERBY ACLCAT foo|COMMAND LIST FILTERBY FOO x|COMMAND LIST x y z|COMMAND HELP
COMMAND INFO client|kill client|pause client|reply client|tracking slowlog|get slowlog|len latency|histogram config|set debug swapdb move
HSET k f v|LPUSH k v|ZADD k 1 v|SADD k v|XADD k 1-1 a b|EVAL x 0|GEOADD k 1 1 m|PFADD k v|foo|foo a b
"""
# The types a Redis has beside ours make these lines answer otherwise there.
OURS_ALONE = ("HSET", "LPUSH", "ZADD", "SADD", "XADD", "EVAL", "GEOADD", "PFADD")


def lines():
    for line in EQUAL.strip().splitlines():
        # `client|kill` is a name, not two lines.
        if line.startswith("COMMAND INFO"):
            yield line
        else:
            yield from line.split("|")


def answer(connection):
    """One whole reply, as its bytes."""
    line = connection.file.readline()
    if not line:
        raise ConnectionError("hung up")
    kind, rest = line[:1], line[1:].strip()
    if kind in b"$=" and rest != b"-1":
        return line + connection.file.read(int(rest) + 2)
    if kind in b"*~>":
        return line + b"".join(answer(connection) for _ in range(int(rest)))
    if kind == b"%":
        return line + b"".join(answer(connection) for _ in range(2 * int(rest)))
    return line


def told(connection, line):
    connection.send(line.encode() + b"\r\n")
    return answer(connection)


def like_redis(node):
    if not shutil.which("redis-server"):
        print("redis-server is not installed: replies are not compared")
        return
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="trellis-"))
    arguments = ["redis-server", "--port", str(port), "--databases", "1", "--save", "", "--appendonly", "no"]
    server = Process(arguments, folder / "log", cwd=folder, stdout=(folder / "out").open("wb"))
    try:
        eventually(lambda: responds(port), "redis-server answers")
        for protocol in (2, 3):
            ours, theirs = Connection(node.host, node.port), Connection("127.0.0.1", port)
            for connection in (ours, theirs):
                told(connection, f"HELLO {protocol}")
            for line in lines():
                got, expected = told(ours, line), told(theirs, line)
                if line.startswith(OURS_ALONE):
                    name, *rest = line.split()
                    quoted = "".join(f"'{arg}' " for arg in rest)
                    expected = f"-ERR unknown command '{name}', with args beginning with: {quoted}\r\n".encode()
                if line == "COMMAND HELP" or line.startswith("COMMAND INFO"):
                    got, expected = sorted(got.split(b"\r\n")), sorted(expected.split(b"\r\n"))
                same(got, expected, f"{line}, RESP{protocol}")
            ours.close()
            theirs.close()
    finally:
        server.kill()


def responds(port):
    try:
        with redis.Redis(port=port) as client:
            return client.ping()
    except redis.ConnectionError:
        return False


def hung_up(connection):
    connection.socket.settimeout(5)
    try:
        return connection.file.read(1) == b""
    except ConnectionError:
        return True


def killing(node):
    client = redis.Redis(node.host, node.port, single_connection_client=True)
    victims = [Connection(node.host, node.port) for _ in range(5)]
    ids = [victim.ask("CLIENT", "ID") for victim in victims]
    addresses = ["%s:%d" % victim.socket.getsockname() for victim in victims]
    same(client.client_kill_filter(_id=ids[0]), 1, "one by its id")
    same(client.client_kill(addresses[1]), True, "one by its address")
    same(client.client_kill_filter(addr=addresses[2], laddr=f"{node.host}:{node.port}"), 1, "one by both addresses")
    for victim in victims[:3]:
        same(hung_up(victim), True, "the killed hear nothing more")
    same(victims[3].ask("PING"), "PONG", "the others go on")
    same(client.client_kill_filter(_type="normal", skipme=True), 2, "all but who asks")
    same([hung_up(victim) for victim in victims[3:]], [True, True], "all others are gone")
    own = Connection(node.host, node.port)
    same(own.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no"), 2, "who asks is answered first")
    same(hung_up(own), True, "and ended then")


def pausing(node):
    admin, client = redis.Redis(node.host, node.port), Connection(node.host, node.port)
    admin.set("paused", "1")
    admin.client_pause(300, all=False)
    start = time.monotonic()
    same(client.ask("GET", "paused"), b"1", "a read goes on while writes are paused")
    same(time.monotonic() - start < 0.2, True, "at once")
    same(client.ask("SET", "paused", "2"), "OK", "a write waits and is done")
    same(time.monotonic() - start > 0.25, True, "after the pause")
    admin.client_pause(10_000)
    replies = []
    waits = threading.Thread(target=lambda: replies.append(client.ask("GET", "paused")))
    waits.start()
    waits.join(0.2)
    same(replies, [], "everything is paused")
    web = http.client.HTTPConnection(*node.admin.split(":"), timeout=15)
    web.request("GET", "/v1/kv/paused")
    answer = web.getresponse()
    told = json.loads(answer.read())["error"]
    same((answer.status, told["applied"], "CLIENT PAUSE" in told["message"]), (504, "no", True), "HTTP has a deadline")
    same(replies, [], "everything is paused still")
    same(admin.client_unpause(), b"OK", "the pause is ended")
    waits.join(2)
    same(replies, [b"2"], "and who waited is answered")


def muting(node):
    client = Connection(node.host, node.port)
    client.send(b"CLIENT REPLY SKIP\r\nPING\r\nECHO 1\r\n")
    same(client.read(), b"1", "one reply is skipped")
    client.send(b"CLIENT REPLY OFF\r\nSET muted 1\r\nGET muted\r\nNONSENSE\r\nCLIENT REPLY SKIP\r\nINCR muted\r\nCLIENT REPLY ON\r\nGET muted\r\n")
    same([client.read(), client.read()], ["OK", b"2"], "none is heard until they are on again, and all was done")
    client.send(b"CLIENT REPLY SKIP\r\nCLIENT REPLY SKIP\r\nPING\r\nECHO 2\r\n")
    same(client.read(), b"2", "a skipped skip skips the next")
    client.send(b"CLIENT REPLY OFF\r\nHELLO 3\r\nCLIENT REPLY ON\r\nGET nothing\r\n")
    same([client.file.readline(), client.file.readline()], [b"+OK\r\n", b"_\r\n"], "the protocol changes unheard")
    client.send(b"CLIENT REPLY OFF\r\nRESET\r\nGET nothing\r\n")
    same([client.file.readline(), client.file.readline()], [b"+RESET\r\n", b"$-1\r\n"], "RESET is heard")


def slow(node):
    client = redis.Redis(node.host, node.port, client_name="bob", single_connection_client=True)
    client.slowlog_reset()
    client.config_set("slowlog-log-slower-than", 0)
    client.set("k", "x" * 200)
    client.mset({f"k{i}": i for i in range(40)})
    entries = client.slowlog_get(2)
    same(entries[1]["command"], b"SET k " + b"x" * 128 + b"... (72 more bytes)", "a long argument is cut")
    same(entries[0]["command"].endswith(b"... (50 more arguments)"), True, "many arguments are cut")
    same((entries[0]["client_name"], entries[0]["id"] - entries[1]["id"]), (b"bob", 1), "who asked, in order")
    client.execute_command("SLOWLOG", "RESET")
    client.config_set("slowlog-max-len", 3)
    for _ in range(10):
        client.get("k")
    same(len(client.slowlog_get(-1)), 3, "no more are kept than asked for")
    same(client.slowlog_len(), 3, "SLOWLOG LEN")
    client.config_set("slowlog-log-slower-than", 10_000)
    client.config_set("slowlog-max-len", 128)
    client.slowlog_reset()
    same(client.slowlog_len(), 0, "nothing is left")


def counting(node):
    client = redis.Redis(node.host, node.port, protocol=3)
    client.config_resetstat()
    for _ in range(20):
        client.get("k")
    same(client.info("stats")["keyspace_hits"], 20, "INFO counts from the reset on")
    histogram = client.execute_command("LATENCY", "HISTOGRAM", "get", "nonsense")
    same((list(histogram), histogram[b"get"][b"calls"]), ([b"get"], 20), "LATENCY HISTOGRAM")
    same(max(histogram[b"get"][b"histogram_usec"].values()), 20, "its last bucket counts all")
    same(node.metrics()["trellis_keyspace_hits_total"] > 20, True, "the metrics page goes on counting")


def budget(node):
    client = redis.Redis(node.host, node.port)
    client.flushall()
    with client.pipeline(transaction=False) as pipe:
        for i in range(20_000):
            pipe.set(f"b{i}", "x" * 100)
        pipe.execute()
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("maxmemory", "500kb")
    eventually(lambda: client.info("memory")["used_memory"] <= 500 * 1024, "a smaller budget is kept to")
    same(client.info("memory")["maxmemory"], 500 * 1024, "INFO tells the budget")
    client.config_set("maxmemory-policy", "noeviction")
    try:
        for i in range(20_000):
            client.set(f"c{i}", "x" * 100)
        raise AssertionError("no write was refused")
    except redis.OutOfMemoryError:
        pass
    client.config_set("maxmemory", 0)
    same(client.set("c", "1"), True, "without a limit it is written")
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.flushall()


def main():
    node = Node()
    try:
        like_redis(node)
        for part in (killing, pausing, muting, slow, counting, budget):
            part(node)
    finally:
        node.kill()
    print(f"{checks} checks passed")


main()
