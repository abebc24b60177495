"""Which refusal is which: one table from stable code to HTTP status. What a client does with each status is in
docs/PROTOCOL.md; the rule behind it is that a fault of ours is a 5xx and never a 4xx."""

from __future__ import annotations

STATUS = {
    "malformed": 400,
    "invalid_key": 400,
    "unauthorized": 401,
    "not_found": 404,
    "no_profile": 404,
    "clock": 408,
    "replayed": 409,
    "key_spent": 409,
    "too_large": 413,
    "server_stopped": 429,
    "no_address_left": 429,
    "too_many_devices": 429,
    "too_many_attempts": 429,
    "too_many_requests": 429,
    "unknown_configuration": 480,
    "in_progress": 503,
    "no_host": 503,
    "unconfirmed": 503,
    "key_not_ready": 503,
    "store_down": 503,
}


class Refusal(Exception):
    """A request that gets no sealed answer. ``detail`` is for the client's log and holds no secret and nothing
    about the account; ``retry_after`` is in seconds, 0 for none. ``layers``: what each layer said until then, where
    the one that refused is not plain from the code."""

    def __init__(self, code: str, detail: str, retry_after: int = 0, layers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.layers = layers

    @property
    def status(self) -> int:
        return STATUS[self.code]
