"""What there is to say of an OpenID Connect provider."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from django import forms

from users.factors.asking import WebAddress
from users.factors.providers import ProviderForm
from users.signin.addresses import is_ours, is_plain

from .directories import DIRECTORIES, google
from .presets import PRESETS

_DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~/-]*(:[0-9]{1,5})?[A-Za-z0-9._~/-]*", re.ASCII)
_SCOPES = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+( [\x21\x23-\x5B\x5D-\x7E]+)*", re.ASCII)


class OidcProviderForm(ProviderForm):
    """A preset fills what is left empty. Claims that are required are ``name=value``, one a line."""

    preset = forms.ChoiceField(
        label="Provider",
        choices=[("", "another one"), *((key, each.label) for key, each in PRESETS.items())],
        required=False,
        initial="",
    )
    domain = forms.CharField(
        label="Your domain there",
        required=False,
        initial="",
        help_text="; ".join(f"{each.label}: {each.domain_is}" for each in PRESETS.values() if each.domain_is) + ".",
    )
    issuer = forms.CharField(
        label="Issuer",
        required=False,
        initial="",
        help_text="As the provider writes it, to the letter. Empty: as the provider above has it.",
    )
    client_id = forms.CharField(label="Client id", max_length=255)
    client_secret = forms.CharField(label="Client secret", max_length=1000, widget=forms.PasswordInput)
    our_address = forms.CharField(
        label="Our address",
        required=False,
        initial="",
        help_text="https:// and the name at which browsers reach this server. Tell the provider this redirect address: "
        "it with /sso/back behind it. Empty: the first of API_URLS.",
    )
    scopes = forms.CharField(label="Scopes", required=False, initial="", help_text="Empty: the provider's usual ones.")
    groups_claim = forms.CharField(label="Claim that has the groups", required=False, initial="", max_length=200)
    required_claims = forms.CharField(
        label="Required claims",
        required=False,
        initial="",
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="name=value, one a line; an account without them is refused. For Google Workspace: hd=acme.example.",
    )
    ask_again = forms.IntegerField(
        label="Ask again every so many minutes",
        required=False,
        initial=0,
        min_value=0,
        max_value=1440,
        help_text="About who is connected, by a refresh token: whoever is disabled there, or is in none of a server's "
        "groups any more, is disconnected. 0: never. The provider must allow it (offline_access), or have a directory.",
    )
    patience = forms.IntegerField(
        label="Disconnect them while it is silent for so many minutes",
        required=False,
        initial=0,
        min_value=0,
        max_value=10080,
        help_text="0: never, a provider that is down disconnects nobody.",
    )
    trust_addresses = forms.BooleanField(
        label="All addresses there are verified",
        required=False,
        initial=False,
        help_text="Take an account's address without the provider saying that it is verified. Only where nobody can "
        "write another's address into their own account.",
    )
    authorities = forms.CharField(
        label="Certificates to verify it with",
        required=False,
        initial="",
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="PEM; empty: those that this system trusts.",
    )
    directory = forms.BooleanField(
        label="Ask its directory about accounts",
        required=False,
        initial=False,
        help_text="Google and Microsoft Entra ID: whether an account is disabled, and in which groups it is, at each "
        "sign-in and as often as is said above, in the place of refresh tokens and of the claim that has the groups.",
    )
    directory_admin = forms.EmailField(
        label="Administrator for the directory",
        required=False,
        initial="",
        help_text="Google: whom the service account stands for. It may read users and groups.",
    )
    directory_key = forms.CharField(
        label="Key of a service account",
        required=False,
        initial="",
        max_length=10_000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Google: the file that was downloaded (JSON), of a service account with domain-wide delegation.",
    )
    directory_address = WebAddress(
        label="Address of the directory",
        required=False,
        initial="",
        help_text="Of a national cloud, say. Empty: the provider's usual one.",
    )
    secret_fields: ClassVar[frozenset[str]] = frozenset({"client_secret", "directory_key"})

    def clean(self) -> None:
        data = self.cleaned_data
        preset = PRESETS.get(data.get("preset") or "")
        domain = data.get("domain") or ""
        if domain and not _DOMAIN.fullmatch(domain):
            self.add_error("domain", "That is no name of a domain.")
        elif preset and not data.get("issuer"):
            if preset.domain_is and not domain:
                self.add_error("domain", f"{preset.label} needs it: {preset.domain_is}.")
                return
            data["issuer"] = preset.issuer.format(domain=domain)
        for name in ("ask_again", "patience"):
            data[name] = data.get(name) or 0
        self._check_directory(data)
        if data["ask_again"] and preset and preset.lasting is None:
            self.add_error("ask_again", f"{preset.label} gives no refresh tokens.")
        data["scopes"] = data.get("scopes") or (preset.scopes if preset else "openid email profile")
        data["groups_claim"] = data.get("groups_claim") or (preset.groups_claim if preset else "groups")
        self._check(data)

    def _check_directory(self, data: dict[str, Any]) -> None:
        preset, key = data.get("preset") or "", data.get("directory_key") or ""
        if data.get("directory") and preset not in DIRECTORIES:
            names = " and ".join(PRESETS[each].label for each in DIRECTORIES)
            self.add_error("directory", f"Of {names} alone we know how to ask it: say above that it is one of them.")
        elif data.get("directory") and preset == "google":
            if not data.get("directory_admin"):
                self.add_error("directory_admin", "The service account must stand for an administrator.")
            if not key:
                self.add_error("directory_key", "Google's directory is asked by a service account.")
        account = google.service_account(key) if key else None
        if key and (account is None or not is_plain(account["token_uri"])):
            self.add_error("directory_key", "That is no key of a service account, as Google's console gives it (JSON).")
        address = data.get("directory_address")
        if address and not is_plain(address):
            self.add_error("directory_address", "It begins with https://.")

    def _check(self, data: dict[str, object]) -> None:
        if not is_plain(str(data.get("issuer") or "")):
            self.add_error("issuer", "An issuer is an address that begins with https://.")
        if not is_ours(str(data.get("our_address") or "")):
            self.add_error("our_address", "Say where browsers reach this server: https:// and a name.")
        scopes = str(data["scopes"])
        if not _SCOPES.fullmatch(scopes) or "openid" not in scopes.split():
            self.add_error("scopes", "Words with one space between; openid is one of them.")
        if any("=" not in line for line in str(data.get("required_claims") or "").splitlines() if line.strip()):
            self.add_error("required_claims", "Each line is name=value.")
