"""Keys over HTTP: three nodes asked through http.client and by hand, the same keys through Redis and memcached clients, and schemathesis' judgement
of `/openapi.json` against what is answered.

`check_http.py [EXAMPLES]`: so many examples of schemathesis for each operation.
"""

import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

import redis
from pymemcache.client.base import Client

from cluster import cluster, eventually

EXAMPLES = "15"
# What a client has to send a body, and a little.
SLOW_BODY_SECONDS = (29, 33)

checks = 0


def same(got, expected, what):
    global checks
    checks += 1
    if got != expected:
        raise AssertionError(f"{what}: {got!r:.300}, expected {expected!r:.300}")


class Http:
    """One connection that is kept."""

    def __init__(self, node):
        self.host, _, port = node.admin.rpartition(":")
        self.connection = http.client.HTTPConnection(self.host, int(port), timeout=15)

    def ask(self, method, path, body=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read(), answer.headers

    def status(self, method, path, body=None, **headers):
        return self.ask(method, path, body, **headers)[0]


def path_of(key):
    return "/v1/kv/" + quote(key, safe="")


def cases(nodes):
    """Statuses and headers, each request through the next node."""
    doors = [Http(node) for node in nodes]
    turn = [0]

    def ask(*arguments, **headers):
        turn[0] += 1
        return doors[turn[0] % len(doors)].ask(*arguments, **headers)

    status, _, headers = ask("PUT", "/v1/kv/a?ttl=60s&consistency=quorum", b"one")
    same(status, 201, "a new key")
    first = headers["ETag"]
    status, value, headers = ask("GET", "/v1/kv/a")
    same((status, value, headers["ETag"], headers["Content-Type"]), (200, b"one", first, "application/octet-stream"), "its value")
    same(0 < int(headers["Trellis-TTL-Ms"]) <= 60_000, True, "its time")
    status, value, headers = ask("HEAD", "/v1/kv/a")
    same((status, value, headers["Content-Length"], headers["ETag"]), (200, b"", "3", first), "its head")
    same(ask("GET", "/v1/kv/a", If_None_Match=first)[0], 304, "a value that is known")
    status, _, headers = ask("PUT", "/v1/kv/a", b"two", If_Match=first)
    same(status, 204, "a change of what was seen")
    same(ask("PUT", "/v1/kv/a", b"three", If_Match=first)[0], 412, "a change of what has changed")
    same(ask("PUT", "/v1/kv/a", b"three", If_Match=f'{first}, {headers["ETag"]}')[0], 204, "a change of either")
    same(ask("PUT", "/v1/kv/a", b"x", If_None_Match="*")[0], 412, "a new key that is not new")
    same(ask("GET", "/v1/kv/a")[2]["Trellis-TTL-Ms"], None, "no deadline any more")
    same(ask("DELETE", "/v1/kv/a", If_Match=first)[0], 412, "a deletion of what has changed")
    same([ask("DELETE", "/v1/kv/a")[0] for _ in range(2)], [204, 404], "a deletion, and another")
    status, body, _ = ask("GET", "/v1/kv/a")
    same((status, json.loads(body)["error"]["applied"]), (404, "no"), "no such key")
    for method, path, expected in (("PUT", "/v1/kv/a?ttl=5", 400), ("GET", "/v1/kv/a?x=1", 400), ("GET", "/v1/kv/", 400), ("GET", "/v1/kv/%zz", 400), ("POST", "/v1/kv/a", 405), ("GET", "/v1/kv?limit=0", 400)):
        same(ask(method, path)[0], expected, f"{method} {path}")


def any_bytes(nodes):
    """Keys and values of any bytes, through every door."""
    web = [Http(node) for node in nodes]
    resp = [redis.Redis(node.host, node.port) for node in nodes]
    keys = [bytes([byte]) + b"/k" for byte in range(256)] + ["schlüssel/鍵".encode(), b"a b+c%2F?d#e&f=g;h", b"..", b"."]
    for n, key in enumerate(keys):
        value = bytes(range(256)) * (n % 3) + key
        # http.client leaves `..` alone.
        same(web[n % 3].status("PUT", path_of(key) + "?consistency=all", value), 201, f"{key}")
        same(resp[(n + 1) % 3].get(key), value, f"{key} by RESP")
        same(web[(n + 2) % 3].ask("GET", path_of(key))[1], value, f"{key} by HTTP")
    listed, cursor = [], ""
    while cursor is not None:
        page = json.loads(web[0].ask("GET", f"/v1/kv?limit=50&cursor={cursor}")[1])
        same(len(page["keys"]) <= 50, True, "the limit of a page")
        listed, cursor = listed + page["keys"], page["cursor"]
    same(sorted(entry["path"] for entry in listed), sorted(map(path_of, keys)), "every key is listed once")
    same([entry["key"] for entry in listed if entry["key"] and entry["path"] != path_of(entry["key"].encode())], [], "text and path are of one key")
    for entry in listed:
        same(web[1].status("DELETE", entry["path"]), 204, "a listed path")
    large = bytes(range(256)) * 40_000
    same(web[0].status("PUT", "/v1/kv/large?consistency=all", large), 201, "10 MB")
    same(web[1].ask("GET", "/v1/kv/large")[1] == large, True, "the same 10 MB")
    same(resp[2].get("large") == large, True, "and by RESP")
    memcached = Client(("127.0.0.1", nodes[0].memcached), timeout=5, default_noreply=False)
    memcached.set("door", b"memcached", expire=100)
    status, value, headers = web[1].ask("GET", "/v1/kv/door")
    same((status, value, 90_000 < int(headers["Trellis-TTL-Ms"]) <= 100_000), (200, b"memcached", True), "what memcached set")
    resp[2].append("door", "+resp")
    same(web[1].status("PUT", "/v1/kv/door", b"x", If_Match=headers["ETag"]), 412, "a change of what a Redis client has changed")
    web[0].ask("PUT", "/v1/kv/door?ttl=100s&consistency=all", b"5")
    same((memcached.incr("door", 2), resp[0].incr("door"), 90 < resp[1].ttl("door") <= 100), (7, 8, True), "counting on, with the deadline")


def races(nodes):
    """Clients that increment by reading and storing under the ETag lose nothing."""
    first = Http(nodes[0])
    same(first.status("PUT", "/v1/kv/count?consistency=quorum", b"0"), 201, "a counter")
    each, failures, unknown = 20, [], []

    def count(node):
        http_client = Http(node)
        try:
            for _ in range(each):
                while True:
                    status, value, headers = http_client.ask("GET", "/v1/kv/count?consistency=quorum")
                    if status in (503, 504):
                        continue
                    status, body, _ = http_client.ask("PUT", "/v1/kv/count?consistency=quorum", b"%d" % (int(value) + 1), If_Match=headers["ETag"])
                    if status == 204:
                        break
                    # On a machine that is short of time a node may come too late, and says whether it may have done it.
                    if status in (503, 504) and json.loads(body)["error"]["applied"] == "unknown":
                        unknown.append(body)
                        break
                    if status not in (412, 503, 504):
                        raise AssertionError(f"status {status}: {body}")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=count, args=(nodes[n % 3],)) for n in range(6)]
    won = []
    makers = [threading.Thread(target=lambda node=node: won.append(Http(node).status("PUT", "/v1/kv/lock?consistency=quorum", b"mine", If_None_Match="*"))) for node in nodes * 2]
    for thread in threads + makers:
        thread.start()
    for thread in threads + makers:
        thread.join()
    same(failures, [], "counting clients")
    counted = int(first.ask("GET", "/v1/kv/count?consistency=quorum")[1])
    same(6 * each - len(unknown) <= counted <= 6 * each, True, f"no update is lost, and none counts twice: {counted} of {6 * each}, {len(unknown)} unknown")
    same((won.count(201) <= 1, [status for status in won if status not in (201, 412, 503, 504)]), (True, []), "a key is made by one at the most")


