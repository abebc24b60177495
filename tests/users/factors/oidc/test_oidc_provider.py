"""What administrators do with a provider."""

from __future__ import annotations

import pytest

from users.factors.oidc import discovery
from users.factors.oidc.factor import OpenIdConnect
from users.factors.oidc.form import OidcProviderForm
from users.factors.panels import NotDone
from users.factors.providers import config_of

from .attempts import a_provider
from .liar import lying

pytestmark = pytest.mark.django_db


def test_trying_one_asks_it_anew_and_leaves_the_others_alone() -> None:
    discovery.forget()
    with lying() as one, lying() as other:
        first, second = (
            config_of(a_provider(each.url, name), OidcProviderForm) for each, name in ((one, "A"), (other, "B"))
        )
        for config in (first, second):
            discovery.keys(config, "")
        one.down = other.down = True
        with pytest.raises(NotDone):
            OpenIdConnect().try_out(first)
        assert discovery.keys(second, "").keys
        one.down = False
        assert "signs with 1 key" in OpenIdConnect().try_out(first)
