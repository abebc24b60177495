"""Every model with rules has them, a row is only judged by its rule, and its one spelling stays as it is."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import models
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from servers.models import ClientNetwork, Route, Server, SplitDomain
from servers.rules import registry
from tests.factories import found

RULED = [model for model in apps.get_models() if issubclass(model, registry.Ruled)]


@pytest.mark.parametrize("model", RULED)
def test_each_model_has_its_rule(model: type[registry.Ruled]) -> None:
    assert issubclass(model, registry.Ruled)
    assert model._meta.label in registry._rules
    with pytest.raises(ImproperlyConfigured, match="two rules"):
        registry.rule(model)(lambda row: ())


@pytest.mark.parametrize("model", RULED)
def test_a_model_whose_rule_is_missing_passes_nothing(
    model: type[registry.Ruled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(registry._rules, model._meta.label)
    with pytest.raises(ImproperlyConfigured, match="has no rule"):
        model().clean()


NETWORKS = st.sampled_from(
    ["", "nonsense", "10.8.0.0/24", "10.8.0.0/255.255.255.0", "10.77.0.0/24 ", "10.77.0.1/24", "10.77.0.0/16",
     "FD09:0::/64", "fd09::/64", "0.0.0.0/0", "192.168.7.0/24", "192.168.7.0/255.255.255.0"]
)  # fmt: skip


@st.composite
def rows(draw: st.DrawFn) -> tuple[type[registry.Ruled], dict[str, Any]]:
    model: Any = draw(st.sampled_from((Server, Route, SplitDomain, ClientNetwork)))
    fields: dict[Any, dict[str, st.SearchStrategy[Any]]] = {
        Server: {"network": NETWORKS, "wg_network": NETWORKS, "network6": NETWORKS, "ipv6": st.booleans()},
        Route: {"network": NETWORKS, "netmap": NETWORKS, "nat": st.booleans(), "net_gateway": st.booleans()},
        SplitDomain: {"domain": st.sampled_from(["Corp.Example", "corp.example", "-", ""])},
        ClientNetwork: {"network": NETWORKS, "active": st.booleans()},
    }
    return model, {name: draw(values) for name, values in fields[model].items()}


def values(row: models.Model) -> dict[str, Any]:
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}


class AnyRow(TestCase):
    @settings(deadline=None)
    @given(rows(), st.booleans())
    def test_a_rule_changes_nothing_and_the_one_spelling_is_its_own(
        self, drawn: tuple[type[registry.Ruled], dict[str, Any]], saved: bool
    ) -> None:
        model, fields = drawn
        company = found()
        user, _ = company.hire("alice")
        if saved and model is Server:
            row: Any = Server.objects.get()
        elif saved and model is ClientNetwork:
            row = ClientNetwork.objects.create(server=company.server, user=user, network="172.20.0.0/24", active=True)
        else:
            row = model(**{} if model is Server else {"server": company.server})
            if model is ClientNetwork:
                row.user = user
        for name, value in fields.items():
            setattr(row, name, value)
        row.normalize()
        once = values(row)
        row.normalize()
        assert values(row) == once
        with contextlib.suppress(ValidationError):
            registry.judge(row)
        assert values(row) == once


@pytest.mark.django_db
def test_code_that_saves_by_itself_saves_the_one_spelling() -> None:
    server = found().server
    server.wg_network, server.ipv6 = "10.77.0.0/255.255.255.0", True
    server.save(update_fields=["wg_network", "ipv6"])
    Route.objects.create(server=server, network="192.168.7.0/255.255.255.0", net_gateway=True)
    SplitDomain.objects.create(server=server, domain="Corp.Example", dns_servers="10.0.0.1")
    server.refresh_from_db()
    assert (server.wg_network, server.network6) == ("10.77.0.0/24", "fd56:504e:a4d::/64")
    assert Route.objects.values_list("network", "nat").get() == ("192.168.7.0/24", False)
    assert SplitDomain.objects.get().domain == "corp.example"
