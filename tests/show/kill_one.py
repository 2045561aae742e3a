#!/usr/bin/env python3
"""kill -9 of one of three nodes under load, then its return at the same address with empty hands.

Measures what clients of the surviving nodes saw (the longest time without a good reply, every error), and what a client of the
dead one saw that goes to the next node at once; how soon the others call it down; whether every key is readable throughout.
Without --same-id the node returns under a new identity, and its old self stays down until it is forgotten."""

import collections
import multiprocessing
import random
import time

import stage
from cluster import cluster, eventually
from resp import Connection, Refusal, command, load, read_back
from stage import say

VICTIM = 1


class Client:
    """One connection in a process of its own, busy until told to stop. Its report: longest gap between good replies and when,
    errors, reads that found nothing or the wrong value, and what it wrote."""

    def __init__(self, kind, addresses, keys, stop, marks):
        self.kind, self.addresses, self.keys, self.stop, self.marks = kind, addresses, keys, stop, marks
        self.receive, self.send = multiprocessing.Pipe(False)
        self.process = multiprocessing.Process(target=self.run, daemon=True)
        self.process.start()

    def report(self):
        report = self.receive.recv() if self.receive.poll(15) else None
        self.process.join(5)
        if report is None:
            raise AssertionError(f"a client ({self.kind}) did not come back")
        return report

    def run(self):
        dice = random.Random(self.process.pid if self.process else 0)
        errors, wrong, gaps, written = collections.Counter(), collections.Counter(), [], {}
        done = unsure = 0
        at, connection, last = 0, None, time.monotonic()
        while not self.stop.is_set():
            asked = time.monotonic()
            try:
                connection = connection or Connection(*self.addresses[at % len(self.addresses)], seconds_max=5)
                number = dice.randrange(self.keys)
                if self.kind == "incr":
                    connection.ask("INCR", "counter")
                elif self.kind == "write":
                    # Each writer has keys of its own, so that it knows the newest value of each.
                    key = b"w%d:%d" % (self.process_number, number)
                    connection.ask("SET", key, str(done))
                    written[key] = (str(done).encode(), time.time())
                else:
                    got = connection.ask("GET", b"base:%d" % number)
                    if got != b"value %d" % number:
                        wrong["missing" if got is None else "wrong"] += 1
                done += 1
                now = time.monotonic()
                gaps.append((now - last, now))
                last = now
            except Refusal as refusal:
                errors[str(refusal)[:60]] += 1
                unsure += "applied: no" not in str(refusal)
            except OSError as error:
                errors[type(error).__name__] += 1
                unsure += 1
                connection, at = None, at + 1
                if time.monotonic() - asked > 10:
                    break
        gaps.append((time.monotonic() - last, time.monotonic()))
        self.send.send((done, unsure, errors, wrong, sorted(gaps)[-5:], sorted(g for g, _ in gaps), written))

    process_number = 0


def clients(nodes, options, stop):
    """Readers and writers on the survivors, one that counts, and one on the victim that fails over by itself."""
    survivors = [(node.host, node.port) for i, node in enumerate(nodes) if i != VICTIM]
    victim = (nodes[VICTIM].host, nodes[VICTIM].port)
    kinds = [("read", survivors), ("write", survivors), ("read", survivors[::-1]), ("write", survivors[::-1])] * options.clients
    kinds += [("incr", survivors), ("read", [victim] + survivors)]
    started = []
    for i, (kind, addresses) in enumerate(kinds):
        Client.process_number = i
        started.append(Client(kind, addresses, options.keys, stop, None))
    return started


def watched_down(nodes, victim_address, killed):
    """Seconds until each survivor says so in its status."""
    seconds = {}
    while len(seconds) < len(nodes) and time.monotonic() < killed + 30:
        for i, node in enumerate(nodes):
            if i not in seconds and node.states().get(victim_address) == "down":
                seconds[i] = time.monotonic() - killed
        time.sleep(0.02)
    return list(seconds.values())


def phase(nodes, options, seconds_before, event, seconds_after):
    """Runs load around `event`; answers what clients saw and what the event gave."""
    stop = multiprocessing.Event()
    running = clients(nodes, options, stop)
    time.sleep(seconds_before)
    at = time.monotonic(), time.time()
    result = event(at[0])
    time.sleep(max(0, at[0] + seconds_after - time.monotonic()))
    stop.set()
    return at, result, [client.report() for client in running], [client.kind for client in running]


def tell(title, at, reports, options, roaming):
    """What the clients saw. The last client is the one that was connected to the victim."""
    print(f"\n{title}")
    on_survivors = reports[:-1]
    say("  operations answered", f"{sum(r[0] for r in reports):,}")
    everywhere = sorted(gap for r in on_survivors for gap in r[5])
    p99 = stage.percentile(everywhere, 0.99)
    worst = max((gap, when) for r in on_survivors for gap, when in r[4])
    say("  longest time a client had no good reply", f"{worst[0] * 1000:.0f} ms, ended {worst[1] - at:+.2f} s (p99 {p99 * 1000:.1f} ms)",
        f"<= {options.stall_max_ms} ms", worst[0] * 1000 <= options.stall_max_ms)
    errors = sum((r[2] for r in on_survivors), collections.Counter())
    say("  errors they saw", dict(errors) or 0, "0", not errors)
    wrong = sum((r[3] for r in reports), collections.Counter())
    say("  reads of settled keys that were wrong or missing", dict(wrong) or 0, "0", not wrong)
    if roaming:
        worst = max(reports[-1][4])[0]
        say("  client of the victim, going to the next node at once", f"{worst * 1000:.0f} ms without a reply, errors {dict(reports[-1][2])}")


