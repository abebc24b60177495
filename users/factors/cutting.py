"""A password holds the secrets of several factors, joined without a separator: the ways to cut it apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, permutations, product

from .base import Factor, TypedSecret
from .providers import ProviderConfig

# Three passcodes and a text in every order. Of more factors, an order beyond these is refused.
MAX_WAYS = 24
# Ways to share the characters out that are tried for each order: those of two passcodes as apps show them (four
# lengths), or recovery codes (three) in their place.
MAX_SPREADS = 49


def ways_apart(password: str, secrets: Mapping[str, TypedSecret]) -> Iterator[dict[str, str]]:
    """Each way to cut ``password`` into one part a kind, every character in exactly one part. ``secrets``: each kind's
    form. First the text and then the passcodes, as most clients join them. At most ``MAX_WAYS``; none where two kinds
    take any text, as nobody could say where one ends."""
    passcodes = [kind for kind, secret in secrets.items() if secret.form]
    texts = [kind for kind, secret in secrets.items() if not secret.form]
    if len(texts) > 1:
        return
    places = range(len(passcodes) + 1) if texts else (0,)  # of the text among the passcodes
    orders = ([*order[:at], *texts, *order[at:]] for at in places for order in permutations(passcodes))
    seen: list[dict[str, str]] = []
    for order in islice(orders, MAX_WAYS):
        for lengths in _lengths(len(password), secrets, passcodes, texts):
            way = _cut(password, [(kind, lengths[kind]) for kind in order])
            fits = all(secrets[kind].fits(part) for kind, part in way.items())
            if fits and way not in seen and len(seen) < MAX_WAYS:
                seen.append(way)
                yield way


def _lengths(
    total: int, secrets: Mapping[str, TypedSecret], passcodes: list[str], texts: list[str]
) -> Iterator[dict[str, int]]:
    """How long each part may be, so that nothing of ``total`` characters is left over."""
    choices = [secrets[kind].lengths() for kind in passcodes]
    for spread in islice(product(*choices), MAX_SPREADS):
        rest = total - sum(spread)
        if rest >= len(texts) and (texts or not rest):
            yield dict(zip(passcodes, spread, strict=True)) | dict.fromkeys(texts, rest)


def inseparable(asked: Iterable[tuple[Factor, ProviderConfig | None]]) -> list[Factor]:
    """Those whose secrets nobody could tell apart in one password; each comes with the provider that it asks. Empty
    where there are none. They are: several texts of any form; a text that ends or begins with a passcode of its own,
    and any passcode; several passcodes of one form of which only their providers know whose is whose, so that each
    would be offered the other's, and count it as wrong."""
    typed = [(factor, factor.typed, provider) for factor, provider in asked if factor.typed]
    texts = [factor for factor, secret, _ in typed if not secret.form]
    passcodes = [(factor, secret) for factor, secret, _ in typed if secret.form]
    if len(texts) > 1:
        return texts
    with_code = [factor for factor, _, provider in typed if factor.holds_passcode(provider)]
    if with_code and passcodes:
        return [*with_code, *(factor for factor, _ in passcodes)]
    blind = [(factor, set(secret.lengths())) for factor, secret in passcodes if not factor.knows_its_own]
    return [
        factor for factor, lengths in blind if any(lengths & others for other, others in blind if other is not factor)
    ]


def _cut(password: str, lengths: list[tuple[str, int]]) -> dict[str, str]:
    parts, at = {}, 0
    for kind, length in lengths:
        parts[kind] = password[at : at + length]
        at += length
    return parts
