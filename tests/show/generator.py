"""A load generator with a schedule: batches of commands over many connections from several processes, either at a fixed rate whatever
the server does (open loop: a batch's time counts from when it was due, not from when the socket took it), or as fast as the server
answers (closed loop). Replies are counted by the C of `bytes.count`, so that Python keeps up with a fast server."""

import bisect
import collections
import itertools
import multiprocessing
import os
import random
import select
import socket
import time

from resp import command

VALUE = b"v" * 64
HIT = b"$%d\r\n" % len(VALUE)


def batches(keys, size, number):
    """`number` different batches of `size` commands, half reads, half writes."""
    dice = random.Random(os.getpid())
    made = []
    for _ in range(number):
        parts = []
        for i in range(size):
            key = b"key:%012d" % dice.randrange(keys)
            parts.append(command("SET", key, VALUE) if i % 2 else command("GET", key))
        made.append(b"".join(parts))
    return made


class Lane:
    """One connection: what was sent and not yet answered."""

    def __init__(self, address, size):
        self.socket = socket.create_connection(address, 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.size = size
        # Due times of batches on their way, oldest first; what the socket has not taken; the replies of the oldest batch so far.
        self.due, self.unsent, self.served, self.refused = collections.deque(), collections.deque(), 0, 0
        self.rest = b""

    def push(self, batch, due):
        self.due.append(due)
        self.unsent.append(batch)

    def flush(self):
        """Sends what the socket takes; true when all went."""
        while self.unsent:
            try:
                sent = self.socket.sendmsg(list(itertools.islice(self.unsent, 64)))
            except BlockingIOError:
                return False
            while self.unsent and sent >= len(self.unsent[0]):
                sent -= len(self.unsent.popleft())
            if sent:
                self.unsent[0] = memoryview(self.unsent[0])[sent:]
                return False
        return True

    def take(self):
        """Reads replies; yields (due, served, refused) for each batch they complete. Raises ConnectionError when hung up."""
        try:
            data = self.socket.recv(1 << 17)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionError("hung up")
        data = self.rest + data
        whole = data.rfind(b"\r\n") + 2 if b"\r\n" in data else 0
        # A head of a value stays with its body, so that both are counted in one piece.
        if data.endswith(HIT, 0, whole):
            whole -= len(HIT)
        self.rest, data = data[whole:], data[:whole]
        lines = data.count(b"\r\n") - data.count(HIT)
        refused = data.count(b"-BUSY")
        other = data.count(b"-") - refused - data.count(b"$-1")
        if other:
            raise AssertionError(f"unexpected reply in {data[data.find(b'-'):][:100]!r}")
        self.served += lines - refused
        self.refused += refused
        while self.served + self.refused >= self.size:
            # With several batches in one read the split between them is by proportion; the totals are exact.
            refused = min(self.size, self.refused)
            served = self.size - refused
            self.served, self.refused = self.served - served, self.refused - refused
            yield self.due.popleft(), served, refused


def run(addresses, shape, rate, seconds, grace, seed, pipe):
    """One process. `rate` 0 is the closed loop. Sends back (offered, served, refused, late, {latency in us, rounded: served},
    hung up, served before the end)."""
    size, connections, keys = shape
    made = batches(keys, size, 64)
    lanes = [Lane(addresses[(i + seed) % len(addresses)], size) for i in range(connections)]
    poll, by_fd = select.epoll(), {lane.socket.fileno(): lane for lane in lanes}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    pipe.send("ready")
    start = pipe.recv()
    time.sleep(max(0, start - time.monotonic()))
    end, offered, served, refused, in_time, latencies, lateness = start + seconds, 0, 0, 0, 0, collections.Counter(), []
    interval = size / rate if rate else 0

    def send(lane, due):
        nonlocal offered
        lane.push(made[(offered // size) % len(made)], due)
        offered += size
        if len(lane.unsent) == 1 and not lane.flush():
            poll.modify(lane.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)

    if not rate:
        for lane in lanes:
            send(lane, time.monotonic())
    due, turn, open_lanes = start, 0, len(lanes)
    while open_lanes and ((now := time.monotonic()) < end or (now < end + grace and any(lane.due for lane in lanes))):
        # Late work is bounded a turn, so that replies are read meanwhile.
        for _ in range(256):
            if not rate or due > now or due > end:
                break
            send(lanes[turn % len(lanes)], due)
            if turn % 64 == 0:
                lateness.append(time.monotonic() - due)
            turn, due = turn + 1, due + interval
        for fd, events in poll.poll(max(0, min(due - time.monotonic(), 0.05)) if rate and due <= end else 0.05, 512):
            lane = by_fd[fd]
            if events & select.EPOLLOUT and lane.flush():
                poll.modify(fd, select.EPOLLIN)
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                try:
                    for was_due, good, bad in lane.take():
                        at = time.monotonic()
                        served, refused = served + good, refused + bad
                        in_time += good if at < end else 0
                        if good:
                            # Three digits are enough.
                            latencies[float(f"{(at - was_due) * 1e6:.3g}")] += good
                        if not rate and at < end:
                            send(lane, at)
                except (ConnectionError, OSError):
                    poll.unregister(fd)
                    open_lanes -= 1
    pipe.send((offered, served, refused, sorted(lateness), dict(latencies), len(lanes) - open_lanes, in_time))


class Result:
    """All processes together."""

    def __init__(self, parts, seconds):
        self.seconds = seconds
        self.offered, self.served, self.refused = (sum(part[i] for part in parts) for i in range(3))
        self.lateness = sorted(late for part in parts for late in part[3])
        latencies = sum((collections.Counter(part[4]) for part in parts), collections.Counter())
        self.values = sorted(latencies)
        self.cumulated, total = [], 0
        for value in self.values:
            total += latencies[value]
            self.cumulated.append(total)
        self.hung_up = sum(part[5] for part in parts)
        self.per_second = sum(part[6] for part in parts) / seconds
        self.unanswered = self.offered - self.served - self.refused

    def latency_ms(self, share):
        if not self.values:
            return float("nan")
        return self.values[min(len(self.values) - 1, bisect.bisect_left(self.cumulated, self.cumulated[-1] * share))] / 1000


def generate(addresses, shape, rate, seconds, processes=2, grace=10, meanwhile=None):
    """Runs the load; `meanwhile(seconds)` runs beside it in this process. `shape` is (commands a batch, connections, keys);
    rate (commands a second, 0 = as fast as answered) and connections are those of all processes together."""
    size, connections, keys = shape
    pipes, started = [], []
    for i in range(processes):
        ours, theirs = multiprocessing.Pipe()
        each = (size, max(1, connections // processes), keys)
        started.append(multiprocessing.Process(target=run, args=(addresses, each, rate / processes, seconds, grace, i, theirs), daemon=True))
        started[-1].start()
        # Its end is the child's alone: when the child dies, reading here ends too.
        theirs.close()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()
    start = time.monotonic() + 0.1
    for pipe in pipes:
        pipe.send(start)
    if meanwhile:
        meanwhile(seconds)
    parts = [pipe.recv() for pipe in pipes]
    for process in started:
        process.join(5)
    return Result(parts, seconds)
