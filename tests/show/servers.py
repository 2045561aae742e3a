"""The servers that Trellis is compared with, started as their users start them, with nothing written to disk."""

import tempfile
import time
from pathlib import Path

from cluster import Process, free_port
from resp import Connection


def answering(process, port, ask):
    deadline = time.monotonic() + 10
    while True:
        try:
            connection = Connection("127.0.0.1", port, 1)
            ask(connection)
            connection.close()
            return process
        except OSError:
            if time.monotonic() > deadline or not process.alive():
                raise RuntimeError(f"{process.arguments[0]} does not answer\n{process.log_tail()}") from None
            time.sleep(0.05)


def started(arguments, port, ask):
    folder = Path(tempfile.mkdtemp(prefix="trellis-"))
    process = Process(arguments, folder / "log", cwd=folder, stdout=(folder / "out").open("wb"))
    process.host, process.port, process.address = "127.0.0.1", port, f"127.0.0.1:{port}"
    return answering(process, port, ask)


def redis_server(binary="redis-server"):
    port = free_port()
    arguments = [binary, "--port", str(port), "--save", "", "--appendonly", "no"]
    return started(arguments, port, lambda connection: connection.ask("PING"))


def memcached(binary="memcached", threads=4):
    """With as many threads as it has by itself, or others."""
    port = free_port()
    arguments = [binary, "-p", str(port), "-l", "127.0.0.1", "-m", "2048", "-U", "0", "-u", "nobody", "-t", str(threads)]

    def version(connection):
        connection.send(b"version\r\n")
        connection.file.readline()

    return started(arguments, port, version)
