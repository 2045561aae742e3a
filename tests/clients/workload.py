"""A realistic workload by every client family against three nodes, while a fourth joins and one is killed (kill -9).

    workload.py --client NAME|all [--keys N] [--short]

Its parts and what is asserted of them are in `workload_parts.py`, what each client may see meanwhile in the `passing` of its store. All is done at level
quorum, but for the odd values of redis-py's clients: those are at level one, as cached pages would be.

With `all` one client after the other has a cluster of its own; with `--short` all share one, with little to import. Prints a table: what was asserted, what
failed, requests repeated, and the longest that a request waited for a good reply. Exits 1 when anything failed or a client is not there.
"""

import argparse
import asyncio
import multiprocessing
import threading
import time

import redis

import workload_ioredis
import workload_memcached
import workload_redis
from cluster import Node, cluster, eventually, met
from workload_parts import PARTS_OF, Control, Shared, Worker

CLIENTS = {**workload_redis.CLIENTS, **workload_ioredis.CLIENTS, **workload_memcached.CLIENTS}
OPTIONS = ["--consistency", "quorum", "--memcached-port", "0", "--memcached-max-item-size", "2mb"]
HALF_SECONDS_MAX, SETTLE_SECONDS_MAX, REPORT_SECONDS_MAX = 240, 60, 240


