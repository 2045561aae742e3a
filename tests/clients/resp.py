"""RESP by hand: bytes out, bytes in, as fast as Python goes and with nothing between the check and the socket."""

import socket


def command(*arguments):
    """One request."""
    parts = [a if isinstance(a, bytes) else str(a).encode() for a in arguments]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


class Refusal(Exception):
    """An error reply."""


class Connection:
    """One blocking connection. Errors of the socket are the caller's to handle."""

    def __init__(self, host, port, seconds_max=10):
        self.socket = socket.create_connection((host, port), seconds_max)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", 1 << 18)

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def ask(self, *arguments):
        """One command and its reply; raises Refusal for an error."""
        self.send(command(*arguments))
        reply = self.read()
        if isinstance(reply, Refusal):
            raise reply
        return reply

    def read(self):
        """One reply of RESP2; an error is returned, not raised."""
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server hung up")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return Refusal(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.exactly(int(rest))
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        raise ConnectionError(f"not a reply: {line!r}")

    def exactly(self, size):
        data = self.file.read(size + 2)
        if len(data) != size + 2:
            raise ConnectionError("the server hung up")
        return data[:-2]

    def pipelined(self, commands, window=1000):
        """Replies to many requests, `window` of them in flight at once."""
        replies = []
        for start in range(0, len(commands), window):
            part = commands[start : start + window]
            self.send(b"".join(part))
            replies.extend(self.read() for _ in part)
        return replies


def load(host, port, pairs, window=1000):
    """SETs every pair; raises at the first reply that is not OK."""
    connection = Connection(host, port, 60)
    for reply in connection.pipelined([command("SET", key, value) for key, value in pairs], window):
        if reply != "OK":
            raise AssertionError(f"SET answered {reply!r}")
    connection.close()


def read_back(host, port, pairs, window=1000):
    """GETs every key; returns (missing, wrong)."""
    connection = Connection(host, port, 60)
    replies = connection.pipelined([command("GET", key) for key, _ in pairs], window)
    connection.close()
    missing = sum(reply is None for reply in replies)
    return missing, sum(reply not in (None, value) for reply, (_, value) in zip(replies, pairs))
