"""What happens in one run, and when: a pure function of the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

# Nothing that anybody does concerns these; so nothing may happen to them.
STEADY_TUNNELS = ("tunnel-1", "tunnel-2")
STEADY = (*STEADY_TUNNELS, "steady-1", "steady-2", "steady-3")
# Those of the yard are on a server that is stopped at times, and that lets in one group.
OFFICE = ("office-1", "office-2", "office-3")
YARD = ("yard-1", "yard-2", "yard-3")
# Those who have a PIN and an authenticator, which they are asked for.
CAREFUL = ("careful-1", "careful-2")
# Who falls silent for good: so each run has somebody whose key must be revoked by its end.
SILENT = ("office-3", "yard-3")
# Deleted at some time, one after the other.
LEAVERS = ("leaver-1", "leaver-2")
MOVING = (*OFFICE, *YARD, *CAREFUL, *LEAVERS)
# The client of this project, as its user runs it. An administrator disconnects it.
REAL = "wgpeer"

# Program and which of its processes. "openvpn" is an end of the link, on either machine, "far" the worker of the host
# that joined. wireguard-go is not among them: it is the tunnel itself, and whoever kills it ends
# all sessions of its server. A program of one process has no "worker".
PROCESSES = (
    *((name, "main") for name in ("redis", "front", "web", "waiting", "gateway", "control", "keys", "beat", "host")),
    *((name, "main") for name in ("openvpn", "far")),
    *((name, "worker") for name in ("front", "web", "waiting", "gateway", "keys")),
)
# supervisor takes everything but the tunnels with it, and bin/run gives up when it dies too often.
SELDOM = (("supervisor", "main"), ("runner", "main"))
# How often which fault comes. What is done to a store or to the machine is in each plan that is long enough.
WEIGHTS = {"kill": 6, "stop": 5, "empty redis": 1, "lock database": 2, "step clock": 1, "fill disk": 1}
ONCE_AT_LEAST = ("empty redis", "lock database", "step clock", "fill disk")
UNDO = {"stop": "continue", "lock database": "unlock database", "fill disk": "free disk"}

BEGIN = 5.0  # seconds until the first step
FAULT_AFTER, FAULT_BEFORE = 3.0, 9.0  # seconds between two faults
SILENT_BEFORE = 25.0  # seconds before the end; later, and the end would have to wait for it
LONGEST_FAULT = 12.0  # longer than anybody in there waits for Redis
# A process is left alone for as long after a fault of it, or its program would be taken for one that does not start.
SPARED = 20.0


@dataclass(frozen=True, slots=True)
class Step:
    """``at``: seconds from the start. ``pick`` is from 0 to below 1, for whatever there is to choose from by then."""

    at: float
    actor: str
    action: str
    target: str
    pick: float = 0.0


def make_plan(seed: int, seconds: float) -> list[Step]:
    """All steps of a run in order. What is done to anybody for a time is undone before the end."""
    # Each kind has numbers of its own, so that one more step of one kind does not change all others.
    people = _people(random.Random(f"{seed} people"), seconds)
    changes = _changes(random.Random(f"{seed} changes"), seconds)
    faults = _faults(random.Random(f"{seed} faults"), seconds)
    return sorted([*people, *changes, *faults], key=lambda step: step.at)


def _times(chance: random.Random, seconds: float, least: float, most: float) -> list[float]:
    found, at = [], BEGIN + chance.uniform(0, most)
    while at < seconds:
        found.append(round(at, 2))
        at += chance.uniform(least, most)
    return found


def _people(chance: random.Random, seconds: float) -> list[Step]:
    """Those who come and go."""
    actions = ("connect", "silence", "new key", "other device", "old key", "used code")
    last_silence = seconds - SILENT_BEFORE
    steps = [Step(round(chance.uniform(0, BEGIN), 2), "client", "connect", name) for name in MOVING]
    for name in MOVING:
        for at in _times(chance, seconds, 4, 16):
            weights = (4, 2, 2, 2, 1, 1 if name in CAREFUL else 0)
            action, pick = chance.choices(actions, weights)[0], round(chance.random(), 3)
            if at <= last_silence or name not in SILENT:
                late = action == "silence" and at > last_silence
                steps.append(Step(at, "client", "connect" if late else action, name, pick))
    return steps + [Step(round(last_silence + 0.01, 2), "client", "silence", name) for name in SILENT]


def _changes(chance: random.Random, seconds: float) -> list[Step]:
    """The administrator's."""
    free: dict[str, float] = {}  # from when on nobody is at work on the target
    steps = []
    pairs = {
        ("disable", "enable"): (*OFFICE, *YARD, *CAREFUL),
        ("revoke device", "let device in"): (*OFFICE, *YARD, *CAREFUL),
        ("take from group", "put into group"): YARD,
        ("stop server", "start server"): ("Yard",),
        ("add route", "remove route"): ("10.77.1.0/24", "10.77.2.0/24"),
    }
    for at in _times(chance, seconds, 2, 7):
        action, undo = chance.choice(list(pairs))
        target, lasts = chance.choice(pairs[action, undo]), chance.uniform(2, 15)
        if chance.random() < 0.15:
            steps.append(Step(at, "admin", "disconnect", chance.choice((*OFFICE, *YARD, REAL))))
        elif at >= free.get(target, 0.0) and at + lasts < seconds:
            free[target] = at + lasts
            steps += [Step(at, "admin", action, target), Step(round(at + lasts, 2), "admin", undo, target)]
    for number, name in enumerate(LEAVERS, start=1):
        steps.append(Step(round(seconds * number / (len(LEAVERS) + 1), 2), "admin", "delete", name))
    return steps


def _faults(chance: random.Random, seconds: float) -> list[Step]:
    free: dict[object, float] = {}
    steps: list[Step] = []
    times = _times(chance, seconds - LONGEST_FAULT - 1, FAULT_AFTER, FAULT_BEFORE)
    for at, kind in zip(times, _kinds(chance, len(times)), strict=True):
        process = chance.choice(SELDOM if chance.random() < 0.06 else PROCESSES)
        lasts, pick = chance.uniform(1, LONGEST_FAULT), round(chance.random(), 3)
        what: object = process[0] if kind in {"kill", "stop"} else kind
        if at < free.get(what, 0.0):
            continue
        free[what] = at + lasts + (SPARED if what not in {"supervisor", "runner"} else 3 * 60)
        steps += _fault(kind, " ".join(process), at, round(at + lasts, 2), pick)
    return steps


def _kinds(chance: random.Random, count: int) -> list[str]:
    kinds = chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count)
    for number, kind in zip(chance.sample(range(count), min(count, len(ONCE_AT_LEAST))), ONCE_AT_LEAST, strict=False):
        kinds[number] = kind
    return kinds


def _fault(kind: str, process: str, at: float, end: float, pick: float) -> list[Step]:
    target = process if kind in {"kill", "stop"} else ""
    first = Step(at, "fault", kind, target, pick)
    return [first, Step(end, "fault", UNDO[kind], target, pick)] if kind in UNDO else [first]
