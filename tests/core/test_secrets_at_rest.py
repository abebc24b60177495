"""Secrets in the database are ciphertext, whoever looks, and can be encrypted anew while the system runs."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.apps import apps
from django.conf import LazySettings
from django.core import serializers
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from core import crypto
from core.crypto import CannotDecrypt, Secret, SecretField
from core.management.commands import rotate_keys
from servers.models import Server
from tests.attempts import TOTP_SECRET, enrol
from tests.conftest import Clock
from tests.factories import Company, found
from tests.protocol_client import NOW
from users.models import Organization, VpnUser
from wgpeers.models import ProfileLink
from wgpeers.profiles import links

OLD, NEW = Fernet.generate_key(), Fernet.generate_key()
PLAIN = ["the-token", "the-sync-secret", "the-private-key", TOTP_SECRET, "the-ca-key", "the-box-key"]


@pytest.fixture
def company(db: None, fixed_clock: Clock, settings: LazySettings) -> Company:
    settings.FIELD_KEYS = [OLD]
    return found()


@pytest.fixture
def alice(company: Company) -> VpnUser:
    """One secret in every secret field there is."""
    user, _ = company.hire("alice")
    user = enrol(user, totp=True)
    values = {"sync_token": "the-token", "sync_secret": "the-sync-secret", "private_key": "the-private-key"}
    VpnUser.objects.filter(pk=user.pk).update(**{name: Secret.of(plain) for name, plain in values.items()})
    Organization.objects.update(ca_private_key=Secret.of("the-ca-key"))
    Server.objects.update(box_private_key=Secret.of("the-box-key"))
    links.create(user, NOW)
    return VpnUser.objects.get(pk=user.pk)


def stored() -> list[str]:
    """Everything in the columns of all secret fields, by raw SQL."""
    texts: list[str] = []
    with connection.cursor() as cursor:
        for model, names in rotate_keys.secret_fields():
            for name in names:
                cursor.execute(f"SELECT {name} FROM {model._meta.db_table}")  # noqa: S608
                texts += [text for (text,) in cursor.fetchall() if text]
    return texts


def test_every_secret_column_holds_ciphertext_and_nothing_else(alice: VpnUser) -> None:
    texts = stored()
    assert len(texts) == 8  # three of the user, their TOTP secret, the CA's, the box's, two of the link
    assert all(text.startswith("gAAAA") for text in texts)
    assert set(PLAIN) < set(map(crypto.decrypt, texts))


def test_the_database_holds_no_secret_in_any_table(alice: VpnUser) -> None:
    link = ProfileLink.objects.get()
    secrets = [*PLAIN, link.key_id.reveal(), link.short_id.reveal()]
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names():
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608
            text = repr(cursor.fetchall())
            assert not [secret for secret in secrets if secret in text], table


def test_dumpdata_shows_ciphertext_and_loaddata_reads_it_back(alice: VpnUser) -> None:
    out = io.StringIO()
    call_command("dumpdata", "users", "servers", "wgpeers", stdout=out)
    assert not [secret for secret in PLAIN if secret in out.getvalue()]
    for loaded in serializers.deserialize("json", out.getvalue()):
        if isinstance(loaded.object, VpnUser):
            assert loaded.object.sync_secret.reveal() == "the-sync-secret"


@pytest.mark.parametrize("wrong", ["plain text", b"bytes", 7, object()])
def test_plain_text_cannot_be_stored(alice: VpnUser, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"Secret\.of"), transaction.atomic():
        VpnUser.objects.filter(pk=alice.pk).update(sync_secret=wrong)
    alice.sync_secret = wrong
    with pytest.raises(TypeError, match=r"Secret\.of"), transaction.atomic():
        alice.save()
    assert VpnUser.objects.get(pk=alice.pk).sync_secret.reveal() == "the-sync-secret"


@pytest.mark.parametrize("key", [NEW, None], ids=["wrong key", "broken row"])
def test_with_a_wrong_key_or_a_broken_row_it_is_cannot_decrypt(
    alice: VpnUser, settings: Any, key: bytes | None
) -> None:
    secret = alice.sync_secret if key else Secret(alice.sync_secret.stored[:-8] + "AAAAAAA=")
    settings.FIELD_KEYS = [key or OLD]
    with pytest.raises(CannotDecrypt) as refused:
        secret.reveal()
    assert secret.stored not in str(refused.value)
    assert refused.value.__cause__ is None


def test_an_old_key_still_opens_and_the_newest_one_encrypts(alice: VpnUser, settings: LazySettings) -> None:
    settings.FIELD_KEYS = [NEW, OLD]
    assert alice.sync_secret.reveal() == "the-sync-secret"
    assert Fernet(NEW).decrypt(Secret.of("fresh").stored.encode()) == b"fresh"


def test_secrets_never_equal_by_chance(alice: VpnUser) -> None:
    assert Secret.of("same") != Secret.of("same")
    assert len(set(stored())) == len(stored())


def test_keyed_hashes_differ_by_purpose_and_by_where_parts_begin(settings: LazySettings) -> None:
    same = crypto.keyed_hash("a", "bc", "d")
    assert same == crypto.keyed_hash("a", "bc", "d")
    others = [("a", "b", "cd"), ("a", "bcd"), ("a", "bc", "d", ""), ("x", "bc", "d")]
    assert same not in {crypto.keyed_hash(*other) for other in others}
    settings.FIELD_KEYS = [NEW]
    assert same != crypto.keyed_hash("a", "bc", "d")


# Rotation


def rotate(*options: str) -> str:
    out = io.StringIO()
    call_command("rotate_keys", *options, stdout=out)
    return out.getvalue()


def test_rotation_encrypts_all_anew_and_says_when_old_keys_can_go(alice: VpnUser, settings: LazySettings) -> None:
    before = sorted(map(crypto.decrypt, stored()))
    settings.FIELD_KEYS = [NEW, OLD]
    said = rotate("--batch", "1")
    assert "users.VpnUser: 1 rows, 3 secrets encrypted anew" in said
    assert "the other keys can be dropped" in said
    settings.FIELD_KEYS = [NEW]
    assert sorted(map(crypto.decrypt, stored())) == before


def test_rotation_knows_every_model_with_a_secret() -> None:
    found_fields = {(model, name) for model, names in rotate_keys.secret_fields() for name in names}
    all_fields = {
        (model, field.attname)
        for model in apps.get_models()
        for field in model._meta.get_fields()
        if isinstance(field, SecretField)
    }
    assert found_fields == all_fields
    assert len(found_fields) >= 8


def test_a_second_rotation_changes_nothing(alice: VpnUser, settings: LazySettings) -> None:
    settings.FIELD_KEYS = [NEW, OLD]
    rotate()
    before = stored()
    assert "users.VpnUser: 1 rows, 0 secrets encrypted anew" in rotate()
    assert stored() == before


def test_with_one_key_there_is_nothing_to_drop(alice: VpnUser) -> None:
    assert "holds no other key" in rotate()


def test_rotation_in_batches_meets_every_row_once(company: Company, settings: LazySettings) -> None:
    token = Secret.of("x")
    new = [
        VpnUser(organization=company.organization, name=f"u{n}", sync_token=token, sync_secret=token) for n in range(25)
    ]
    VpnUser.objects.bulk_create(new)
    settings.FIELD_KEYS = [NEW, OLD]
    assert "users.VpnUser: 25 rows, 50 secrets encrypted anew" in rotate("--batch", "4")
    settings.FIELD_KEYS = [NEW]
    assert {user.sync_token.reveal() for user in VpnUser.objects.all()} == {"x"}


def test_a_secret_that_changes_meanwhile_keeps_its_new_value(
    alice: VpnUser, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody whose process still has the old key gives the user a new secret between our look and our write."""
    settings.FIELD_KEYS = [NEW, OLD]
    look: Callable[..., bool] = rotate_keys.Command._is_new
    written = iter(["while it ran"])

    def look_and_be_overtaken(self: rotate_keys.Command, secret: Secret) -> bool:
        answer = look(self, secret)
        if secret.stored == alice.sync_secret.stored and (text := next(written, None)):
            late = Secret(Fernet(OLD).encrypt(text.encode()).decode())
            VpnUser.objects.filter(pk=alice.pk).update(sync_secret=late)
        return answer

    monkeypatch.setattr(rotate_keys.Command, "_is_new", look_and_be_overtaken)
    assert "can be dropped" in rotate()
    settings.FIELD_KEYS = [NEW]
    alice.refresh_from_db()
    assert alice.sync_secret.reveal() == "while it ran"


def test_what_no_key_opens_is_named_and_no_key_may_be_dropped(alice: VpnUser, settings: LazySettings) -> None:
    settings.FIELD_KEYS = [NEW]
    errors = io.StringIO()
    with pytest.raises(CommandError, match="Drop no key"):
        call_command("rotate_keys", stdout=io.StringIO(), stderr=errors)
    assert f"users.VpnUser {alice.pk}: sync_secret opens with none of FIELD_KEYS" in errors.getvalue()
    settings.FIELD_KEYS = [OLD]
    assert alice.sync_secret.reveal() == "the-sync-secret"


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(CommandError, match="--batch"):
        rotate("--batch", "0")
