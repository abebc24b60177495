"""The fields of those factors that ask a service by HTTP."""

from __future__ import annotations

import ssl

import pytest
from django.core.exceptions import ValidationError

from users.factors.asking import Authority


def test_no_authority_of_ones_own_costs_no_reading_of_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider's settings are read with each connect, and a system has more than a hundred certificates."""

    def read(*_: object, **__: object) -> None:
        raise AssertionError("the system's certificates are read")

    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", read)
    assert Authority().clean(" ") == ""
    with pytest.raises(ValidationError, match="That is no certificate in PEM"):
        Authority().clean("nonsense")
