"""What a second factor is to authorize: something that takes its part of the password and judges it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from users.models import VpnUser

PinMode = Literal["off", "optional", "required"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What a server asks of those who connect to it. ``server`` is its public id; times are in seconds."""

    server: str
    organizations: frozenset[int]
    groups: frozenset[int]
    platforms: frozenset[str]
    pin: PinMode
    totp: bool
    token_ttl: int
    grace: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one connect offers. ``repr`` shows no secret."""

    device_id: str
    device_name: str
    platform: str
    wg_public_key: str
    address: str
    _password: str
    _token: str

    @property
    def password(self) -> str:
        return self._password

    @property
    def token(self) -> str:
        return self._token

    def __repr__(self) -> str:
        return f"Attempt(device_id={self.device_id!r}, platform={self.platform!r}, address={self.address!r})"


class Factor(ABC):
    """One kind of second factor.

    ``passcode``: the exact form of its part of the password where it has one (six digits); None: it takes what
    the others leave.
    """

    name: ClassVar[str]
    passcode: ClassVar[re.Pattern[str] | None] = None
    passcode_length: ClassVar[int] = 0

    @abstractmethod
    def wanted(self, policy: Policy, user: VpnUser) -> bool:
        """Whether this user must pass it on this server."""

    @abstractmethod
    def missing(self, user: VpnUser) -> str | None:
        """Why the user cannot pass it whatever they send (not enrolled), in words for them; None if they can."""

    @abstractmethod
    def check(self, user: VpnUser, secret: str, attempt: Attempt, now: float) -> bool:
        """Whether ``secret`` is right. Changes nothing."""

    def claim(self, user: VpnUser, secret: str, attempt: Attempt, now: float) -> bool:
        """Use ``secret`` up for this attempt, after all factors checked; False if another attempt was faster."""
        return True
