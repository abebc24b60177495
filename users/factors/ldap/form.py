"""What there is to say of a directory that is asked by LDAP."""

from __future__ import annotations

import re
from typing import ClassVar

from cryptography import x509
from django import forms

from users.factors.asked_servers import ServersForm

MOST_SERVERS = 8
_SERVER = re.compile(r"ldaps?://(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]@?#%]+)(:\d{1,5})?/?")
PLACE = "{user}"


class LdapForm(ServersForm):
    help_texts: ClassVar[dict[str, str]] = {
        "servers": "A line each, in the order in which they are asked: ldaps://HOST, or ldap://HOST, which is then "
        "encrypted by StartTLS. By the name that the server's certificate is for.",
        "timeout": "Seconds, for each step of asking it.",
    }
    field_order = [
        "servers",
        "ca",
        "name_from",
        "how",
        "bind_dn",
        "bind_password",
        "base",
        "user_filter",
        "dn_template",
        "group",
        "nested",
        "group_base",
        "timeout",
        "patience",
    ]
    ca = forms.CharField(
        label="CA certificate",
        widget=forms.Textarea(attrs={"rows": 3}),
        required=False,
        help_text="PEM, of who signs the servers' certificates. Empty: who is trusted by this machine.",
    )
    how = forms.ChoiceField(
        label="How users are found",
        choices=[("search", "searched for, by an account of ours"), ("template", "by a DN that is made of their name")],
        initial="search",
    )
    bind_dn = forms.CharField(label="Our account's DN", required=False)
    bind_password = forms.CharField(
        label="Our account's password", widget=forms.PasswordInput, strip=False, required=False
    )
    base = forms.CharField(label="Search below", required=False, help_text="Such as ou=people,dc=example,dc=com.")
    user_filter = forms.CharField(
        label="Filter",
        required=False,
        initial="(&(objectClass=person)(uid={user}))",
        help_text="It must find one entry. In Active Directory: (&(objectClass=user)(sAMAccountName={user})).",
    )
    dn_template = forms.CharField(
        label="DN of a user", required=False, help_text="Such as uid={user},ou=people,dc=example,dc=com."
    )
    group = forms.CharField(
        label="Group", required=False, help_text="Its DN; users who are no members are refused. Empty: no group."
    )
    nested = forms.ChoiceField(
        label="Groups in groups",
        choices=[
            ("direct", "do not count"),
            ("chain", "count, and Active Directory looks (matching rule in chain)"),
            ("walk", "count, and are looked for one by one"),
        ],
        initial="direct",
    )
    group_base = forms.CharField(
        label="Search groups below", required=False, help_text="For groups that are looked for one by one."
    )
    secret_fields: ClassVar[frozenset[str]] = frozenset({"bind_password"})

    def clean_servers(self) -> str:
        servers = str(self.cleaned_data["servers"]).split()
        if wrong := [each for each in servers if not _SERVER.fullmatch(each)]:
            raise forms.ValidationError(
                f"{wrong[0]} is no server: write ldaps://HOST or ldap://HOST, and :PORT behind it."
            )
        if len(servers) > MOST_SERVERS or len(set(servers)) < len(servers):
            raise forms.ValidationError(f"At most {MOST_SERVERS} servers, each once.")
        return "\n".join(each.rstrip("/") for each in servers)

    def clean_ca(self) -> str:
        pem = str(self.cleaned_data["ca"])
        if pem:
            try:
                x509.load_pem_x509_certificates(pem.encode())
            except ValueError:
                raise forms.ValidationError("This is no certificate in PEM.") from None
        return pem

    def clean_user_filter(self) -> str:
        text = str(self.cleaned_data["user_filter"])
        if text and (text.count("(") != text.count(")") or not text.startswith("(") or PLACE not in text):
            raise forms.ValidationError(f"A filter is in parentheses, and {PLACE} stands for who is looked for.")
        return text

    def clean_dn_template(self) -> str:
        text = str(self.cleaned_data["dn_template"])
        if text and ("=" not in text or PLACE not in text):
            raise forms.ValidationError(f"A DN has an equals sign, and {PLACE} stands for who it is.")
        return text

    def clean(self) -> None:
        super().clean()
        said = self.cleaned_data
        search = ("bind_dn", "bind_password", "base", "user_filter")
        needed = search if said.get("how") == "search" else ("dn_template",)
        if said.get("nested") == "walk" and said.get("group"):
            needed = (*needed, "group_base")
        for name in needed:
            if name not in self.errors and not said.get(name):
                self.add_error(name, "This is needed for what is chosen.")
