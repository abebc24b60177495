"""Making RSA keys and certificates, on the ``keys`` queue: half a second each, so never inside a request and
never on the queue of the sweeps."""

from __future__ import annotations

import redis

from core import clock, task_names
from core.certificates import private_pem
from core.crypto import Secret
from core.redis_store import redis_client
from core.task_queue import enqueue, task

from . import certificates
from .models import Organization, VpnUser

# How many missing keys one look queues; the next look comes when these are made.
BATCH = 200


@task(task_names.MAKE_USER_KEY)
def make_user_key(user_id: int) -> None:
    """Give the user a key pair and certificate; leave quietly if they are gone or have one."""
    user = VpnUser.objects.select_related("organization").filter(pk=user_id, certificate="").first()
    if user is None:
        return
    organization = _with_ca(user.organization)
    key = certificates.make_key()
    certificate = certificates.make_user_certificate(
        organization.name,
        user.name,
        key,
        organization.ca_certificate,
        certificates.load_private(organization.ca_private_key.reveal()),
        clock.moment(clock.now()),
    )
    # Only where there is none yet: two workers may have made one at the same time, and a profile with the first
    # may be out already.
    VpnUser.objects.filter(pk=user_id, certificate="").update(
        private_key=Secret.of(private_pem(key)),
        public_key=certificates.public_pem(key),
        certificate=certificate,
    )


@task(task_names.MAKE_ORGANIZATION_CA)
def make_organization_ca(organization_id: int) -> None:
    organization = Organization.objects.filter(pk=organization_id).first()
    if organization is not None:
        _with_ca(organization)


def _with_ca(organization: Organization) -> Organization:
    """The organization with its CA, made now if it has none; the first one stored is the one."""
    if organization.ca_certificate:
        return organization
    key = certificates.make_key()
    certificate = certificates.make_ca(organization.name, key, clock.moment(clock.now()))
    Organization.objects.filter(pk=organization.pk, ca_certificate="").update(
        ca_private_key=Secret.of(private_pem(key)), ca_certificate=certificate
    )
    organization.refresh_from_db()
    return organization


@task(task_names.MAKE_MISSING)
def make_missing() -> None:
    """Queue keys that were asked for but never made (Redis was down, a worker died, rows came in bulk)."""
    try:
        if redis_client().llen("keys"):
            return  # they are being worked through
    except redis.RedisError:
        return
    for pk in Organization.objects.filter(ca_certificate="").values_list("pk", flat=True)[:BATCH]:
        enqueue(task_names.MAKE_ORGANIZATION_CA, pk)
    users = list(VpnUser.objects.filter(certificate="").order_by("pk").values_list("pk", flat=True)[:BATCH])
    for pk in users:
        enqueue(task_names.MAKE_USER_KEY, pk)
    if len(users) == BATCH:
        enqueue(task_names.MAKE_MISSING)  # behind these
