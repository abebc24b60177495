"""Deleting a server that has much history, against one that has little: the page that asks, and the deletion."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

from bench.administrator import Administrator
from bench.figures import Figure, spread
from bench.installation import say
from bench.load import WrongAnswer
from servers.models import Server
from tests import long_work
from tests.factories import Company
from wgpeers.models import Connection

MANY, FEW = 150_000, 1_500
ROUNDS = 7


def deletion(company: Company, administrator: Administrator) -> Figure:
    say(f"long_work: filling in {MANY + FEW:,} past connections")
    branches = [long_work.branch_of(company, number) for number in (60, 61)]
    for branch, count in zip(branches, (MANY, FEW), strict=True):
        long_work.history(branch, count)
    pages: list[list[float]] = [[], []]
    deletions: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for place, branch in enumerate(branches):
            where = long_work.page(branch.server, "delete/")
            pages[place].append(_seconds(partial(administrator.get, where)))
            deletions[place].append(_seconds(partial(administrator.post, where, {"post": "yes"})))
            _bring_back(branch)
    kept = Connection.objects.filter(server__in=[branch.server.pk for branch in branches]).count()
    if kept != MANY + FEW:
        raise WrongAnswer(f"{kept} past connections are left of {MANY + FEW}")
    ratios = [statistics.median(many) / statistics.median(few) for many, few in (pages, deletions)]
    ms = [spread([1000 * each for each in some]) for some in (*pages, *deletions)]
    note = f"page {ratios[0]:.2f} (ms {ms[0]}, {ms[1]}), deletion {ratios[1]:.2f} (ms {ms[2]}, {ms[3]})"
    return Figure("delete_150k_to_1500", max(ratios), "ratio", 2.0, at_most=True, note=note)


def _seconds(ask: Callable[[], object]) -> float:
    began = time.perf_counter()
    ask()
    return time.perf_counter() - began


def _bring_back(branch: Company) -> None:
    """The same server again, with the history that it left."""
    if Server.objects.filter(pk=branch.server.pk).exists():
        raise WrongAnswer("the server was not deleted")
    branch.server.save(force_insert=True)
    branch.server.organizations.add(branch.organization)
