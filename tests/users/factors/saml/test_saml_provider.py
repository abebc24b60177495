"""What administrators do with a SAML provider: its metadata as text and file, our key, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from tests.admin_site import form_data, messages, staff
from users.factors.saml.form import SamlProviderForm
from users.factors.saml.metadata import LONGEST
from users.models import Enrolment, Provider

from .attempts import OURS, SamlVisit
from .liar import SamlLiar, a_key, certificate_of, metadata_of, pem_of

ADD = "/admin/users/provider/add/?kind=saml"
RIGHT = metadata_of(certificate_of(a_key()))


def errors_of(**said: Any) -> list[str]:
    form = SamlProviderForm({"metadata": RIGHT, "our_address": OURS, **said})
    return [name for name, all_ in form.errors.items() if all_]


SMALL = metadata_of(certificate_of(rsa.generate_private_key(65537, 1024)))  # noqa: S505 that is what is refused


@pytest.mark.parametrize(
    ("metadata", "word"),
    [
        ("", "required"), ("no XML", "no XML"), ("<a/>", "EntityDescriptor"), (RIGHT[:-30], "no XML"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + RIGHT[39:], "document type"),
        (RIGHT.replace("https://id.acme.example/saml", "&x;"), "no XML"),
        (RIGHT.replace("X509Certificate>", "X509Certificate><![CDATA[x]]>", 1), "document type"),
        (RIGHT.replace("IDPSSODescriptor", "SPSSODescriptor"), "IDPSSODescriptor"),
        (RIGHT.replace("SAML:2.0:protocol", "SAML:1.1:protocol"), "IDPSSODescriptor"),
        (RIGHT.replace('entityID="https://id.acme.example/saml"', 'entityID=""'), "entityID"),
        (RIGHT.replace("bindings:HTTP-Redirect", "bindings:SOAP"), "HTTP-Redirect"),
        (RIGHT.replace("https://id.acme.example/sso", "http://id.acme.example/sso"), "https"),
        (RIGHT.replace("https://id.acme.example/sso", "javascript:alert(1)//"), "https"),
        (metadata_of(), "certificates"), (SMALL, "2048"),
        (RIGHT.replace('use="signing"', 'use="encryption"'), "certificates"),
        (RIGHT.replace("<ds:X509Certificate>", "<ds:X509Certificate>AAAA"), "cannot be read"),
        (metadata_of(certificate_of(a_key()), more='WantAuthnRequestsSigned="true"'), "signed requests only"),
        (f"{RIGHT}<!--{'x' * LONGEST}-->", str(LONGEST)),
    ],
    ids=lambda value: value[:0] if len(value) > 40 else value,
)  # fmt: skip
def test_metadata_that_cannot_be_used(metadata: str, word: str) -> None:
    form = SamlProviderForm({"metadata": metadata, "our_address": OURS})
    assert not form.is_valid()
    assert word in str(form.errors), form.errors


def test_metadata_as_others_write_it() -> None:
    """A comment, a byte-order mark, no declaration."""
    assert errors_of(metadata=RIGHT.replace("<md:IDPSSO", "<!-- who\nis there --><md:IDPSSO", 1)) == []
    assert errors_of(metadata="\ufeff" + RIGHT) == []
    assert errors_of(metadata=RIGHT.partition("?>")[2]) == []
    assert errors_of(metadata=RIGHT.replace('use="signing"', "")) == []


def test_what_is_wrong_stands_at_its_field() -> None:
    key, pem = pem_of(a_key("ours")), certificate_of(a_key("ours")).public_bytes(Encoding.PEM).decode()
    curve = ec.generate_private_key(ec.SECP256R1())
    assert errors_of(our_certificate=pem, our_key=key) == []
    assert errors_of(our_key=key) == []
    assert errors_of(our_certificate=pem) == ["our_certificate"]
    assert errors_of(our_certificate=pem, our_key="x") == ["our_certificate"]
    assert errors_of(our_certificate="x", our_key=key) == ["our_certificate"]
    assert errors_of(our_certificate=pem, our_key=pem_of(a_key())) == ["our_certificate"]
    of_curve = certificate_of(curve).public_bytes(Encoding.PEM).decode()
    assert errors_of(our_certificate=of_curve, our_key=pem_of(curve)) == ["our_certificate"]
    assert errors_of(our_address="http://vpn.acme.example") == ["our_address"]
    assert errors_of(our_address="https://vpn.acme.example/vpn") == ["our_address"]
    assert errors_of(required_attributes="tenant") == ["required_attributes"]


def save(client: Client, url: str, **changes: Any) -> Any:
    data = form_data(client.get(url)) | {"name": "Acme", "our_address": OURS} | changes
    return client.post(url, data)


def test_a_file_goes_before_what_stands_in_the_text(client: Client, db: None) -> None:
    staff(client, superuser=True)
    shown = client.get(ADD).content.decode()
    assert 'enctype="multipart/form-data"' in shown
    assert save(client, ADD, metadata="x").status_code == 200
    file = SimpleUploadedFile("metadata.xml", b"\xef\xbb\xbf" + RIGHT.encode())
    assert save(client, ADD, **{"metadata": "x", "metadata-file": file}).status_code == 302
    row = Provider.objects.get()
    assert row.settings["metadata"] == RIGHT
    page = f"/admin/users/provider/{row.pk}/change/"
    assert save(client, page, address_attribute="mail").status_code == 302
    assert {"metadata": RIGHT, "address_attribute": "mail"}.items() <= Provider.objects.get().settings.items()


@pytest.mark.parametrize("content", [b"\x00\xff" * 100, b"<a/>", b" " * (4 * LONGEST + 10)])
def test_a_file_that_cannot_be_used_changes_nothing(client: Client, db: None, content: bytes) -> None:
    staff(client, superuser=True)
    answer = save(client, ADD, **{"metadata-file": SimpleUploadedFile("metadata.xml", content)})
    assert answer.status_code == 200
    assert answer.context["adminform"].form.errors["metadata"]
    assert not Provider.objects.exists()


def test_our_key_is_kept_encrypted_and_never_shown(client: Client, db: None) -> None:
    staff(client, superuser=True)
    key, pem = pem_of(a_key("ours")), certificate_of(a_key("ours")).public_bytes(Encoding.PEM).decode()
    assert save(client, ADD, metadata=RIGHT, our_certificate=pem, our_key=key).status_code == 302
    row = Provider.objects.get()
    assert "PRIVATE" not in f"{row.settings} {row.secrets.stored} {row!r}"
    page = f"/admin/users/provider/{row.pk}/change/"
    assert "PRIVATE" not in client.get(page).content.decode()
    assert save(client, page, our_key="").status_code == 302
    assert key.strip() in Provider.objects.get().secrets.reveal().replace("\\n", "\n")


def test_trying_one_says_what_the_provider_must_know(client: Client, db: None) -> None:
    staff(client, superuser=True)
    save(client, ADD, metadata=RIGHT)
    row = Provider.objects.get()
    said = str(messages(client, f"/admin/users/provider/{row.pk}/do/try_out/", {}))
    for text in (f"{OURS}/sso/saml/acs", f"{OURS}/sso/saml/{row.public_id}", "2029-12-29"):
        assert text in said


def test_an_account_that_is_forgotten_can_be_another(client: Client, visit: SamlVisit, liar: SamlLiar) -> None:
    assert visit.outcome(liar) == "allowed"
    assert SamlVisit(visit.identity).outcome(liar, name="another") == "saml_other_account"
    staff(client, superuser=True)
    user = Enrolment.objects.get(kind="saml").user
    page = f"/admin/users/vpnuser/{user.pk}/change/"
    assert "Single sign-on (SAML)" in client.get(page).content.decode()
    client.post(f"/admin/users/vpnuser/{user.pk}/do/act_on_factor/", {"factor": "saml", "action": "forget"})
    assert SamlVisit(visit.identity).outcome(liar, name="another") == "allowed"
