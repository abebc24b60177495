"""What there is to say of a SAML identity provider."""

from __future__ import annotations

from typing import ClassVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django import forms

from core.text_or_file import TextOrFile
from users.factors.providers import ProviderForm
from users.signin.addresses import is_ours

from . import metadata
from .xml import Unusable


class SamlProviderForm(ProviderForm):
    """``our_key`` is used with ``our_certificate`` alone. Attributes that are required are ``name=value``."""

    metadata = forms.CharField(
        label="The provider's metadata",
        widget=TextOrFile(attrs={"rows": 6, "maxlength": metadata.LONGEST}),
        max_length=metadata.LONGEST,
        help_text="XML, as the provider gives it for download. Of it we take who it is, where to sign in and its "
        "certificates; it is not fetched again, so give the new one before the provider changes its certificate.",
    )
    our_address = forms.CharField(
        label="Our address",
        required=False,
        initial="",
        help_text="https:// and the name at which browsers reach this server. Tell the provider this address to post "
        "its answers to (ACS): it with /sso/saml/acs behind it. Empty: the first of API_URLS.",
    )
    entity_id = forms.CharField(
        label="Our entity id",
        required=False,
        initial="",
        max_length=1024,
        help_text="How the provider calls us; its audience. Empty: our address with /sso/saml behind it.",
    )
    id_attribute = forms.CharField(
        label="Attribute that never changes",
        required=False,
        initial="",
        max_length=300,
        help_text="By it an account is known after the first sign-in. Empty: the NameID, which then must not be "
        "transient. How Entra ID calls these attributes, docs/FACTORS.md says.",
    )
    address_attribute = forms.CharField(
        label="Attribute that has the e-mail address",
        required=False,
        initial="",
        max_length=300,
        help_text="Empty: the NameID. Choose one that nobody can write in their own account.",
    )
    groups_attribute = forms.CharField(
        label="Attribute that has the groups",
        required=False,
        initial="",
        max_length=300,
    )
    split_groups = forms.BooleanField(
        label="Split groups",
        required=False,
        initial=False,
        help_text="At semicolons, where all of them come in one text.",
    )
    required_attributes = forms.CharField(
        label="Required attributes",
        required=False,
        initial="",
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="name=value, one a line; an account without them is refused.",
    )
    fresh = forms.BooleanField(
        label="Sign in anew each time",
        required=False,
        initial=False,
        help_text="The provider is asked for it (ForceAuthn), and an answer that says it was longer ago is refused.",
    )
    our_certificate = forms.CharField(
        label="Our certificate",
        required=False,
        initial="",
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="PEM; to sign our requests, where the provider wants that. Empty: they are not signed.",
    )
    our_key = forms.CharField(
        label="Its key",
        required=False,
        initial="",
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="PEM, RSA of 2048 bits or more, without a passphrase.",
    )
    secret_fields: ClassVar[frozenset[str]] = frozenset({"our_key"})

    def clean_metadata(self) -> str:
        text = str(self.cleaned_data["metadata"])
        try:
            metadata.read(text)
        except Unusable as error:
            raise forms.ValidationError(str(error)) from None
        return text

    def clean_our_address(self) -> str:
        said = str(self.cleaned_data["our_address"])
        if not is_ours(said):
            raise forms.ValidationError("Say where browsers reach this server: https:// and a name.")
        return said

    def clean_required_attributes(self) -> str:
        said = str(self.cleaned_data["required_attributes"])
        if any("=" not in line for line in said.splitlines() if line.strip()):
            raise forms.ValidationError("Each line is name=value.")
        return said

    def clean(self) -> None:
        data = self.cleaned_data
        if "metadata" not in data or "our_certificate" not in data:
            return
        if data["our_certificate"]:
            try:
                signing_pair(str(data["our_certificate"]), str(data.get("our_key") or ""))
            except ValueError as error:
                self.add_error("our_certificate", str(error))
        elif metadata.read(str(data["metadata"])).wants_signed:
            self.add_error(
                "our_certificate", "This provider takes signed requests only: give a certificate and its key."
            )


def signing_pair(certificate: str, key: str) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    """Both in PEM. Raise ``ValueError``, with words for administrators."""
    try:
        found = x509.load_pem_x509_certificate(certificate.encode())
        # It is read at every connect, and the full check takes some hundred milliseconds.
        private = load_pem_private_key(key.encode(), None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError):
        raise ValueError("This and its key must both be in PEM, and the key without a passphrase.") from None
    if not isinstance(private, rsa.RSAPrivateKey) or private.key_size < 2048:
        raise ValueError("Its key must be RSA of 2048 bits or more.")
    if found.public_key() != private.public_key():
        raise ValueError("This is not the certificate of that key.")
    return found, private
