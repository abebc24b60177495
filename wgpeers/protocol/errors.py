"""Which refusal is which: one table from stable code to HTTP status. What a client does with each status is in
docs/PROTOCOL.md; the rule behind it is that a fault of ours is a 5xx and never a 4xx."""

from __future__ import annotations

STATUS = {
    "malformed": 400,
    "invalid_key": 400,
    "unauthorized": 401,
    "not_found": 404,
    "no_profile": 404,
    "method_not_allowed": 405,
    "clock": 408,
    "replayed": 409,
    "key_spent": 409,
    "too_large": 413,
    "not_signed_in": 428,
    "server_stopped": 429,
    "server_full": 429,
    "no_address_left": 429,
    "too_many_requests": 429,
    "unknown_configuration": 480,
    "in_progress": 503,
    "no_host": 503,
    "busy": 503,
    "unconfirmed": 503,
    "key_not_ready": 503,
    "store_down": 503,
}


SEALED = ("too_many_devices", "device_connected", "other_device")


class SealedRefusal(Exception):
    """What a person must act on: the client is told in a box, shows ``reason`` to its user and stays away until they
    start it again. ``code`` is stable and for administrators."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class Refusal(Exception):
    """A request that gets no sealed answer. ``detail`` is for the client's log and holds no secret and nothing
    about the account; ``retry_after`` is in seconds, 0 for none."""

    def __init__(self, code: str, detail: str, retry_after: int = 0) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        return STATUS[self.code]
