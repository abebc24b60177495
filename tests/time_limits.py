"""Finds what in a test judges how fast the machine is: small limits on waiting, and measured times compared."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

# Seconds. Beside a busy loop on every core, whatever is ready within less may be ready later.
SMALL = 30.0
# Of tests.lab: the one factor of time, which is 1 on a machine that is not emulated.
FACTORS = {"PATIENCE": 1.0}
CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time", "time_ns"}
# Calls by name, with the place of their limit among what is handed over by position.
WAITING = {"wait": 0, "join": 0, "settimeout": 0, "result": 0, "sleep": 0, "until": 1}
LIMITS = ("timeout", "deadline", "patience")


@dataclass(frozen=True, order=True)
class Found:
    """A limit: the line it is in, and its source."""

    line: int
    text: str


def limits(source: str) -> list[Found]:
    """What in a test file's ``source`` passes or fails with the speed of the machine, in the order of its lines."""
    tree = ast.parse(source)
    known = FACTORS | _constants(tree)
    nodes = {node for find in (_waits, _defaults, _deadlines, _settings) for node in find(tree, known)}
    for scope in ast.walk(tree):
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes |= set(_comparisons(scope, known))
    return sorted({Found(node.lineno, ast.unparse(node)) for node in nodes})


def _constants(tree: ast.Module) -> dict[str, float]:
    found: dict[str, float] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            value = _seconds(node.value, found | FACTORS)
            if value is not None:
                found[node.targets[0].id] = value
    return found


def _seconds(node: ast.AST | None, known: dict[str, float]) -> float | None:
    """The value of an expression of numbers and constants of the same file, or nothing."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return float(value)
        case ast.Name(id=name):
            return known.get(name)
        case ast.BinOp(left=left, op=ast.Add() | ast.Mult() as operator, right=right):
            first, second = _seconds(left, known), _seconds(right, known)
            if first is None or second is None:
                return None
            return first + second if isinstance(operator, ast.Add) else first * second
    return None


def _small(node: ast.AST | None, known: dict[str, float]) -> bool:
    """Zero is no waiting at all."""
    value = _seconds(node, known)
    return value is not None and 0 < value < SMALL


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _waits(tree: ast.AST, known: dict[str, float]) -> Iterator[ast.expr]:
    """Calls that wait for a few seconds and no longer."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            place = WAITING.get(_name(node.func))
            given = node.args[place : place + 1] if place is not None else []
            given += [word.value for word in node.keywords if word.arg in LIMITS]
            if any(_small(value, known) for value in given):
                yield node


def _defaults(tree: ast.AST, known: dict[str, float]) -> Iterator[ast.arg]:
    """Parameters that are a small limit unless the caller says otherwise."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arguments):
            positional = [*node.posonlyargs, *node.args]
            pairs = [
                *zip(positional[::-1], node.defaults[::-1], strict=False),
                *zip(node.kwonlyargs, node.kw_defaults, strict=True),
            ]
            yield from (name for name, default in pairs if name.arg in LIMITS and _small(default, known))


def _deadlines(tree: ast.AST, known: dict[str, float]) -> Iterator[ast.BinOp]:
    """``clock + few``, whatever is done with it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            for clock, seconds in ((node.left, node.right), (node.right, node.left)):
                if _reads_clock(clock) and _small(seconds, known):
                    yield node


def _settings(tree: ast.AST, known: dict[str, float]) -> Iterator[ast.stmt | ast.expr]:
    """Limits of the product that are made small: in Django's settings, or patched into a module."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                set_here = [each for target in targets for each in ast.walk(target) if isinstance(each, ast.Attribute)]
                named = any(_limits_the_product(each.attr) for each in set_here)
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[_, ast.Constant(value=str() as name), value]):
                named = _limits_the_product(name)
            case _:
                continue
        if named and any(_small(each, known) for each in ast.walk(value)):
            yield node


def _limits_the_product(name: str) -> bool:
    return name.isupper() and name.endswith(("_TIMEOUT", "_LIMIT", "_PATIENCE", "_WITHIN", "SILENCE"))


def _reads_clock(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and not node.args and _name(node.func) in CLOCKS


def _comparisons(scope: ast.AST, known: dict[str, float]) -> Iterator[ast.Compare]:
    """Comparisons that say that what was measured in ``scope`` was short."""
    measured = _measured(scope)
    for node in ast.walk(scope):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for left, operator, right in zip(sides[:-1], node.ops, sides[1:], strict=True):
                less, more = (right, left) if isinstance(operator, ast.Gt | ast.GtE) else (left, right)
                ordered = isinstance(operator, ast.Lt | ast.LtE | ast.Gt | ast.GtE)
                if ordered and _small(more, known) and _holds(less, measured):
                    yield node


def _measured(scope: ast.AST) -> set[str]:
    """The names in ``scope`` that a clock's reading went into, by whatever way round."""
    names: set[str] = set()
    while True:
        found = set(names)
        for node in ast.walk(scope):
            match node:
                case ast.Assign(targets=targets, value=value) if _holds(value, names):
                    found |= {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
                case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append"), args=[value]):
                    found |= {name} if _holds(value, names) else set()
        if found == names:
            return names
        names = found


def _holds(node: ast.AST, names: set[str]) -> bool:
    return any(_reads_clock(each) or (isinstance(each, ast.Name) and each.id in names) for each in ast.walk(node))
