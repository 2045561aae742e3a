"""Transactions, and commands on several keys, against redis-server: the same bytes go to it and to Trellis, and the replies are compared byte
for byte. First a table of exchanges, then random ones of a fixed seed.

`check_transactions.py [SEQUENCES]`; redis-server must be installed.
"""

import random
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from cluster import Process, cluster, eventually, free_port
from resp import command

SEED = 20_231

# Each line is sent as one command by the connection of its number; `|` parts commands, sent one after another. The keys are of one partition.
EXCHANGES = """
1 MULTI | SET {t}a 1 | INCR {t}a | GET {t}a | EXEC | GET {t}a
1 EXEC | DISCARD | MULTI | DISCARD | EXEC
1 MULTI | MULTI | SET {t}a 1 | EXEC
1 MULTI | WATCH {t}a | SET {t}a 2 | EXEC
1 MULTI | EXEC | MULTI | PING | ECHO x | EXEC | EXEC
1 MULTI | GET | SET {t}a 9 | EXEC | GET {t}a
1 MULTI | NOSUCH x | EXEC | MULTI | CLIENT NOSUCH | EXEC | MULTI | CLIENT ID x | EXEC
1 MULTI | MULTI x | EXEC | MULTI | DISCARD x | EXEC | MULTI | WATCH | EXEC
1 MULTI | INCRBY {t}a x | MSET {t}a 1 {t}b | SET {t}a 1 EX 0 | PING a b | SELECT x | EXEC
1 SET {t}s text | MULTI | INCR {t}s | GET {t}s | INCR {t}n | EXEC | GET {t}n
1 MULTI | MSET {t}a 1 {t}b 2 | MGET {t}a {t}b {t}none | DEL {t}a {t}none | EXISTS {t}a {t}b {t}b | EXEC
1 MULTI | MSETNX {t}x 1 {t}y 2 | MSETNX {t}y 3 {t}z 4 | MGET {t}x {t}y {t}z | DEL {t}x {t}y | EXEC
1 MULTI | SET {t}a 1 | PING | GET {t}a | ECHO hello | SELECT 0 | CLIENT GETNAME | CLIENT SETNAME me | CLIENT GETNAME | EXEC
1 MULTI | SET {t}a 5 | RESET | EXEC | GET {t}a
1 MULTI | SET {t}a 6 | UNWATCH | EXEC | GET {t}a | UNWATCH
1 MULTI | SET {t}a 7 | DISCARD | GET {t}a
1 SET {t}a 1 | WATCH {t}a | MULTI | INCR {t}a | EXEC | GET {t}a
1 WATCH {t}a
2 SET {t}a 1
1 MULTI | INCR {t}a | EXEC | GET {t}a | MULTI | INCR {t}a | EXEC
1 WATCH {t}a | SET {t}a 3 | MULTI | INCR {t}a | EXEC
1 WATCH {t}a {t}b | UNWATCH
2 SET {t}b 1
1 MULTI | INCR {t}a | EXEC
1 WATCH {t}b
2 SET {t}b 2
1 MULTI | DISCARD | MULTI | INCR {t}a | EXEC
1 WATCH {t}b
2 SET {t}b 3
1 RESET | MULTI | INCR {t}a | EXEC
1 WATCH {t}b | WATCH {t}b
2 SET {t}b 2
1 WATCH {t}b | MULTI | EXEC | MULTI | EXEC
1 DEL {t}none | WATCH {t}none
2 DEL {t}none
1 MULTI | SET {t}none 1 | EXEC | DEL {t}none | WATCH {t}none
2 SET {t}none 1
1 MULTI | EXEC | WATCH {t}none
2 DEL {t}none
1 MULTI | EXEC
1 SET {t}e 1 | WATCH {t}e
2 EXPIRE {t}e 100
1 MULTI | EXEC | WATCH {t}e
2 PERSIST {t}none | GET {t}e | TTL {t}e | SET {t}e 9 NX | STRLEN {t}e
1 MULTI | GET {t}e | EXEC | WATCH {t}e
2 PEXPIRE {t}e 1
2 WAIT 0 0 | EXISTS {t}none
1 MULTI | NOSUCH | EXEC | MULTI | EXEC
1 SET {t}e 1 | WATCH {t}e
2 NOSUCH | GET {t}e
1 MULTI | GET | EXEC | MULTI | GET {t}e | EXEC
1 SET {t}e 1 | WATCH {t}e
2 FLUSHALL
1 MULTI | PING | EXEC
1 WATCH {t}none
2 FLUSHALL
1 MULTI | PING | EXEC
1 SET {t}q 1 PX 1 | WATCH {t}none | MULTI | WAIT 0 0 | DBSIZE | EXEC
1 SET {u}1 a | SET {v}1 b | MULTI | SET {u}1 x | SET {v}1 y | INCR {w}1 | GET {u}1 | EXEC | MGET {u}1 {v}1 {w}1
1 WATCH {u}1 {v}1
2 SET {v}1 z
1 MULTI | SET {u}1 no | EXEC | GET {u}1
1 WATCH {u}1 {v}1 | MULTI | SET {u}1 yes | EXEC | GET {u}1
1 HELLO 3 | MULTI | GET {t}none | MGET {t}none {t}none | EXEC | WATCH {t}a
2 SET {t}a 1
1 MULTI | EXEC | HELLO 2 | MULTI | GET {t}none | EXEC | MULTI | EXEC
1 SET {t}a hello EX 100 | COPY {t}a {t}b | TTL {t}b | GET {t}b | COPY {t}a {t}b | COPY {t}none {t}b | COPY {t}a {t}b REPLACE DB 0
1 COPY {t}a {t}a | COPY {t}a {t}a REPLACE | COPY {t}a {t}b FOO | COPY {t}a {t}b DB 99 | COPY {t}a {t}b DB x | COPY {t}a {t}b DB | COPY {t}a
1 COPY {t}a {u}b | TTL {u}b | COPY {t}a {u}b | COPY {t}none {u}b | COPY {u}b {v}b REPLACE | GET {v}b
1 RENAME {t}none {t}c | RENAME {t}none {t}none | RENAME {t}a {t}a | RENAMENX {t}a {t}a | RENAMENX {t}none {t}none | RENAME {t}a {t}c | EXISTS {t}a | TTL {t}c
1 RENAME {t}c {u}c | EXISTS {t}c | TTL {u}c | GET {u}c | RENAMENX {u}c {t}b | RENAMENX {u}c {v}d | EXISTS {u}c | RENAMENX {t}none {u}x | RENAME {t}none {u}x
1 RENAMENX {t}b {t}d | SET {t}b 1 | RENAMENX {t}b {t}d | RENAME {t}b {t}d | GET {t}d | RENAME x | RENAMENX x
1 SET {t}1 ohmytext | SET {t}2 mynewtext | LCS {t}1 {t}2 | LCS {t}1 {t}2 LEN | LCS {t}1 {t}2 IDX | LCS {t}1 {t}2 IDX MINMATCHLEN 4 | LCS {t}1 {t}2 IDX MINMATCHLEN 4 WITHMATCHLEN
1 LCS {t}1 {t}none | LCS {t}1 {t}none IDX | LCS {t}1 {t}none LEN | LCS {t}1 {t}2 LEN IDX | LCS {t}1 {t}2 FOO | LCS {t}1 {t}2 MINMATCHLEN | LCS {t}1 {t}2 MINMATCHLEN x | LCS x
1 SET {u}2 mynewtext | LCS {t}1 {u}2 | LCS {t}1 {u}2 IDX WITHMATCHLEN | LCS {t}1 {t}1 IDX | LCS {t}1 {t}2 IDX MINMATCHLEN -1
1 SET {t}x abc | SET {t}y abcdef | BITOP AND {t}r {t}x {t}y | GET {t}r | BITOP OR {t}r {t}x {t}y {t}none | GET {t}r | BITOP XOR {t}r {t}x {t}y | GET {t}r | BITOP NOT {t}r {t}x | GET {t}r
1 SET {t}r 1 EX 100 | BITOP AND {t}r {t}x | TTL {t}r | BITOP OR {t}r {t}none {t}no | EXISTS {t}r | BITOP NOT {t}r {t}none | BITOP NOT {t}r {t}x {t}y | BITOP FOO {t}r {t}x | BITOP AND {t}r
1 SET {u}y abcdef | BITOP AND {v}r {t}x {u}y | GET {v}r | BITOP XOR {v}r {t}x {u}y {t}none | GET {v}r | BITOP NOT {v}r {u}y | GET {v}r | BITOP OR {v}r {t}none {u}none | EXISTS {v}r
1 MULTI | SET {t}m 1 | RENAME {t}m {t}o | COPY {t}o {t}p | RENAMENX {t}o {t}p | RENAME {t}none {t}p | BITOP NOT {t}q {t}p | LCS {t}p {t}o IDX | GET {t}q | DEL {t}o {t}p {t}q | EXEC
1 MULTI | SET {t}m 1 | RENAME {t}m {u}o | COPY {u}o {t}p | BITOP OR {v}q {t}p {u}o | LCS {t}p {u}o LEN | GET {v}q | EXEC
1 WATCH {t}p
2 RENAME {t}p {t}z
1 MULTI | EXEC | WATCH {t}z
2 COPY {t}z {t}zz
1 MULTI | EXEC | WATCH {t}z
2 COPY {t}zz {t}z REPLACE
1 MULTI | EXEC | WATCH {t}zz
2 BITOP NOT {t}zz {t}z
1 MULTI | EXEC
1 HELLO 3 | LCS {t}1 {t}2 IDX | LCS {t}1 {t}2 | COPY {t}none {t}b | MULTI | LCS {t}1 {t}2 IDX WITHMATCHLEN | EXEC | HELLO 2
1 MULTI | QUIT | EXEC
"""

