from __future__ import annotations

import pytest
from django.conf import LazySettings

from tests.factories import Company

from .attempts import SamlVisit, a_provider, ask
from .liar import SamlLiar


@pytest.fixture
def liar(settings: LazySettings) -> SamlLiar:
    """Nobody is held, and no cookie needs TLS, which Django's test client has not."""
    settings.SIGN_IN_HOLD = 0.0
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    return SamlLiar()


@pytest.fixture
def visit(company: Company, host: object, liar: SamlLiar) -> SamlVisit:
    """Alice's, at a server that asks for a sign-in."""
    ask(company, a_provider(liar.metadata, groups_attribute="groups"))
    return SamlVisit(company.hire("alice", email="Alice@acme.example")[1])
