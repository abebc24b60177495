"""What a deletion or a changed relation brings with it, by whichever door it comes: a page, a list's action, a
queryset, a cascade or code. (What saving brings with it is in each model's ``save``.)"""

from __future__ import annotations

from typing import Any

from django.db.models import Q
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete
from django.dispatch import receiver

from core.changes import after_commit
from core.task_names import CUT_OFF, DISMISS, ENFORCE
from users.models import Provider

from . import changes
from .models import (
    Carrier,
    ClientNetwork,
    Host,
    Mesh,
    MeshNode,
    OutsideLink,
    PortForward,
    Route,
    Server,
    ServerFactor,
    ServerHost,
    ServerLink,
    SplitDomain,
    hosts_of,
    hosts_of_linked,
)


@receiver(pre_delete, sender=Host)
def dismiss_host(instance: Host, **kwargs: Any) -> None:
    """Without a row nobody can work out its state any more, and it would serve its clients for as long as they shake
    hands: so its last message takes everything down."""
    changes.bump_versions([instance.pk])
    public_id, version, boot = Host.objects.values_list("public_id", "version", "boot").get(pk=instance.pk)
    after_commit(DISMISS, public_id, version, boot)
    # Its connections are ended as those without a host.
    after_commit(ENFORCE)


@receiver(post_save, sender=Host)
@receiver(post_save, sender=Mesh)
@receiver(post_save, sender=MeshNode)
@receiver(pre_delete, sender=MeshNode)
def tell_machines_of_the_mesh(instance: Host | Mesh | MeshNode, origin: object = None, **kwargs: Any) -> None:
    """Each knows where all others are. Of one whose host goes they are told once it was dismissed, by the same task:
    its last message comes through them."""
    if isinstance(instance, Host) and not MeshNode.objects.filter(host=instance).exists():
        return
    concerned = list(MeshNode.objects.values_list("host_id", flat=True))
    if origin is not None and not _is_of_node(origin):
        changes.bump_versions(concerned)
    else:
        changes.record(concerned)


@receiver(post_save, sender=Host)
def tell_other_ends(instance: Host, created: bool, **kwargs: Any) -> None:
    """The other end of a link that OpenVPN carries looks for the one that listens by its host's address."""
    if not created:
        of_host = Q(first__attachments__host=instance) | Q(second__attachments__host=instance)
        if pairs := list(ServerLink.objects.filter(of_host, carrier=Carrier.OPENVPN).values_list("first", "second")):
            changes.record(hosts_of(*(server for pair in pairs for server in pair)))


def _is_of_node(origin: object) -> bool:
    """Whether the deletion began with a machine's place in the mesh, not with its host."""
    return getattr(origin, "model", type(origin)) is MeshNode


@receiver(post_delete, sender=MeshNode)
def cut_machine_off(instance: MeshNode, origin: object, **kwargs: Any) -> None:
    """One whose host goes as well is dismissed first, and cut off then."""
    if _is_of_node(origin):
        after_commit(CUT_OFF, instance.host.public_id)


@receiver(pre_delete, sender=ServerHost)
def detach_host(instance: ServerHost, **kwargs: Any) -> None:
    """Also where the server goes: its attachments go with it."""
    changes.record({instance.host_id, *hosts_of_linked(instance.server_id)})


@receiver(pre_delete, sender=Route)
@receiver(pre_delete, sender=SplitDomain)
@receiver(pre_delete, sender=PortForward)
@receiver(pre_delete, sender=ClientNetwork)
def tell_hosts_of_server(instance: Route | SplitDomain | PortForward | ClientNetwork, **kwargs: Any) -> None:
    changes.record(hosts_of(instance.server_id))


@receiver(pre_delete, sender=ServerLink)
def unlink(instance: ServerLink, **kwargs: Any) -> None:
    """Also where one of the servers goes: its links go with it."""
    changes.record(hosts_of(instance.first_id, instance.second_id))


@receiver(pre_delete, sender=OutsideLink)
def unlink_outside(instance: OutsideLink, **kwargs: Any) -> None:
    changes.record(hosts_of(instance.server_id))


@receiver(pre_delete, sender=ServerFactor)
def ask_people_otherwise(**kwargs: Any) -> None:
    after_commit(ENFORCE)


@receiver(post_save, sender=Provider)
def go_on_asking_the_first(instance: Provider, created: bool, **kwargs: Any) -> None:
    """Servers that asked the only provider of a kind go on asking that when there is a second one: else nobody could
    say any more which to ask, and nobody could connect."""
    others = list(Provider.objects.filter(kind=instance.kind).exclude(pk=instance.pk)[:2])
    if created and len(others) == 1:
        ServerFactor.objects.filter(kind=instance.kind, provider=None).update(provider=others[0])


@receiver(m2m_changed, sender=Server.groups.through)
@receiver(m2m_changed, sender=Server.organizations.through)
def check_people_again(action: str, **kwargs: Any) -> None:
    if action.startswith("post_"):
        after_commit(ENFORCE)
