from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import LazySettings

from tests.factories import Company
from users.factors.oidc import discovery

from .attempts import Visit, a_provider, ask
from .liar import Liar, lying


@pytest.fixture
def liar(settings: LazySettings) -> Iterator[Liar]:
    """Nobody is held, and no cookie needs TLS, which Django's test client has not."""
    settings.SIGN_IN_HOLD = 0.0
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    discovery.forget()
    with lying(Liar()) as running:
        yield running


@pytest.fixture
def visit(company: Company, host: object, liar: Liar) -> Visit:
    """Alice's, at a server that asks for a sign-in."""
    ask(company, a_provider(liar.url))
    return Visit(company.hire("alice", email="Alice@acme.example")[1])
