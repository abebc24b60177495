"""LDAP: a directory (Active Directory, OpenLDAP) judges the password, and says who is in which group."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from users.factors import silence
from users.factors.asked_servers import name_of
from users.factors.base import (
    NOT_CONFIGURED,
    AskedFactor,
    Case,
    Contribution,
    Denied,
    Factor,
    Outcome,
    Passed,
    TypedSecret,
    Unavailable,
)
from users.factors.once import once
from users.factors.panels import NotDone
from users.factors.providers import ProviderConfig, ProviderForm

from . import directory as directories
from .directory import Directory, DirectoryRefused
from .form import LdapForm
from .secured import Down

HOW_TO_INSTALL = (
    "Install it with apt-get install gcc python3-dev libldap2-dev libsasl2-dev, then "
    ".venv/bin/pip install -r requirements-ldap.txt, and start the server anew."
)
LONGEST_PASSWORD = 256


def directory_of(provider: ProviderConfig) -> Directory:
    said, search = provider.settings, provider.settings["how"] == "search"
    return Directory(
        ca=said["ca"],
        bind_dn=said["bind_dn"],
        bind_password=provider.secrets["bind_password"],
        base=said["base"],
        user_filter=said["user_filter"],
        dn_template="" if search else said["dn_template"],
        group=said["group"],
        nested=said["nested"],
        group_base=said["group_base"],
        timeout=said["timeout"],
    )


def servers_of(provider: ProviderConfig) -> list[str]:
    return str(provider.settings["servers"]).split()


class Ldap(Factor):
    kind: ClassVar[str] = "ldap"
    label: ClassVar[str] = "LDAP password"
    has_enrolments: ClassVar[bool] = False  # who is known there, only the directory knows
    typed: ClassVar[TypedSecret | None] = TypedSecret()
    provider_form: ClassVar[type[ProviderForm] | None] = LdapForm
    can_be_tried: ClassVar[bool] = True
    not_enrolled: ClassVar[str] = "Your account cannot be asked about in the directory. Ask your administrator."
    sentences: ClassVar[Mapping[str, str]] = {
        "wrong": "The directory refused the user's password.",
        "unknown": "The search found nobody of the user's name in the directory.",
        "ambiguous": "The search found several entries for one user: make the filter narrower.",
        "not_in_group": "The password was right, and the user is not in the group that is asked for.",
        "too_many_groups": "The user is in more groups than are looked through one by one.",
        "no_email": "The directory is asked about users by their e-mail address, and this user has none.",
        "unusable": "A directory is not asked about what was typed: no password, or one that no directory takes.",
        "unavailable": "No server of the directory answered in time. “Try it” on the provider's page says more.",
        "bad_certificate": "The certificate of the directory's server is not of who it says it is: it has expired, is "
        "for another name, or was signed by nobody who is trusted; or somebody else answers.",
        "service_account": "The directory refused our own account: its password has changed or expired, or it is "
        "disabled.",
        "no_starttls": "A server of the directory does not encrypt: it refused StartTLS.",
        "misconfigured": "The directory could not do what it was asked: look at the base, the filter and the DNs on "
        "the provider's page, and at what our account may read.",
    }

    def missing(self) -> str:
        return "" if directories.INSTALLED else HOW_TO_INSTALL

    def check(self, case: Case, secret: str) -> Outcome:
        """Nothing is sent: what is wrong there costs the user one of few attempts."""
        provider = case.asked.provider
        if provider is None:
            return NOT_CONFIGURED
        name = name_of(case.user, provider)
        if not name:
            return Denied("no_email")
        # A bind without a password succeeds at many directories, as nobody.
        usable = 0 < len(secret) <= LONGEST_PASSWORD and "\0" not in secret + name
        return Passed() if usable else Denied("unusable")

    def claim(self, case: Case, secret: str) -> Outcome:
        provider = case.asked.provider
        if provider is None:
            return NOT_CONFIGURED
        return once(case, secret, partial(_ask, case, provider, secret), provider.settings["patience"])

    def try_out(self, provider: ProviderConfig) -> str:
        wrong = {server: said for server in servers_of(provider) if (said := self._tried(server, provider))}
        if wrong:
            raise NotDone(" ".join(f"{server}: {said}" for server, said in wrong.items()))
        return "Each server answered, with a certificate that is right."

    def _tried(self, server: str, provider: ProviderConfig) -> str:
        """What is wrong with it; empty: nothing."""
        asked, ends = directory_of(provider), time.monotonic() + provider.settings["patience"]
        try:
            directories.try_out(server, asked, ends)
        except Down as error:
            return self.sentence(error.code)
        except DirectoryRefused as error:
            return self.sentence(error.args[0])
        return ""

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(mode="password")


def _ask(case: Case, provider: ProviderConfig, password: str) -> Outcome:
    name, asked = name_of(case.user, provider), directory_of(provider)
    ends = time.monotonic() + provider.settings["patience"]
    why = "unavailable"
    for server in silence.in_order(provider.public_id, servers_of(provider)):
        try:
            directories.judge(server, asked, name, password, ends)
        except DirectoryRefused as error:
            code, *detail = error.args
            return Denied(code, *detail)
        except Down as error:
            why = error.code
            if why == "service_account":
                break  # or it would be locked by as many attempts as there are servers
            silence.remember(provider.public_id, server)
        else:
            return Passed()
    return Unavailable(why)
