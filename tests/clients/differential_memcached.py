"""memcached and Trellis, side by side: the same random commands to both, over the same kind of connection, and the answers byte for byte.

`differential_memcached.py [--sequences N] [--seed S] [--memcached PATH]` starts both, prints what it compared, and exits 1 on a difference.

A sequence begins with empty servers and is a few dozen commands on a few keys, good and bad, up to eight at a time. CAS uniques
differ from server to server, so each is compared as the first, second, ... that was seen in the sequence, and sent as what that server had given.

The newest memcached, 1.6.45 or later, is the measure. What is not compared with it, and why:

* `version`, `stats`, `stats settings|items|slabs|conns`: they are about the server itself. `watch`, `lru_crawler`, `slabs`, `lru` and `extstore`
  with good arguments: refused here.
* `t` and `exp=` to ten seconds, and no deadlines of a few seconds: memcached's clock ticks once a second.
* `me`: cls and the last access are about memcached's memory; the rest is compared.
* `mg ... l`: time since the last access is not kept here. Values above 1 differ only if a sequence takes long.
* `t` after a negative `T`: memcached shows a deadline before its own start as a number around 2^32; the item is gone either way.
* `k` of `mg`, and `me`, of a key in base64 unless all that changes it is `ms` that replaces, in base64, and `md` without `x`: memcached remembers with the
  item whether it was stored so, and forgets it when it makes the item anew (appends, `N`, `x`, a longer number): it then answers the bytes
  themselves. Here a key is answered as it was asked.
* What memcached answers now so, now otherwise: it pads a number that became shorter, and keeps whether it was read, only if nobody holds the item at
  that moment. It is started without the background threads that may (`-o no_modern`); a sequence that differs nevertheless is played again, and is a
  difference if it differs three times.
* A `get` of a key that is too long: memcached sends an empty line behind its refusal, which is left out. Behind other commands it drops their answers
  with its own; behind other keys of one `gat`, those are touched before it is refused.
* A CAS unique of another key, or of nobody, with `I`: memcached compares numbers, here what is not the item's is older if it is below 2^63.
* `E0` but with `ms`: it is as no `E` here, as there. Elsewhere memcached makes an item whose number matches no condition.
* `ma` with `T` or `E` to a longer number: memcached gives both to the item it has just replaced.
* `E` with an `ms` that is refused for its data or its opaque: memcached gives the number to whatever the connection stores next.
* `delete` with three words behind the key, or more: deletes there; refused here, as in 1.6.18 and as libmemcached's `memccapable` wants it.
* To count in blanks alone: memcached reads on behind them.
* `ma` and `mg` with an opaque that is too long: memcached counts, touches or makes an item first and refuses then.

An older memcached is taken for a 1.6.18, which distributions have. What differed then is left out (`Generator(..., newest=False)`) or made the same:

* Left out: `E`, `x`, `N` and `s` of `ms`, `C` of `mg`, `q` with `N` of `ma`; numbers with a plus, out of range, or in odd lengths; words too many; modes of
  several letters or none; letters that are none; keys too long, bad numbers and missing ones where data follows, which was not thrown away; other
  commands behind data of another length than was said; spaces before a command; a zero in a line; unknown commands with `noreply`; `bget`; `gat` of no key; `me` in base64; numbers with a minus, behind which it read on.
* The same (`SAME`): what is too short or malformed was `ERROR`; `md` had one refusal for whatever is wrong with a letter; `me` showed a deadline with a
  minus; `shutdown` had an `ERROR` of its own.
"""

import argparse
import random
import re
import select
import socket
import subprocess
import sys
import time

from cluster import Node, free_port