class Client:
    """One client family in a process of its own, with a thread or a task for each of its workers."""

    def __init__(self, name, nodes, control, options, context):
        self.name, self.control, self.options = name, control, options
        kind = CLIENTS[name]
        self.nodes = [(node.host, node.memcached if name in workload_memcached.CLIENTS else node.port) for node in nodes]
        self.kind = kind
        self.receive, self.send = context.Pipe(False)
        self.process = context.Process(target=self.run, daemon=False)
        self.process.start()

    def worker(self, shared, part, number):
        level = "one" if part == "odd" else "quorum"
        return Worker(shared, part, number, self.kind(self.nodes, number, level))

    def run(self):
        shared = Shared(self.name, self.control, self.options)
        everybody = [(part, number) for part, count in PARTS_OF[self.name].items() for number in range(count)]
        if self.kind.threads:
            self.in_threads(shared, everybody)
            self.in_threads(shared, [("counters", 0)])
        else:
            asyncio.run(self.in_tasks(shared, everybody, [("counters", 0)]))
        tally = shared.tally
        self.send.send((tally.asserted, tally.failed, tally.repeated, tally.doubts, tally.faults, tally.slowest))

    def in_threads(self, shared, workers):
        threads = [threading.Thread(target=self.guarded, args=(shared, *worker)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def guarded(self, shared, part, number):
        try:
            asyncio.run(self.worker(shared, part, number).run())
        except Exception as error:  # a fault of this check is a failure too
            shared.tally.fault(part, f"{part}:{number}: {type(error).__name__}: {error}")

    async def in_tasks(self, shared, *turns):
        for workers in turns:
            running = [self.worker(shared, *worker).run() for worker in workers]
            for (part, number), ended in zip(workers, await asyncio.gather(*running, return_exceptions=True)):
                if ended:
                    shared.tally.fault(part, f"{part}:{number}: {type(ended).__name__}: {ended}")

    def report(self):
        if not self.receive.poll(REPORT_SECONDS_MAX):
            self.process.kill()
            raise AssertionError(f"{self.name} did not come to an end")
        report = self.receive.recv()
        self.process.join()
        return report


def leaders(node):
    """How many members coordinate keys, as this one tells: ownership settles a moment after the nodes are ready."""
    with redis.Redis(node.host, node.port) as client:
        client.set_response_callback("CLUSTER SLOTS", lambda reply, **_: reply)
        return len({members[0][1] for _, _, *members in client.execute_command("CLUSTER SLOTS")})


def around(names, options):
    """One cluster, one kill, one join; the reports of the clients by name."""
    context = multiprocessing.get_context("fork")
    with cluster(3, *OPTIONS) as nodes:
        eventually(lambda: all(leaders(node) == 3 for node in nodes), "all three coordinate keys", 30)
        control = Control(context, options.short)
        clients = [Client(name, nodes, control, options, context) for name in names]
        fourth = None
        try:
            start = time.monotonic()
            for name in names:
                for _ in range(PARTS_OF[name]["bulk"]):
                    if not control.half.acquire(timeout=max(0, start + HALF_SECONDS_MAX - time.monotonic())):
                        # Who imports has failed, and its report says how.
                        print("the import did not get to its half")
                        control.settled.set()
                        return {client.name: client.report() for client in clients}
            half = time.monotonic() - start
            # It is a member and has yet to get its share when the other dies.
            control.unrest_at.value = time.monotonic()
            fourth = Node([nodes[0].address], OPTIONS)
            eventually(lambda: nodes[0].states().get(fourth.address) == "alive", "the fourth node is a member", 20)
            control.killed_at.value = time.monotonic()
            nodes[2].kill()
            left = [nodes[0], nodes[1], fourth]
            took = eventually(lambda: all(met(node, left) for node in left), "the fourth node holds its share", SETTLE_SECONDS_MAX)
            time.sleep(options.after)
            control.settled.set()
            reports = {client.name: client.report() for client in clients}
            print(f"half of the import took {half:.1f} s, the fourth node held its share {took:.1f} s after the kill; {time.monotonic() - start:.1f} s in all")
            return reports
        finally:
            for client in clients:
                client.process.kill()
            if fourth:
                fourth.kill()


def table(reports):
    parts = ["sessions", "limiter", "counters", "cache", "guarded", "bulk", "odd"]
    print(f"\n{'client':<16}" + "".join(f"{part:>10}" for part in parts) + f"{'assertions':>12}{'failures':>10}{'repeated':>10}{'longest':>10}")
    for name, (asserted, failed, repeated, _, _, slowest) in reports.items():
        line = "".join(f"{asserted[part] or '-':>10}" for part in parts)
        print(f"{name:<16}{line}{sum(asserted.values()):>12}{sum(failed.values()):>10}{sum(repeated.values()):>10}{slowest:>8.2f} s")
    total, failures = (sum(sum(report[n].values()) for report in reports.values()) for n in (0, 1))
    print(f"{'all':<16}{'':>70}{total:>12}{failures:>10}")
    for name, (_, _, repeated, doubts, faults, _) in reports.items():
        if repeated:
            print(f"{name} saw while the node was found dead, {doubts} in doubt: " + "; ".join(f"{count} x {what}" for what, count in repeated.most_common(4)))
        for fault in faults:
            print(f"FAILED {name}: {fault}")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", default="all", choices=["all", *CLIENTS])
    parser.add_argument("--keys", type=int, help="keys to import, each client (100,000; short 2,000)")
    parser.add_argument("--without-ioredis", action="store_true", help="where Node.js is not installed")
    parser.add_argument("--short", action="store_true", help="all clients at once on one cluster")
    parser.add_argument("--seed", type=int, default=1, help="of the workers' dice")
    options = parser.parse_args()
    options.keys = options.keys or (2_000 if options.short else 100_000)
    options.pause, options.chunk, options.sessions, options.after = (0.1, 200, 4, 2) if options.short else (0.005, 500, 40, 8)
    names = list(CLIENTS) if options.client == "all" else [options.client]
    names = [name for name in names if not (options.without_ioredis and name in workload_ioredis.CLIENTS)]
    absent = [name for name in names if name in workload_ioredis.CLIENTS and not workload_ioredis.available()]
    if absent:
        raise SystemExit(f"not there: {', '.join(absent)} (Node.js, or IOREDIS)")
    reports = {}
    for together in [names] if options.short else [[name] for name in names]:
        print(f"{', '.join(together)}: {options.keys:,} keys each", flush=True)
        reports.update(around(together, options))
    failures = table(reports)
    raise SystemExit(1 if failures else 0)


main()