# Their replies name the server.
NOT_COMPARED = {"HELLO"}


class Peer:
    """A connection that returns replies as the bytes they are."""

    def __init__(self, port):
        self.port, self.socket = port, None
        self.connect()

    def connect(self):
        self.socket = socket.create_connection(("127.0.0.1", self.port), 10)
        self.buffer = b""

    def ask(self, request):
        """The reply to one command, as bytes; empty when the server hung up."""
        self.socket.sendall(request)
        return self.reply()

    def reply(self):
        line = self.line()
        if line[:1] in b"*%~>" and line[1:2] != b"-" and line:
            count = int(line[1:]) * (2 if line[:1] == b"%" else 1)
            return line + b"".join(self.reply() for _ in range(count))
        if line[:1] in b"$=" and line[1:2] != b"-" and line:
            return line + self.exactly(int(line[1:]) + 2)
        return line

    def line(self):
        while b"\r\n" not in self.buffer:
            if not self.more():
                return b""
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line + b"\r\n"

    def exactly(self, size):
        while len(self.buffer) < size and self.more():
            pass
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def more(self):
        data = self.socket.recv(1 << 16)
        self.buffer += data
        return data


class Pair:
    """The same connections to both servers."""

    def __init__(self, ports, count):
        self.peers = [[Peer(port) for port in ports] for _ in range(count)]
        self.compared = 0

    def ask(self, n, arguments, history):
        request = command(*arguments)
        theirs, ours = (peer.ask(request) for peer in self.peers[n])
        self.compared += 1
        if theirs != ours and arguments[0] not in NOT_COMPARED:
            shown = "\n".join(f"  {m + 1} {' '.join(map(str, a))}" for m, a in history)
            raise AssertionError(f"after\n{shown}\n  {n + 1} {' '.join(map(str, arguments))}\nredis-server: {theirs!r}\ntrellis:      {ours!r}")
        if arguments[0] == "QUIT":
            for peer in self.peers[n]:
                if peer.line():
                    raise AssertionError("QUIT did not end the connection")
                peer.connect()
        return theirs


