"""What a provider says of an account beside who it is: claims of a token, attributes of an assertion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .outcomes import NotSignedIn


def texts(value: object) -> list[str]:
    """One text, as some write a list of one; other values as JSON has them are none of ours."""
    if isinstance(value, list):
        return [each for each in value if isinstance(each, str)]
    return [value] if isinstance(value, str) else []


def groups_in(claims: Mapping[str, object], name: str) -> Sequence[str] | None:
    """None where the claim is missing, which is not "no groups": some leave it out where there are many, and say where
    to ask instead (OpenID Connect Core 5.6.2)."""
    elsewhere = claims.get("_claim_names")
    if not name or name not in claims or (isinstance(elsewhere, dict) and name in elsewhere):
        return None
    return texts(claims[name])


def require(lines: str, claims: Mapping[str, object]) -> None:
    """``lines`` are ``name=value``, and each must be among ``claims``. Raise ``NotSignedIn``."""
    for line in lines.splitlines():
        name, _, value = line.strip().partition("=")
        if name and value not in texts(claims.get(name)):
            raise NotSignedIn("claim")
