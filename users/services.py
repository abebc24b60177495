"""What administrators do to people, the same by every door."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.contrib.auth.models import User as Administrator
from django.db import transaction

from core.changes import after_commit
from core.names import key_of
from core.task_names import MAKE_MISSING

from .lists.planning import Person
from .models import Group, OneTimePassword, Organization, VpnUser


def set_enabled(users: Iterable[VpnUser], enabled: bool) -> list[VpnUser]:
    """Enable or disable users; those who were not so yet. Who is disabled is disconnected after commit."""
    with transaction.atomic():
        return [
            user
            for user in users
            if VpnUser.objects.filter(pk=user.pk).exclude(enabled=enabled).update(enabled=enabled)
        ]


def put_new(people: Sequence[Person]) -> list[VpnUser]:
    """Create the users whom a list names, in a few statements however many they are; their keys are made later. All or
    none: raise ``ValidationError`` or ``IntegrityError`` where one of them cannot be, or is there already."""
    organizations = Organization.objects.in_bulk({person.organization for person in people})
    groups = set(Group.objects.filter(pk__in={pk for person in people for pk in person.groups or ()}).values_list("pk"))
    users = []
    for person in people:
        organization = organizations.get(person.organization)
        if organization is None:
            raise Organization.DoesNotExist
        enabled = person.enabled is not False
        user = VpnUser(organization=organization, name=person.name, email=person.email or "", enabled=enabled)
        user.clean_fields(exclude={"organization"})
        users.append(user)
    membership = VpnUser.groups.through
    with transaction.atomic():
        # The constraints say who is there already.
        made = VpnUser.objects.bulk_create(users)
        membership.objects.bulk_create(
            membership(vpnuser=user, group_id=pk)
            for user, person in zip(made, people, strict=True)
            for pk in person.groups or ()
            if (pk,) in groups
        )
        after_commit(MAKE_MISSING)
    return made


def put(person: Person) -> tuple[VpnUser, bool]:
    """Create the user whom a list names, or change who is there by that name; whether they are new. What the list does
    not say stays. Raise ``ValidationError`` where that cannot be, and ``ObjectDoesNotExist`` without the
    organization."""
    organization = Organization.objects.get(pk=person.organization)
    user = VpnUser.objects.filter(organization=organization, name_key=key_of(person.name)).first()
    created = user is None
    user = user or VpnUser(organization=organization, name=person.name)
    said = {"email": person.email, "enabled": person.enabled}
    changed = [name for name, value in said.items() if value not in (None, getattr(user, name))]
    for name in changed:
        setattr(user, name, said[name])
    if created:
        user.full_clean()
        user.save(force_insert=True)
    elif changed:
        user.clean_fields()
        # Only what a list can say: the key may be made at this very moment.
        user.save(update_fields=changed)
    if person.groups is not None and set(person.groups) != set(user.groups.values_list("pk", flat=True)):
        user.groups.set(Group.objects.filter(pk__in=person.groups))
    return user, created


def known_to_others(account: Administrator) -> None:
    """Somebody else has chosen, or seen, this administrator's password: once they have signed in with it, they choose
    one of their own before anything else."""
    if account.has_usable_password():
        OneTimePassword.objects.update_or_create(user=account, defaults={"password": account.password})


def must_choose_password(account: Administrator) -> bool:
    """Accounts that have chosen a password since have another hash: their row says nothing any more."""
    return OneTimePassword.objects.filter(user=account, password=account.password).exists()