def table(pair):
    history = []
    for row in EXCHANGES.strip().splitlines():
        number, _, commands = row.partition(" ")
        for line in commands.split(" | "):
            arguments = line.split()
            pair.ask(int(number) - 1, arguments, history[-30:])
            history.append((int(number) - 1, arguments))


def key(dice):
    return dice.choice(["{t}a", "{t}b", "{t}c", "{t}d", "{u}a", "{v}a"])


def value(dice):
    return dice.choice(["", "0", "5", "-3", "text", "x" * 40, b"\x00\xff", "9223372036854775807"])


def single(dice):
    """A random command on keys."""
    k = key(dice)
    return dice.choice([
        lambda: ["GET", k],
        lambda: ["SET", k, value(dice)],
        lambda: ["SET", k, value(dice), dice.choice(["NX", "XX", "GET", "KEEPTTL"])],
        lambda: ["INCR", k],
        lambda: ["INCRBY", k, dice.choice(["5", "x", "-7"])],
        lambda: ["APPEND", k, value(dice)],
        lambda: ["DEL", k, key(dice)],
        lambda: ["MGET", k, key(dice), key(dice)],
        lambda: ["MSET", k, value(dice), key(dice), value(dice)],
        lambda: ["EXISTS", k, key(dice)],
        lambda: ["STRLEN", k],
        lambda: ["EXPIRE", k, "1000"],
        lambda: ["PERSIST", k],
        lambda: ["GETDEL", k],
        lambda: ["PING"],
        lambda: ["ECHO", value(dice)],
        lambda: ["DBSIZE"],
        lambda: ["NOSUCH", k],
        lambda: ["GET"],
        lambda: ["COPY", k, key(dice), *dice.choice([[], ["REPLACE"], ["REPLACE", "DB", "0"]])],
        lambda: ["RENAME", k, key(dice)],
        lambda: ["RENAMENX", k, key(dice)],
        lambda: ["BITOP", dice.choice(["AND", "OR", "XOR"]), k, key(dice), key(dice)],
        lambda: ["BITOP", "NOT", k, key(dice)],
        lambda: ["LCS", k, key(dice), *dice.choice([[], ["LEN"], ["IDX"], ["IDX", "MINMATCHLEN", "2", "WITHMATCHLEN"]])],
        lambda: ["APPEND", k, "".join(dice.choices("abc", k=dice.randrange(40)))],
        lambda: ["SETRANGE", k, dice.choice(["3", "-1", "x"]), value(dice)],
    ])()


