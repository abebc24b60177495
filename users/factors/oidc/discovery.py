"""What a provider says of itself: its addresses and its keys. Each process keeps them for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, KeySet, RSAKey

from core import clock, http
from core.http import NoAnswer
from users.factors.providers import ProviderConfig
from users.signin.outcomes import SaysNothing

LIFETIME = 3600
# Seconds until a provider that failed, or whose keys were just fetched, is asked again: whoever makes up names of keys
# must not have us ask at every one.
PAUSE = 30
# Also within a connect, which waits for it.
LIMITS = http.Limits(connect=2, total=4, size=1 << 18)


@dataclass(frozen=True, slots=True)
class Metadata:
    issuer: str
    authorization: str
    token: str
    keys: str
    posts_secret: bool
    names_itself: bool


@dataclass(slots=True)
class _Kept:
    value: Any
    fetched: float


_kept: dict[tuple[str, ...], _Kept] = {}
_lock = threading.Lock()


def forget(config: ProviderConfig | None = None) -> None:
    """What this process keeps of one provider, so that it is asked anew. None: of all, for tests."""
    with _lock:
        for name in [name for name in _kept if config is None or name[1] == config.public_id]:
            del _kept[name]


def let_go(name: tuple[str, ...]) -> None:
    """Of one thing that ``kept`` keeps."""
    with _lock:
        _kept.pop(name, None)


def metadata(config: ProviderConfig) -> Metadata:
    """Raise ``NoAnswer``."""
    found: Metadata = kept(("metadata", *_names(config)), LIFETIME, lambda: _fetch_metadata(config))
    return found


def keys(config: ProviderConfig, key_id: str) -> KeySet:
    """With the key of this name in it, if the provider has one now (empty: any). Raise ``NoAnswer``."""
    known = _lookup(config, LIFETIME)
    if key_id and key_id not in {key.kid for key in known.keys}:
        # A new one, perhaps. Once: then it has no such key.
        known = _lookup(config, PAUSE)
    return known


def ask(config: ProviderConfig, method: str, address: str, **more: Any) -> http.Answer:
    """Raise ``NoAnswer``. The hosts of issuer and directory, which an administrator named, may be inside; no other
    host may."""
    said = (config.settings["issuer"], config.settings["directory_address"])
    named = frozenset(http.host_of(str(each)) for each in said if each)
    return http.request(method, address, named=named, ca=str(config.settings["authorities"]), limits=LIMITS, **more)


def _lookup(config: ProviderConfig, lifetime: float) -> KeySet:
    found: KeySet = kept(("keys", *_names(config)), lifetime, lambda: _fetch_keys(config))
    return found


def _names(config: ProviderConfig) -> tuple[str, ...]:
    # What else is said of a provider may be changed, and holds from then on.
    return config.public_id, str(config.settings["issuer"]), str(config.settings["authorities"])


def kept(name: tuple[str, ...], lifetime: float, fetch: Callable[[], Any]) -> Any:
    """What was fetched no longer ago than this (seconds); failures are kept for ``PAUSE``. The second part of ``name``
    is the provider's public id. Raise ``NoAnswer``."""
    now = clock.steady()
    with _lock:
        known = _kept.get(name)
    if known and now - known.fetched < (PAUSE if isinstance(known.value, NoAnswer) else lifetime):
        if isinstance(known.value, NoAnswer):
            raise NoAnswer(*known.value.args)
        return known.value
    try:
        value = fetch()
    except SaysNothing:
        raise  # which is about one account
    except NoAnswer as error:
        with _lock:
            _kept[name] = _Kept(error, now)
        raise
    with _lock:
        _kept[name] = _Kept(value, now)
    return value


def _fetch_metadata(config: ProviderConfig) -> Metadata:
    issuer = str(config.settings["issuer"])
    said = _object(ask(config, "GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration"))
    if said.get("issuer") != issuer:
        raise NoAnswer(f"{http.host_of(issuer)} does not call itself by the issuer that is given.")
    addresses = [said.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
    if not all(isinstance(each, str) and http.host_of(each) for each in addresses):
        raise NoAnswer(f"{http.host_of(issuer)} does not say where to sign in.")
    secure = issuer.startswith("http://") or all(str(each).startswith("https://") for each in addresses)
    if not secure:
        raise NoAnswer(f"{http.host_of(issuer)} names an address without TLS.")
    methods = said.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    authorization, token, keys_at = map(str, addresses)
    return Metadata(
        issuer,
        authorization,
        token,
        keys_at,
        posts_secret="client_secret_basic" not in methods,
        names_itself=said.get("authorization_response_iss_parameter_supported") is True,
    )


def _fetch_keys(config: ProviderConfig) -> KeySet:
    address = metadata(config).keys
    said = _object(ask(config, "GET", address)).get("keys")
    usable: list[Key] = []
    for each in said if isinstance(said, list) else []:
        try:
            if isinstance(each, dict) and each.get("use", "sig") == "sig":
                usable.extend(_public_key(each))
        except (JoseError, ValueError, TypeError, KeyError):
            continue  # one that we cannot read is none that we need
    if not usable:
        raise NoAnswer(f"{http.host_of(address)} has no keys that can be used.")
    return KeySet(usable)


def _public_key(data: dict[str, Any]) -> Sequence[Key]:
    """No secret one (``oct``): whoever knows what it signs with could sign too."""
    if data.get("kty") == "RSA":
        key = RSAKey.import_key(data)
        return [key] if key.raw_value.key_size >= 2048 else []
    return [ECKey.import_key(data)] if data.get("kty") == "EC" else []


def _object(answer: http.Answer) -> dict[str, Any]:
    said = answer.json() if answer.status == 200 else None
    if not isinstance(said, dict):
        raise NoAnswer(f"{answer.host} answers with what is not asked for (status {answer.status}).")
    return said
