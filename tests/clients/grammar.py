"""Random commands: what to ask of a server that knows a command, good and bad. Hand-made grammars for the commands on strings and keys; from
`COMMAND INFO` alone (arity, where keys are) for any other. Sends nothing."""

KEYS = [b"a", b"b", b"{t}1", b"{t}2", b"", b"k\r\n\x00\xff"]
INTEGERS = ["0", "1", "-1", "2", "7", "10", "100", "-100", "1000", "2147483648", "9223372036854775807", "-9223372036854775808"]
BAD_INTEGERS = ["", "x", "1x", "+1", "01", " 1", "1.0", "-", "-0", "9223372036854775808", "-9223372036854775809", "1e3", "\x00"]
# Below 2^64, up to which Trellis adds in 80 bits as Redis does (COMPATIBILITY, INCRBYFLOAT).
FLOATS = ["0", "0.1", "1.5", "-2.25", "3.0e3", "10.5", "-0.0", "1e-5", "100.1", "12345.678", "1e15", ".5", "5."]
BAD_FLOATS = ["", "x", "nan", "1..2", "--1", " 1", "1 ", "inf", "-inf", "1e99999"]
VALUES = [b"", b"v", b"hello world", b"0", b"10", b"-5", b"10.5", b"9223372036854775807", b"01", b"\x00\xff\r\n$-1\r\n", b"x" * 44, b"x" * 45,
          b"y" * 1000, b"\xff\xff\xff", b"foobar"]
OFFSETS = ["0", "1", "5", "7", "8", "23", "100", "2000", "8388607", "8388608", "4294967296", "-1", "x", ""]
# Multiples of a second, so that what is left of them rounds to the same for a while. Relative ones in the past delete.
SECONDS = ["1000", "100", "5000", "86400"]
UNIX_SECONDS = ["4102444800", "4102444801", "1", "1000000000"]
# Longer than any sequence takes, or over at once.
EDGE_SECONDS = ["0", "-1", "9223372036854775807", "-9223372036854775808", "9223372036854775", "x", "1.5"]


