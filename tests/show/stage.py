"""What every demonstration shares: its arguments, how it prints what it found, and how it says that a goal was missed."""

import argparse
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "clients"))

misses = []


def arguments(description):
    """A parser with the options that all of them have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--bin", default=os.environ.get("TRELLIS_BIN", "target/release/trellis"), help="the node; trellis-cli and trellis-bench stand beside it")
    return parser


def parsed(parser):
    options = parser.parse_args()
    # Told to stop, it still stops what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ["TRELLIS_BIN"] = options.bin
    return options


def say(what, got="", goal=None, held=True):
    """One line of the result. A `goal` that was not held is a miss and decides the exit code."""
    mark = "" if goal is None else f"   (goal: {goal}{'' if held else ', MISSED'})"
    print(f"{what:<58} {got}{mark}", flush=True)
    if not held:
        misses.append(what)


def part(run, *arguments):
    """Runs one part of a demonstration; a part that breaks is a miss and the rest goes on."""
    try:
        return run(*arguments)
    except (AssertionError, OSError, ValueError, KeyError, RuntimeError) as error:
        say(run.__name__.replace("_", " "), f"{type(error).__name__}: {error}", "no error", False)
        return None


def finish():
    """Ends the process: 0 when every goal was held."""
    print(f"\n{'every goal held' if not misses else 'missed: ' + '; '.join(misses)}")
    sys.exit(1 if misses else 0)


def percentile(sorted_values, share):
    """The smallest value that at least `share` of all do not exceed; None of nothing."""
    if not sorted_values:
        return None
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]


def mib(size):
    return f"{size / 2**20:.0f} MiB"