def written_since(survivor, reports, killed_at, level):
    """Acknowledged writes that an older or no value answers now."""
    newest = {key: value for r in reports for key, value in r[6].items()}
    pairs = [(key, value) for key, (value, _) in newest.items()]
    connection = Connection(survivor.host, survivor.port, 30)
    replies = connection.pipelined([command("GET", key) for key, _ in pairs])
    lost = [newest[key][1] - killed_at for (key, value), reply in zip(pairs, replies) if reply != value]
    ages = f", written {min(lost):+.3f} to {max(lost):+.3f} s around the kill" if lost else ""
    say(f"  newest of {len(pairs):,} keys written under load, lost", f"{len(lost)}{ages}",
        "0" if level != "one" else "none but of the last 100 ms before the kill", all(level == "one" and -0.1 < age < 0.1 for age in lost))


def counted(survivor, reports, kinds, level):
    value = int(Connection(survivor.host, survivor.port).ask("GET", "counter") or 0)
    done = sum(r[0] for r, kind in zip(reports, kinds) if kind == "incr")
    unsure = sum(r[1] for r, kind in zip(reports, kinds) if kind == "incr")
    held = value <= done + unsure and (level == "one" or value >= done)
    say("  INCR acknowledged / value / of unknown outcome", f"{done} / {value} / {unsure}", "none counted twice", held)
    return value


def killed(nodes, options, pairs):
    victim, survivors = nodes[VICTIM], [node for i, node in enumerate(nodes) if i != VICTIM]

    def event(start):
        victim.kill()
        return watched_down(survivors, victim.address, start)

    at, seconds, reports, kinds = phase(nodes, options, options.before, event, options.after)
    tell("kill -9 under load", at[0], reports, options, True)
    say("  seconds until the others list it as down", ", ".join(f"{s:.2f}" for s in seconds) or "never",
        f"<= {options.down_max} s", len(seconds) == len(survivors) and max(seconds) <= options.down_max)
    for node in survivors:
        missing, wrong = read_back(node.host, node.port, pairs)
        say(f"  {len(pairs):,} settled keys read through {node.port}", f"{missing} missing, {wrong} wrong", "0, 0", (missing, wrong) == (0, 0))
    written_since(survivors[0], reports, at[1], options.consistency)
    counted(survivors[0], reports, kinds, options.consistency)


def returned(nodes, options, pairs):
    victim, survivors = nodes[VICTIM], [node for i, node in enumerate(nodes) if i != VICTIM]
    Connection(survivors[0].host, survivors[0].port).ask("DEL", "counter")

    def event(start):
        nodes[VICTIM] = again = victim.again([node.address for node in survivors])

        def settled():
            return again.ready() and all(node.states().get(victim.address) == "alive" for node in nodes)

        alive = eventually(lambda: all(node.states().get(victim.address) == "alive" for node in survivors), "seen alive again", 30)
        return alive, eventually(settled, "it holds its share again", 60) + alive

    # The victim's address stays in the roaming client's list: it is refused there first and ends on a survivor.
    at, seconds, reports, kinds = phase(nodes, options, options.before, event, options.after)
    tell(f"its return under load ({'the same' if options.same_id else 'a new'} identity, memory empty)", at[0], reports, options, False)
    say("  seconds until alive everywhere, until ready", f"{seconds[0]:.2f}, {seconds[1]:.2f}")
    for node in nodes:
        missing, wrong = read_back(node.host, node.port, pairs)
        say(f"  {len(pairs):,} settled keys read through {node.port}", f"{missing} missing, {wrong} wrong", "0, 0", (missing, wrong) == (0, 0))
    written_since(survivors[0], reports, at[1], "all")
    counted(survivors[0], reports, kinds, options.consistency)


def main():
    parser = stage.arguments(__doc__)
    parser.add_argument("--keys", type=int, default=30_000, help="settled keys, written before")
    parser.add_argument("--clients", type=int, default=1, help="times two readers and two writers")
    parser.add_argument("--consistency", default="one", choices=["one", "quorum"])
    parser.add_argument("--before", type=float, default=3, help="seconds of load before the event")
    parser.add_argument("--after", type=float, default=8, help="seconds of load after it")
    parser.add_argument("--stall-max-ms", type=int, default=300)
    parser.add_argument("--down-max", type=float, default=3)
    parser.add_argument("--same-id", action="store_true", help="the node returns under its old --node-id")
    options = stage.parsed(parser)
    pairs = [(b"base:%d" % i, b"value %d" % i) for i in range(options.keys)]
    with cluster(3, "--consistency", options.consistency, ports=True, named=options.same_id) as nodes:
        load(nodes[0].host, nodes[0].port, pairs)
        killed(nodes, options, pairs)
        returned(nodes, options, pairs)
    stage.finish()


main()
