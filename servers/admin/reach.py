"""Who reaches whom in the mesh, on a page of its own and on each host's."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse

from core.admin.page import BAD, GOOD, NEUTRAL, Page, Panel, above_list, ago, span
from core.redis_store import RedisUnavailable
from servers import heartbeats, mesh, mesh_matrix
from servers.hostnet.state.reach import Reach
from servers.mesh_matrix import Row
from servers.models import Host


@dataclass(frozen=True, slots=True)
class Sight:
    """What is to be seen of the mesh now. Without ``known`` nobody can tell, since Redis is away."""

    rows: list[Row]
    known: bool = True

    @property
    def cut(self) -> int:
        """How many ways are."""
        return mesh_matrix.cut_ways(self.rows)

    @property
    def words(self) -> str:
        return f"{self.cut} way{'' if self.cut == 1 else 's'} between machines {'is' if self.cut == 1 else 'are'} cut"


def sight() -> Sight:
    """Of all machines of the mesh; no rows where there are fewer than two."""
    hosts = mesh.machines()
    if len(hosts) < 2:
        return Sight([])
    try:
        return Sight(mesh_matrix.matrix(hosts, heartbeats.ways(hosts)))
    except RedisUnavailable:
        return Sight(mesh_matrix.matrix(hosts, {}), known=False)


class ReachMixin(Page[Host]):
    actions_list: tuple[str, ...] = ("who_reaches_whom",)

    @above_list("Who reaches whom", "reach", "view", "hub")
    def who_reaches_whom(self, request: HttpRequest) -> HttpResponse:
        request.current_app = self.admin_site.name
        now = sight()
        context = {
            **self.admin_site.each_context(request),
            "title": "Who reaches whom",
            "opts": self.opts,
            "known": now.known,
            "names": [row.host for row in now.rows],
            "rows": [(row, [shown(cell) for cell in row.cells]) for row in now.rows],
            "troubles": mesh_matrix.troubles(now.rows) if now.known else [],
        }
        response = TemplateResponse(request, "admin/servers/reach.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def panels(self, request: HttpRequest, obj: Host) -> list[Panel]:
        rows = sight().rows
        mine = next((row for row in rows if row.host == obj), None)
        if mine is None:
            return super().panels(request, obj)
        back = {row.host.pk: cell for row in rows for cell in row.cells if cell is not None and cell.to == obj}
        lines = [
            {"host": cell.to, "cells": [shown(cell), shown(back[cell.to.pk])], "words": in_words(cell.way)}
            for cell in mine.cells
            if cell is not None
        ]
        panel = Panel("Its ways to other machines", "admin/servers/ways.html", {"lines": lines}, wide=True)
        return [*super().panels(request, obj), panel]


def shown(cell: mesh_matrix.Cell | None) -> dict[str, str] | None:
    """Colour, what a cell of the matrix has above and below, and the same in words; None for the machine itself."""
    if cell is None:
        return None
    if cell.answers is None:
        return {"to": cell.to.name, "tone": NEUTRAL, "text": "?", "below": "", "words": "not known"}
    if cell.cut:
        since = span(cell.way.since)
        return {"to": cell.to.name, "tone": BAD, "text": "cut", "below": since, "words": f"no answer for {since}"}
    trip = milliseconds(cell.way.round_trip)
    below = "" if cell.way.handshake is None else span(cell.way.handshake)
    return {"to": cell.to.name, "tone": GOOD, "text": trip.removesuffix(" ms"), "below": below, "words": trip}


def milliseconds(seconds: float | None) -> str:
    """``0.4 ms``, ``12 ms``."""
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.00995 else f"{seconds * 1000:.0f} ms"


def in_words(way: Reach) -> str:
    """Of WireGuard."""
    shaken = "no handshake yet" if way.handshake is None else f"last handshake {ago(way.handshake)}"
    return f"{shaken}; {filesizeformat(way.received)} from it, {filesizeformat(way.sent)} to it"