def by_hand(node, text, seconds_max=10):
    """Sends bytes and returns all that comes until the node hangs up, or nothing more does."""
    host, _, port = node.admin.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=seconds_max) as client:
        client.sendall(text)
        client.settimeout(seconds_max)
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
        return answer


def hostile(node):
    """What two readers of a request could take for two different ones is refused, and the connection with it."""
    smuggled = b"GET /v1/kv/smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    for headers in (
        b"Content-Length: 4\r\nContent-Length: 5\r\n",
        b"Content-Length: 4\r\nContent-Length: 4\r\n",
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Content-Length: +4\r\n",
        b"Content-Length: 4, 4\r\n",
        b"Content-Length : 4\r\n",
    ):
        answer = by_hand(node, b"PUT /v1/kv/hostile HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n0\r\n\r\n" + smuggled)
        same((answer[:12], answer.count(b"HTTP/1.1 ")), (b"HTTP/1.1 400", 1), f"{headers}")
    same(Http(node).status("GET", "/v1/kv/hostile"), 404, "nothing was stored")
    announced = by_hand(node, b"PUT /v1/kv/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nxxx")
    same(announced[:12], b"HTTP/1.1 413", "a value too large is refused when it is announced")
    chunked = b"PUT /v1/kv/chunked HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    same(by_hand(node, chunked)[:12], b"HTTP/1.1 201", "a value in chunks")
    same(Http(node).ask("GET", "/v1/kv/chunked")[1], b"abcde", "put together")
    same(by_hand(node, b"GET /v1/kv/" + b"k" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")[:10], b"HTTP/1.1 4", "a path that is too long")


class SlowBody(threading.Thread):
    """A client that never sends the rest of a value; runs beside the other checks."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node, self.answer, self.seconds = node, b"", 0

    def run(self):
        began = time.monotonic()
        self.answer = by_hand(self.node, b"PUT /v1/kv/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx", 60)
        self.seconds = time.monotonic() - began


def a_node_down(nodes):
    """A majority goes on, and what needs all says that nothing was done."""
    web = Http(nodes[0])
    for n in range(30):
        web.status("PUT", f"/v1/kv/before{n}?consistency=quorum", b"%d" % n)
    nodes[2].kill()
    down = [node for node in nodes[:2]]
    eventually(lambda: all(nodes[2].address not in [a for a, s in node.states().items() if s == "alive"] for node in down), "the others notice", 15)
    for n in range(30):
        same(web.ask("GET", f"/v1/kv/before{n}?consistency=quorum")[1], b"%d" % n, "a value")
        same(web.status("PUT", f"/v1/kv/before{n}?consistency=quorum", b"x"), 204, "a change")
    status, body, _ = web.ask("PUT", "/v1/kv/before1?consistency=all", b"y")
    same((status, json.loads(body)["error"]["code"], json.loads(body)["error"]["applied"]), (503, "no_quorum", "no"), "all, with one down")
    status, body, _ = web.ask("PUT", "/v1/kv/before1?consistency=all", b"y", If_Match="*")
    same((status, json.loads(body)["error"]["applied"]), (503, "no"), "the same on a condition")
    same(web.ask("GET", "/v1/kv/before1?consistency=quorum")[1], b"x", "nothing was done")
    same(len(json.loads(web.ask("GET", "/v1/kv?prefix=before")[1])["keys"]), 30, "every key is listed")


def judged_by_schemathesis(node, examples):
    tool = Path(sys.executable).with_name("schemathesis")
    tool = str(tool) if tool.exists() else shutil.which("schemathesis")
    same(bool(tool), True, "schemathesis is installed")
    with tempfile.TemporaryDirectory(prefix="trellis-") as folder:
        # A condition that does not hold is no mistake of the request. That one of two parameters must be there OpenAPI can't say.
        Path(folder, "schemathesis.toml").write_text('[checks.positive_data_acceptance]\nexpected-statuses = ["2xx", "3xx", 404, 409, 412, "5xx"]\n'
            '[[operations]]\ninclude-path = "/v1/members/{id}/share"\n[operations.checks.positive_data_acceptance]\nexpected-statuses = ["2xx", 400, 404, 409, "5xx"]\n')
        judged = subprocess.run(
            [tool, "run", f"http://{node.admin}/openapi.json", "--url", f"http://{node.admin}", "--phases", "examples,coverage,fuzzing", "--max-examples", examples, "--seed", "1", "--no-color", "--checks", "all"],
            capture_output=True, text=True, timeout=600, cwd=folder,
        )
    if judged.returncode != 0:
        print(judged.stdout[-6_000:], judged.stderr[-2_000:], file=sys.stderr)
    same(judged.returncode, 0, "schemathesis")
    print("\n".join(line for line in judged.stdout.splitlines() if "generated" in line or "Operations" in line or "Tested" in line))


def main():
    examples = sys.argv[1] if len(sys.argv) > 1 else EXAMPLES
    with cluster(1) as (alone,):
        slow = SlowBody(alone)
        slow.start()
        hostile(alone)
        judged_by_schemathesis(alone, examples)
        with cluster(3, "--memcached-port", "0") as nodes:
            any_bytes(nodes)
            cases(nodes)
            races(nodes)
            a_node_down(nodes)
        slow.join(SLOW_BODY_SECONDS[1])
        same(slow.answer[:12], b"HTTP/1.1 408", "a value that never arrives")
        same(SLOW_BODY_SECONDS[0] < slow.seconds < SLOW_BODY_SECONDS[1], True, f"after {slow.seconds:.1f} s")
    print(f"check_http: {checks} checks passed")


if __name__ == "__main__":
    main()
