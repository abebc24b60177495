"""Who reaches whom in the mesh: what each machine says of its ways to the others, put together. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .hostnet.state.reach import Reach
from .models import Host


@dataclass(frozen=True, slots=True)
class Cell:
    """One way; where nobody says anything of it, an empty ``Reach``."""

    to: Host
    way: Reach

    @property
    def answers(self) -> bool | None:
        return self.way.answers

    @property
    def cut(self) -> bool:
        return self.answers is False


@dataclass(frozen=True, slots=True)
class Row:
    """``says``: whether the machine says anything of its ways now. ``cells`` in the order of all machines; None for
    the machine itself."""

    host: Host
    says: bool
    cells: tuple[Cell | None, ...]


def matrix(hosts: Sequence[Host], ways: Mapping[int, Mapping[str, Reach]]) -> list[Row]:
    """``hosts`` are the machines of the mesh; ``ways`` what they say (``heartbeats.ways``)."""
    return [
        Row(one, one.pk in ways, tuple(None if one == other else _cell(one, other, ways) for other in hosts))
        for one in hosts
    ]


def _cell(one: Host, other: Host, ways: Mapping[int, Mapping[str, Reach]]) -> Cell:
    return Cell(other, ways.get(one.pk, {}).get(other.public_id) or Reach())


def unreached(rows: Sequence[Row]) -> list[Host]:
    """Machines that all others which say anything miss, of which there are two at least."""
    found = []
    for row in rows:
        told = [cell.answers for each in rows for cell in each.cells if cell is not None and cell.to == row.host]
        known = [answers for answers in told if answers is not None]
        if len(known) > 1 and not any(known):
            found.append(row.host)
    return found


def cut_ways(rows: Sequence[Row]) -> int:
    return sum(cell.cut for row in rows for cell in row.cells if cell is not None)


def troubles(rows: Sequence[Row]) -> list[str]:
    """What is wrong, in words: a machine that nobody reaches once, and every other cut way."""
    lost = unreached(rows)
    found = [f"No other machine reaches {host}: it is off, or its link is cut." for host in lost]
    cells = {(row.host.pk, cell.to.pk): (row.host, cell) for row in rows for cell in row.cells if cell is not None}
    for (one, other), (host, cell) in cells.items():
        back = cells[other, one][1]
        if not cell.cut or host in lost or cell.to in lost or (back.cut and other < one):
            continue
        if back.cut:
            found.append(f"{host} and {cell.to} do not reach each other.")
        elif back.answers:
            found.append(f"{host} gets no answer from {cell.to}, though {cell.to} gets answers from {host}.")
        else:
            found.append(f"{host} gets no answer from {cell.to}.")
    silent = [row.host for row in rows if not row.says and row.host not in lost]
    return found + [
        f"{host} says nothing of its ways: its worker is silent, or of an older release." for host in silent
    ]