def random_sequence(pair, dice, length):
    history = []
    for _ in range(length):
        n = dice.randrange(len(pair.peers))
        arguments = dice.choices(
            [["MULTI"], ["EXEC"], ["DISCARD"], ["WATCH", key(dice)], ["WATCH", key(dice), key(dice)], ["UNWATCH"], single(dice)],
            [4, 5, 1, 2, 1, 1, 16],
        )[0]
        pair.ask(n, arguments, history[-40:])
        history.append((n, arguments))
    for n in range(len(pair.peers)):
        pair.ask(n, ["RESET"], history)
    pair.ask(0, ["FLUSHALL"], history)


def redis_server():
    if not shutil.which("redis-server"):
        raise SystemExit("redis-server is not installed")
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="redis-"))
    arguments = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    process = Process(arguments, folder / "log", stdout=subprocess.DEVNULL)

    def answers():
        try:
            return Peer(port).ask(b"PING\r\n") == b"+PONG\r\n"
        except OSError:
            return False

    eventually(answers, "redis-server answers")
    return process, port


def main():
    sequences = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    redis, redis_port = redis_server()
    try:
        compared = 0
        for size in (1, 3):
            with cluster(size) as nodes:
                # Through one node: at level one another may read what is on its way.
                pair = Pair((redis_port, nodes[0].port), 3)
                table(pair)
                dice = random.Random(SEED + size)
                for _ in range(sequences):
                    random_sequence(pair, dice, 60)
                compared += pair.compared
    finally:
        redis.kill()
    print(f"{2 * sequences} random sequences and {2 * len(EXCHANGES.strip().splitlines())} rows of exchanges: {compared} replies compared, none differs")


main()