class Grammar:
    """Commands drawn with the dice `dice`, of these (name to entry of `COMMAND INFO`). `compares`: as Redis 8.4 has them."""

    def __init__(self, dice, commands, compares):
        self.dice, self.commands, self.compares = dice, commands, compares
        self.names = sorted(commands)

    # ---- words ----

    def one(self, *choices):
        return self.dice.choice(choices)

    def key(self):
        # Few keys, so that commands meet; the odd ones seldom.
        return self.dice.choice(KEYS[:4]) if self.dice.random() < 0.9 else self.dice.choice(KEYS)

    def keys(self):
        return [self.key() for _ in range(self.dice.randint(1, 4))]

    def value(self):
        return self.dice.choice(VALUES)

    def integer(self):
        return self.dice.choice(INTEGERS) if self.dice.random() < 0.85 else self.dice.choice(BAD_INTEGERS)

    def small(self):
        return str(self.dice.randint(-12, 12)) if self.dice.random() < 0.9 else self.integer()

    def number(self):
        return self.dice.choice(FLOATS) if self.dice.random() < 0.85 else self.dice.choice(BAD_FLOATS)

    def offset(self):
        return str(self.dice.randint(0, 40)) if self.dice.random() < 0.7 else self.dice.choice(OFFSETS)

    def case(self, word):
        return self.dice.choice((word.upper(), word.lower(), word.title()))

    def seconds(self, relative=True):
        if self.dice.random() < 0.15:
            return self.dice.choice(EDGE_SECONDS)
        return self.dice.choice(SECONDS if relative else UNIX_SECONDS)

    def milliseconds(self, relative=True):
        seconds = self.seconds(relative)
        return seconds + "000" if seconds.lstrip("-").isdigit() and len(seconds) < 12 else seconds

    def deadline(self):
        kind = self.one("EX", "PX", "EXAT", "PXAT")
        time = self.seconds(kind == "EX") if kind.startswith("EX") else self.milliseconds(kind == "PX")
        return [self.case(kind), time]

    def options(self, *choices):
        """Some of the choices, in any order, now and then one twice or one that there is not."""
        chosen = self.dice.sample(choices, self.dice.choice((0, 0, 0, 1, 1, 1, 2, 2, 3)) % (len(choices) + 1))
        if chosen and self.dice.random() < 0.1:
            chosen.append(self.dice.choice(chosen))
        if self.dice.random() < 0.03:
            chosen.append(["FOO"])
        return [word for words in chosen for word in (words() if callable(words) else [self.case(w) if isinstance(w, str) else w for w in words])]

    # ---- commands ----

    def set(self):
        choices = [["NX"], ["XX"], ["GET"], ["KEEPTTL"], self.deadline]
        if self.compares:
            # One of them at most: after a comparison Redis 8 takes NX and XX, though not before. A digest that is none it answers twice with GET.
            digest = [self.one("IFDEQ", "IFDNE"), self.one("9555e8555c62dcfd", "9555E8555C62DCFD", "z" * 16)]
            choices[:2] = [self.one(["NX"], ["XX"], lambda: [self.one("IFEQ", "IFNE"), self.value()], digest)]
        return [self.key(), self.value(), *self.options(*choices)]

    def getex(self):
        return [self.key(), *self.options(["PERSIST"], self.deadline)]

    def expire(self, unit, relative):
        options = self.options(["NX"], ["XX"], ["GT"], ["LT"])
        time = unit(relative)
        if relative and {"gt", "lt"} & {option.lower() for option in options}:
            # No deadline twice: which of two equal ones is later, the milliseconds between them decide.
            time = str(self.dice.randint(10_000, 9_999_999)) + ("000" if unit == self.milliseconds else "")
        return [self.key(), time, *options]

    def range(self):
        return [self.key(), self.small(), self.small()]

    def bitcount(self):
        return [self.key(), *self.one([], self.range()[1:], [*self.range()[1:], self.one("BIT", "byte", "BYTE", "x")])]

    def bitpos(self):
        words = [self.small(), self.small(), self.one("BIT", "byte", "x")]
        return [self.key(), self.one("0", "1", "1", "0", "2", "x"), *words[: self.dice.randint(0, 3)]]

    def field(self):
        width = self.one("u1", "u8", "u63", "i1", "i5", "i8", "i16", "i64", "u13", "u64", "i65", "x", "U8", "u")
        offset = self.one(self.offset(), "#" + str(self.dice.randint(0, 9)), "#x")
        number = self.one(self.integer(), str(self.dice.randint(-300, 300)))
        return self.one(["GET", width, offset], [self.case("set"), width, offset, number], [self.case("incrby"), width, offset, number],
                        ["OVERFLOW", self.one("wrap", "SAT", "fail", "FAIL", "x")])

    def bitfield(self):
        return [self.key(), *[word for _ in range(self.dice.randint(0, 5)) for word in self.field()]]

    def bitfield_ro(self):
        reads = [self.field() for _ in range(self.dice.randint(0, 4))]
        return [self.key(), *[word for field in reads if field[0] == "GET" or self.dice.random() < 0.1 for word in field]]

    def pairs(self):
        words = [word for key in self.keys() for word in (key, self.value())]
        return words if self.dice.random() < 0.9 else words[:-1]

    def restore(self):
        """The last payload that this server gave, or something that is none."""
        payload = DUMPED if self.dice.random() < 0.8 else self.value()
        idle = lambda: [self.one("IDLETIME", "FREQ"), self.one("0", "5", "256", "-1", "x")]
        return [self.key(), self.one("0", "0", "0", "1000000", "-1", "x"), payload, *self.options(["REPLACE"], ["ABSTTL"], idle)]

    def scan(self):
        return [self.one("0", "x", "-", "99999999999999999999999"), *self.options(["MATCH", "*"], ["COUNT", self.small()], ["TYPE", "string"])]

    def arguments(self, name):
        """Arguments of a command, without its name."""
        k, v, i = self.key, self.value, self.integer
        known = {
            "set": self.set, "getex": self.getex, "mget": self.keys, "del": self.keys, "unlink": self.keys, "exists": self.keys, "touch": self.keys,
            "mset": self.pairs, "msetnx": self.pairs, "getrange": self.range, "substr": self.range,
            "setex": lambda: [k(), self.seconds(), v()], "psetex": lambda: [k(), self.milliseconds(), v()],
            "setnx": lambda: [k(), v()], "getset": lambda: [k(), v()], "append": lambda: [k(), v()],
            "setrange": lambda: [k(), self.one("0", "1", "5", "100", "1048575", "1048576", "-1", "x"), v()],
            "incrby": lambda: [k(), i()], "decrby": lambda: [k(), i()], "incrbyfloat": lambda: [k(), self.number()],
            "expire": lambda: self.expire(self.seconds, True), "pexpire": lambda: self.expire(self.milliseconds, True),
            "expireat": lambda: self.expire(self.seconds, False), "pexpireat": lambda: self.expire(self.milliseconds, False),
            "setbit": lambda: [k(), self.offset(), self.one("0", "1", "1", "2", "x")], "getbit": lambda: [k(), self.offset()],
            "bitcount": self.bitcount, "bitpos": self.bitpos, "bitfield": self.bitfield, "bitfield_ro": self.bitfield_ro,
            "restore": self.restore, "scan": self.scan, "keys": lambda: [self.one("*", "a", "{t}*", "[ab]", "?", "x\\*", "[^a]", "")],
            "ping": lambda: self.one([], [v()]), "echo": lambda: [v()], "select": lambda: [self.one("0", "0", "-1", "16", "x", "9999999999")],
            "flushall": lambda: self.one([], ["ASYNC"], ["sync"], ["x"]), "flushdb": lambda: self.one([], ["ASYNC"], ["sync"], ["x"]),
            "memory|usage": lambda: [k(), *self.options(["SAMPLES", self.small()])],
            "delex": lambda: [k(), *self.one([], [self.one("IFEQ", "IFNE", "x"), v()], [self.one("IFDEQ", "IFDNE"), self.one("9555e8555c62dcfd", "z" * 16, "")])],
            "delifeq": lambda: [k(), v()],
            "copy": lambda: [k(), k(), *self.options(["REPLACE"], ["DB", self.one("0", "1", "-1", "16", "x")])],
            "lcs": lambda: [k(), k(), *self.options(["LEN"], ["IDX"], ["MINMATCHLEN", self.small()], ["WITHMATCHLEN"])],
            "bitop": lambda: [self.one("AND", "or", "XOR", "not", "x"), k(), *self.keys()],
        }
        return known[name]() if name in known else self.by_table(name)

    def by_table(self, name):
        """Arguments of which only number and keys are known."""
        _, arity, _, first, last, step = self.commands[name][:6]
        least = abs(arity) - name.count("|") - 1
        count = least if arity > 0 else least + self.dice.randint(0, 2)
        words = [self.one(self.value(), self.integer()) for _ in range(count)]
        first -= name.count("|")
        last = last - name.count("|") if last > 0 else count + 1 + last
        if first > 0 and step > 0:
            for at in range(first, min(last, count) + 1, step):
                words[at - 1] = self.key()
        return words

    def command(self):
        """One command, mostly one that could be meant."""
        name = self.dice.choice(self.names)
        words = self.arguments(name)
        if self.dice.random() < 0.04:
            words = words[:-1] if self.dice.random() < 0.5 else [*words, self.value()]
        return [*[self.case(part) for part in name.split("|")], *words]

    def sequence(self):
        """Commands, and pauses (None) after deadlines that are over by then."""
        steps = []
        for _ in range(self.dice.randint(5, 40)):
            if self.dice.random() < 0.01:
                short = self.one(["PEXPIRE", self.key(), "5"], ["SET", self.key(), self.value(), "PX", "5"], ["PSETEX", self.key(), "5", self.value()])
                steps += [short, None]
            elif self.dice.random() < 0.02 and not self.compares:
                # Redis 8 says less about these.
                steps.append([self.one("foo", "LPUSH2", "get\x00x", "x" * 200, "g\r\net"), *[self.value() for _ in range(self.dice.randint(0, 4))]])
            elif self.dice.random() < 0.04 and {"multi", "exec"} <= self.commands.keys():
                # A transaction that is executed more often than not.
                watched = [["WATCH", *self.keys()], self.command()] if self.dice.random() < 0.3 else []
                steps += [*watched, ["MULTI"], *[self.command() for _ in range(self.dice.randint(0, 6))], ["EXEC"]]
            elif self.dice.random() < 0.25:
                # Something to work on.
                steps.append(["SET", self.key(), self.value()])
            else:
                steps.append(self.command())
        return steps


# Stands for the payload of the server's own last DUMP.
DUMPED = object()