KEYS = [b"a", b"b", b"key", b"K" * 250]
LONG = b"L" * 251
BINARY = [b"YWI=", b"AAE=", b"//8="]
# Changed by nothing that makes memcached forget how it was named, see the head.
FAITHFUL = b"//8="
NUMBERS = [b"0", b"1", b"2", b"7", b"10", b"99", b"100", b"18446744073709551615", b"18446744073709551616", b"-1", b"x", b"1x", b"", b"007"]
ODD_NUMBERS = [b"+3", b"-", b"9223372036854775808", b"0" * 21 + b"1", b"0" * 22 + b"1", b"1\t"]
TIMES = [b"0", b"0", b"0", b"100", b"1000", b"2592000", b"-1", b"2147483647", b"x", b"-2147483648"]
ODD_TIMES = [b"4294967296", b"+100", b"-", b"00000000100", b"000000000100", b"2147483648", b"-2147483649", b"100x", b"100\tx"]
FLAGS = [b"0", b"0", b"5", b"4294967295"]
ODD_FLAGS = [b"4294967296", b"-1", b"x", b"+5", b"00000000005", b"000000000005", b"-18446744073709551611", b"5\t6", b"5\x006"]
VALUES = [b"", b"x", b"5", b"10", b"99", b"value", b"18446744073709551615", b"12 ", b" 7", b"1\r\n2", b"\x00\xff", b"v" * 300]
ODD_VALUES = [b"-1", b"-18446744073709551615", b"+7", b"5\t6"]
LENGTHS = [b"0", b"1", b"2", b"7", b"-1", b"x", b"2147483647"]
ODD_LENGTHS = [b"4294967297", b"+1", b"-", b"-0", b"00000000001", b"000000000001", b"2147483645x"]
# CAS uniques that clients give: below and above all that the servers give.
GIVEN_CAS = [b"1", b"2", b"3", b"9223372036854775808", b"18446744073709551613", b"18446744073709551615"]
# Who reads a number of bytes that did not come takes what follows for them: enough follows, for all of LENGTHS.
PADDING = b"\r\n" * 8
CLOSING = [b"GET / HTTP/1.0\r\n", b"POST /x HTTP/1.1\r\n", b"quit\r\n", b"quit now\r\n", b"nonsense HTTP/\r\n"]
CAS = re.compile(rb"\{CAS(\d*)\}")
OWN_CAS = re.compile(rb"\{OWN ([^}]+)\}")
NO_CAS = b"18446744073709551614"
NEWEST = (1, 6, 45)
# What an older memcached and the newest have different words for.
SAME = [
    (rb"(?m)^CLIENT_ERROR bad command line format(\.  Usage: delete <key> \[noreply\])?\r", rb"ERROR\r"),
    (rb"(?m)^CLIENT_ERROR (duplicate flag|invalid flag|bad token in command line format|error decoding key)\r", rb"CLIENT_ERROR invalid or duplicate flag\r"),
    (rb"(?m)^CLIENT_ERROR options flags too long\r", rb"CLIENT_ERROR options flags are too long\r"),
    (rb"(?m)^SERVER_ERROR: shutdown", rb"ERROR: shutdown"),
    (rb"(?m)^(ME \S+ exp=)-(?!1 )", rb"\1"),
]


