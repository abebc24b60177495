"""What administrators do with a provider."""

from __future__ import annotations

import pytest

from users.factors.oidc import discovery
from users.factors.oidc.factor import OpenIdConnect
from users.factors.oidc.form import OidcProviderForm
from users.factors.oidc.presets import lasting
from users.factors.panels import NotDone
from users.factors.providers import config_of

from .attempts import a_provider
from .liar import Liar, lying

pytestmark = pytest.mark.django_db


def test_trying_one_asks_it_anew_and_leaves_the_others_alone() -> None:
    discovery.forget()
    with lying(Liar()) as one, lying(Liar()) as other:
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


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ({"preset": "google"}, {"access_type": "offline", "prompt": "consent"}),
        ({"preset": "entra", "domain": "t"}, {"scope": "openid email profile offline_access"}),
        ({"issuer": "https://id.acme.example"}, {"scope": "openid email profile offline_access", "prompt": "consent"}),
        ({"preset": "slack"}, None),
        ({"preset": "onelogin", "domain": "acme.onelogin.com"}, None),
    ],
)
def test_refresh_tokens_are_asked_for_as_each_provider_wants_it(
    said: dict[str, str], asked: dict[str, str] | None
) -> None:
    form = OidcProviderForm({"client_id": "c", "client_secret": "s", "ask_again": 5, **said})
    assert form.is_valid() is (asked is not None)
    if asked is None:
        assert list(form.errors) == ["ask_again"]
    else:
        assert lasting(form.cleaned_data["preset"], form.cleaned_data["scopes"]) == asked
