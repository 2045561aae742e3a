#!/usr/bin/env python3
"""Three nodes, the second and third with one argument each: any key through any node, by redis-cli, trellis-cli and nc."""

import json
import subprocess
import tempfile
import time
from pathlib import Path

import stage
from cluster import Node, cli_bin, cluster, eventually
from resp import load, read_back
from stage import say


def run(*arguments, stdin=None):
    """Exit code and standard output of a command, which is shown as a person would see it."""
    print("$", " ".join(Path(arguments[0]).name if i == 0 else a for i, a in enumerate(arguments)))
    try:
        done = subprocess.run(arguments, input=stdin, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(error)
        return None, ""
    print((done.stdout + done.stderr).rstrip())
    return done.returncode, done.stdout


def expect(what, got, wanted):
    say(what, repr(got), repr(wanted), got == wanted)


def by_redis_cli(nodes):
    ports = [str(node.port) for node in nodes]
    expect("set through the second", run("redis-cli", "-p", ports[1], "set", "mykey", "hello"), (0, "OK\n"))
    for i in (0, 2):
        expect(f"get through node {i}", run("redis-cli", "-p", ports[i], "get", "mykey"), (0, "hello\n"))


def every_key(nodes, keys):
    """`keys` keys through each node, all of them back through each."""
    sets = [[(b"n%d:key:%d" % (i, k), b"value %d of %d" % (k, i)) for k in range(keys)] for i in range(len(nodes))]
    start = time.monotonic()
    for node, pairs in zip(nodes, sets):
        load(node.host, node.port, pairs)
    say(f"{keys:,} keys written through each node", f"{time.monotonic() - start:.2f} s")
    pairs = [pair for part in sets for pair in part]
    for i, node in enumerate(nodes):
        missing, wrong = read_back(node.host, node.port, pairs)
        say(f"{len(pairs):,} keys read through node {i}", f"{missing} missing, {wrong} wrong", "0, 0", (missing, wrong) == (0, 0))


def by_trellis_cli(nodes):
    cli, address = cli_bin(), nodes[1].address.replace("127.0.0.1", "localhost")
    code, out = run(cli, address, "get", "mykey")
    expect("trellis-cli get", (code, out.rstrip("\n")), (0, "hello"))
    expect("trellis-cli get of nothing exits 1", run(cli, address, "get", "nothing-there"), (1, ""))
    expect("trellis-cli put", run(cli, address, "put", "other", "-", stdin="from a pipe"), (0, "OK\n"))
    expect("trellis-cli delete", run(cli, address, "delete", "other"), (0, "deleted\n"))
    code, out = run(cli, address, "status")
    shown = [node.address for node in nodes if node.address in out]
    expect("trellis-cli status shows every member", (code, len(shown)), (0, len(nodes)))
    code, out = run(cli, address, "ring", "mykey")
    shown = [node.address for node in nodes if node.address in out]
    expect("trellis-cli ring mykey shows three replicas", (code, len(shown)), (0, 3))
    code, out = run(cli, address, "ring", "mykey", "--json")
    expect("the same as JSON", (code, code == 0 and isinstance(json.loads(out), (dict, list))), (0, True))
    expect("nobody there: exit 3", run(cli, "localhost:1", "health")[0], 3)


def by_socket(nodes):
    """A fourth node listens on a Unix socket as well."""
    path = str(Path(tempfile.mkdtemp(prefix="trellis-")) / "socket")
    node = Node([nodes[0].address], ["--unix", path])
    try:
        eventually(lambda: len(node.status()["members"]) == len(nodes) + 1 and node.ready(), "the fourth has joined", 30)
        got = run("nc", "-U", "-N", path, stdin="SET foo bar\r\nGET foo\r\nGET mykey\r\n")
        expect("inline commands over the Unix socket", got, (0, "+OK\r\n$3\r\nbar\r\n$5\r\nhello\r\n".replace("\r\n", "\n")))
        expect("and read elsewhere", run("redis-cli", "-p", str(nodes[2].port), "get", "foo"), (0, "bar\n"))
        expect("stopped in order", node.stop(), 0)
    finally:
        node.kill()


def main():
    parser = stage.arguments(__doc__)
    parser.add_argument("--keys", type=int, default=10_000, help="keys through each node")
    options = stage.parsed(parser)
    with cluster(3, ports=True) as nodes:
        for node in nodes:
            print("$ trellis", *node.arguments[1:], " -> ", f"trellis ready main={node.address} admin={node.admin}")
        stage.part(by_redis_cli, nodes)
        stage.part(by_trellis_cli, nodes)
        stage.part(every_key, nodes, options.keys)
        stage.part(by_socket, nodes)
    stage.finish()


main()