def about(seconds):
    """A time left, to ten seconds: the servers' clocks do not tick together. Deadlines in years are just far."""
    seconds = int(seconds)
    return b"far" if seconds > 3_000_000 else b"%d" % (-(-seconds // 10) * 10)


class Server:
    """One connection, and the CAS uniques it has shown."""

    def __init__(self, port):
        self.port, self.seen, self.names, self.of_key = port, [], {}, {}
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def reconnect(self):
        self.socket.close()
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.buffer = b""

    def forget(self):
        self.seen, self.names, self.of_key = [], {}, {}

    def send(self, request):
        """With the CAS uniques of this server."""

        def number(match):
            at = int(match[1]) if match[1] else len(self.seen) - 1
            return self.seen[at] if 0 <= at < len(self.seen) else NO_CAS

        request = OWN_CAS.sub(lambda match: self.of_key.get(match[1], NO_CAS), CAS.sub(number, request))
        self.socket.sendall(request)

    def read(self, end):
        """All up to the answer to `end`, which is sent after every request; or up to the end of the connection."""
        deadline = time.monotonic() + 5
        while not self.buffer.endswith(end):
            if not select.select([self.socket], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"no {end!r} after {self.buffer!r:.400}")
            got = self.socket.recv(65536)
            if not got:
                answer, self.buffer = self.buffer + b"<closed>", b""
                self.reconnect()
                return answer
            self.buffer += got
        answer, self.buffer = self.buffer[: -len(end)], b""
        return answer

    def version(self):
        """Of the server. It has given more CAS uniques by then than clients give themselves."""
        self.send(b"set a 0 0 0\r\n\r\n" * 10 + b"version\r\n" + END)
        return re.search(rb"VERSION ([0-9.]+)", self.read(ENDED))[1].decode()

    def named(self, answer):
        """The answer with CAS uniques by the order in which they came."""

        def name(cas):
            if cas == b"0":
                return cas
            if cas not in self.names:
                self.names[cas] = b"<cas %d>" % len(self.names)
                self.seen.append(cas)
            return self.names[cas]

        self.of_key.update(re.findall(rb"(?m)^VALUE (\S+) \d+ \d+ (\d+)\r", answer))
        answer = re.sub(rb"(?m)^(VALUE \S+ \d+ \d+) (\d+)(?=\r)", lambda m: m[1] + b" " + name(m[2]), answer)
        answer = re.sub(rb"(?m)^((?:HD|VA \d+|EX|NS|NF)(?: [^\r\n]*)?) c(\d+)(?=[ \r])", lambda m: m[1] + b" c" + name(m[2]), answer)
        answer = re.sub(rb"(?m)^(ME .*) la=\d+ cas=(\d+) (.*) cls=\d+", lambda m: m[1] + b" " + name(m[2]) + b" " + m[3], answer)
        answer = re.sub(rb"(?m)^((?:HD|VA \d+)(?: [^\r\n]*)?) t(\d+)(?=[ \r])", lambda m: m[1] + b" t" + about(m[2]), answer)
        return re.sub(rb"(?m)^(ME \S+ exp=-?)(\d\d+)", lambda m: m[1] + about(m[2]), answer)


class Generator:
    """Random commands. Without `newest`, none whose answer an older memcached has differently."""

    def __init__(self, seed, newest=True):
        self.random, self.newest = random.Random(seed), newest
        # Whether the last command may have left some of its data to be read as commands.
        self.left_over = False

    def pick(self, choices, odd=()):
        """One of these, or of `odd` ones, which are as many in what the newest is asked."""
        return self.random.choice(odd if self.newest and odd and self.maybe(2) else choices)

    def maybe(self, of=4):
        return self.random.randrange(of) == 0

    def key(self, long=True):
        return LONG if self.maybe(60) and (long or self.newest) else self.pick(KEYS[:3]) if not self.maybe(8) else KEYS[3]

    def value(self):
        return self.pick(VALUES, ODD_VALUES if self.maybe() else ())

    def number(self, good):
        return self.pick(NUMBERS, ODD_NUMBERS) if self.maybe(6) else good

    def time(self, of=3):
        return self.pick(TIMES, ODD_TIMES if self.maybe(of) else ())

    def words_too_many(self):
        return b" foo" * self.pick([1, 2, 24]) if self.newest and self.maybe(60) else b""

    def noreply(self):
        return self.words_too_many() + (b" noreply" if self.maybe(8) else b"")

    def store(self):
        name = self.pick([b"set", b"set", b"set", b"add", b"replace", b"append", b"prepend", b"cas", b"cas"])
        value = self.value()
        flags = self.pick(FLAGS, ODD_FLAGS if self.maybe() else ()) if self.maybe() else b"0"
        self.left_over = value != b"" and self.maybe(12)
        length = self.pick(LENGTHS, ODD_LENGTHS) if self.left_over else b"%d" % len(value)
        time = self.time() if self.maybe(2) else b"0"
        cas = b" " + self.cas() if name == b"cas" and not (self.newest and self.maybe(20)) else b""
        if not self.newest:
            time, cas = time.replace(b"x", b"500"), cas.replace(b"x", b"5")
        line = b"%s %s %s %s %s%s%s" % (name, self.key(long=False), flags, time, length, cas, b"" if self.left_over and not self.newest else self.noreply())
        return line + b"\r\n" + value + b"\r\n"

    def cas(self):
        good = [b"{CAS}", b"{CAS}", b"{CAS}", b"{CAS0}", b"{CAS1}"]
        return self.pick(good + [b"0", b"18446744073709551615", b"x", b"1"], GIVEN_CAS + ODD_NUMBERS if self.maybe(6) else ())

    def get(self):
        name = self.pick([b"get", b"gets", b"gets", b"gat", b"gats"])
        keys = [self.key() for _ in range(self.random.randrange(0 if self.maybe(20) and (self.newest or name[:2] == b"ge") else 1, 40 if self.maybe(30) else 4))]
        times = [self.time()] if name.startswith(b"gat") else []
        keys = [LONG] if LONG in keys else keys
        return b" ".join([name, *times, *keys]) + b"\r\n"

    def simple(self):
        return self.pick(
            [
                lambda: b"delete %s%s\r\n" % (self.key(), self.pick([b"", b"", b" 0", b" noreply", b" 0 noreply"], [b"", b"", b" 1", b" b c", b" 1 noreply"])),
                lambda: b"incr %s %s%s\r\n" % (self.key(), self.number(b"1"), self.noreply()),
                lambda: b"decr %s %s%s\r\n" % (self.key(), self.number(b"3"), self.noreply()),
                lambda: b"touch %s %s%s\r\n" % (self.key(), self.time(), self.noreply()),
            ]
        )()

    def server(self):
        return self.pick(
            [b"flush_all\r\n", b"flush_all 0\r\n", b"flush_all noreply\r\n", b"flush_all x\r\n", b"verbosity 0\r\n", b"verbosity x\r\n", b"verbosity\r\n"]
            + [b"shutdown\r\n", b"nonsense\r\n", b"\r\n", b" \r\n", b"x\r\n", b"mx\r\n", b"get\r\n", b"set\r\n", b"incr a\r\n", b"touch a\r\n", b"gat\r\n"]
            + [b"stats nonsense\r\n", b"stats sizes\r\n", b"stats detail off\r\n", b"stats detail\r\n", b"stats cachedump\r\n", b"mg\r\n", b"ms\r\n", b"ms a\r\n"]
            + [b"get   a  \r\n", b"get a\n", b"set a 0 0 1\n5\r\n", b"mn\r\n", b"mn x\r\n", b"md\r\n", b"ma\r\n", b"me\r\n", b"ms a x\r\n"]
            + [b"slabs\r\n", b"lru\r\n", b"extstore\r\n", b"set a 0 0\r\n", b"cas a 0 0\r\n"],
            [b"bget a\r\n", b"cas a 0 0 1\r\n", b"get a\x00b\r\n", b"  get   a  \r\n", b" set a 0 0 1\r\n5\r\n", b" flush_all\r\n", b" stats\r\n", b" mg a\r\n"]
            + [b"nonsense noreply\r\n", b"noreply\r\n", b"shutdown noreply\r\n", b"mn\n", b"abc\n", b"ab\n", b"   \r\n", b"stats det of\r\n", b"stats size\r\n"]
            + [b"verbosity 1 2 3\r\n", b"verbosity +1\r\n", b"verbosity noreply\r\n", b"flush_all -1\r\n", b"flush_all +1\r\n", b"flush_all 0 1 2\r\n", b"flush_all - noreply\r\n"]
            + [b"cache_memlimit\r\n", b"cache_memlimit 7\r\n", b"cache_memlimit x\r\n", b"cache_memlimit 1000000001\r\n", b"slabs reassign 1 2\r\n", b"lru_crawler\r\n"]
            + [b"set a\tb 0 0 1\r\n5\r\n", b"get a\tb\r\n", b"get\ta\r\n", b"gat 0\r\n", b"gat x\r\n", b"gat x a\r\n", b"get a noreply\r\n", b"lru_crawler crawl 1\r\n"]
            + [b"me a z\r\n", b"me a {\r\n", b"me YWI= b\r\n", b"me //8= b b\r\n", b"me ! b b\r\n", b"me a 1 2 3\r\n", b"mg a" + b" v" * 30 + b"\r\n"],
        )

    def meta(self):
        name = self.pick([b"mg", b"mg", b"mg", b"ms", b"ms", b"md", b"ma", b"me"])
        binary = name != b"me" and self.maybe(10)
        key = self.pick(BINARY, [b"Y!WI=", b"YW=j", b"//8=", b"====", b"YWI"] if self.maybe() else ()) if binary else self.key(long=name not in (b"ms", b"ma"))
        value = self.value()
        words = [name, key]
        right = True
        if name == b"ms":
            self.left_over = value != b"" and self.maybe(20)
            right = not self.left_over
            words.append(b"%d" % len(value) if right else self.pick(LENGTHS, ODD_LENGTHS))
        if name != b"me":
            words += self.letters(name, binary and key)
        if any(word.startswith(b"Oo") for word in words) or not right:
            words = [word for word in words if not word.startswith(b"E")]
        if name == b"ms" and b"I" in words:
            # Which of two numbers is older is a question about one key.
            own = self.pick([b"C0", b"C1", b"C18446744073709551615", b"C{OWN %s}" % key, b"C{OWN %s}" % key])
            words = [own if word.startswith(b"C") else word for word in words]
        line = b" ".join(words) + b"\r\n"
        return line + value + b"\r\n" if name == b"ms" else line

    def letters(self, name, binary):
        known = {
            b"mg": [b"v", b"v", b"f", b"c", b"k", b"s", b"t", b"h", b"q", b"O1", b"N", b"R", b"T", b"u"],
            b"ms": [b"c", b"k", b"q", b"O2", b"C", b"F", b"T", b"M", b"I"],
            b"md": [b"k", b"q", b"O3", b"C", b"I", b"T"],
            b"ma": [b"v", b"v", b"t", b"c", b"k", b"q", b"O4", b"C", b"N", b"J", b"D", b"M", b"T"],
        }[name]
        if self.newest:
            known = known + {b"mg": [b"C", b"E"], b"ms": [b"s", b"E", b"N", b"M"], b"md": [b"x", b"E", b"F"], b"ma": [b"E"]}[name]
        chosen = self.random.sample(known, self.random.randrange(0, min(6, len(known))))
        if not self.maybe(40):
            chosen = list(dict.fromkeys(chosen))
        if not self.newest and name == b"ma" and b"N" in chosen:
            chosen = [letter for letter in chosen if letter != b"q"]
        words = [self.letter(name, letter) for letter in chosen]
        if self.maybe(40):
            words.append(self.pick([b"z", b"Q", b"b"] + [b"O" + b"o" * 40] * (name in (b"ms", b"md")), [b"\xff", b"{", b"@", b"_", b"1", b"P1", b"L", b"S5", b"\x00"]))
        if self.newest and self.maybe(80):
            words += [b"O1"] * self.random.randrange(14, 22)
        # A longer number is another item, see the head.
        if name == b"ma" and any(word[:1] in (b"T", b"E") for word in words):
            words = [b"MD"] + [word for word in words if not word.startswith(b"M")]
        if binary:
            words = self.named(name, words, binary)
            words.insert(self.random.randrange(len(words) + 1), b"b")
        # A deadline in the past shows differently, see the head.
        if b"t" in words:
            words = [re.sub(rb"^([TN])-[1-9]\d*$", rb"\g<1>30", word) for word in words]
            words = [re.sub(rb"^([TN])2147483647$", rb"\g<1>40", word) for word in words]
        return words

    def named(self, name, words, key):
        """Without what memcached answers by how the item was stored, see the head."""
        if key == FAITHFUL:
            dropped = {b"mg": b"N", b"ms": b"M", b"md": b"x"}.get(name, b"")
            words = [word for word in words if not (dropped and word.startswith(dropped))]
            return words if name != b"ma" else [b"MD", *(word for word in words if word[:1] not in (b"M", b"N"))]
        return [word for word in words if name != b"mg" or word != b"k"]

    def letter(self, name, letter):
        if letter == b"R":
            # Not a deadline that others give: a second more or less would decide.
            return b"R" + self.pick([b"0", b"45", b"75", b"500", b"-1", b"x"], [b"", b"-", b"+75"] if self.maybe() else ())
        if letter in (b"T", b"N"):
            return letter + (self.time(6) if self.maybe() else self.pick([b"0", b"30", b"60", b"100"], [b""] if self.maybe(20) else ()))
        if letter == b"C":
            return b"C" + self.cas()
        if letter == b"E":
            return b"E" + self.pick(GIVEN_CAS + [b"0"] * (name == b"ms"), [b"x", b"", b"-1", b"18446744073709551616"] if self.maybe(6) else ())
        if letter == b"F":
            return b"F" + self.pick(FLAGS + [b"x", b"-1"], ODD_FLAGS + [b""] if self.maybe() else ())
        if letter in (b"J", b"D"):
            return letter + self.pick(NUMBERS, ODD_NUMBERS)
        if letter == b"M" and name == b"ms":
            return b"M" + self.pick([b"E", b"A", b"P", b"R", b"S", b"S", b"x"], [b"A", b"P", b"A", b"P", b"", b"SS", b"Ex", b"\x00"])
        if letter == b"M":
            return b"M" + self.pick([b"I", b"+", b"D", b"-", b"x"], [b"DD", b"I", b""])
        return letter

    def command(self):
        roll = self.random.randrange(100)
        if roll < 30:
            return self.store()
        if roll < 45:
            return self.get()
        if roll < 62:
            return self.simple()
        if roll < 96:
            return self.meta()
        return self.server()


def normal(answer, newest):
    """Without what is about the server itself, and what memcached does to the refusal of a long key (see the head)."""
    answer = answer.replace(b"CLIENT_ERROR bad command line format\r\n\r\n", b"CLIENT_ERROR bad command line format\r\n")
    answer = re.sub(rb"(?m)^VERSION .*$", b"VERSION", answer)
    for pattern, same in () if newest else SAME:
        answer = re.sub(pattern, same, answer)
    return answer


PLAYS_MAX = 3
END = b"mg end.of.batch k\r\n"
ENDED = b"EN kend.of.batch\r\n"


def batch_of(generator):
    """Some commands. None counts after one that answers values: memcached pads a shorter number only if nobody is being sent the old one."""
    batch = []
    for _ in range(generator.random.choice([1, 1, 1, 2, 3, 8])):
        generator.left_over = False
        command = generator.command()
        if re.match(rb"b?get|gat", command) and LONG in command and batch:
            break
        if re.match(rb"incr|decr|ma ", command) and any(re.match(rb"b?get|gat|mg", earlier) for earlier in batch):
            break
        batch.append(command)
        if generator.left_over and not generator.newest:
            break
    return batch


def compare(pair, generator, commands):
    """One sequence. Returns how many commands it sent, and the first difference."""
    for server in pair:
        server.forget()
        server.send(b"flush_all\r\n" + END)
        server.read(ENDED)
    history = []
    sent = 0
    while sent < commands:
        batch = batch_of(generator)
        # What closes the connection comes alone: it may take answers with it that are still on their way.
        closes = generator.maybe(200)
        request = generator.pick(CLOSING) if closes else b"".join(batch)
        answers = []
        for server in pair:
            server.send(request if closes else request + PADDING + END)
            answers.append(normal(server.named(server.read(ENDED)), generator.newest))
        history.append(request)
        sent += len(batch)
        if answers[0] != answers[1]:
            return sent, (history, answers)
    return sent, None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=2_000)
    parser.add_argument("--commands", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memcached", default="memcached")
    parser.add_argument("--differences", type=int, default=1, help="how many to show before giving up")
    options = parser.parse_args()
    port = free_port()
    theirs = subprocess.Popen([options.memcached, "-u", "nobody", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-o", "no_modern"], stderr=subprocess.DEVNULL)
    ours = Node(options=["--memcached-port", "0"])
    compared = differences = again = 0
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
        pair = [Server(port), Server(ours.memcached)]
        version = pair[0].version()
        newest = tuple(map(int, version.split("."))) >= NEWEST
        for sequence in range(options.sequences):
            for play in range(PLAYS_MAX):
                sent, difference = compare(pair, Generator(options.seed * 1_000_000 + sequence, newest), options.commands)
                if not difference:
                    break
                again += 1
                for server in pair:
                    server.reconnect()
            compared += sent
            if difference:
                differences += 1
                history, (expected, got) = difference
                print(f"sequence {sequence} of seed {options.seed} differs:")
                for request in history[-12:]:
                    print(f"  {request!r:.600}")
                print(f"memcached: {expected!r:.1500}\ntrellis:   {got!r:.1500}")
                if differences >= options.differences:
                    break
        against = f"memcached {version}" + ("" if newest else ", without what is newer")
        print(f"differential_memcached: {against}: {sequence + 1} sequences, {compared} commands compared, {again} plays repeated, {differences} differences")
    finally:
        theirs.terminate()
        theirs.wait()
        ours.stop()
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
