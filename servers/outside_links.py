"""Links to other installations: writing a link file, and taking one in. The same by every door."""

from __future__ import annotations

import json
from collections.abc import Iterable

from core.clock import moment
from core.crypto import Secret

from . import link_keys
from .link_files import LinkFile, LinkFileError
from .link_keys import EndKeys
from .models import OutsideLink, Server, address_of, end_of_outside, new_link_id
from .validators import listed


def make_file(link: OutsideLink, now: float) -> str:
    """A new link file for the other installation, which is nowhere else from now on. Our end has new keys by it, so
    that an earlier file leads nowhere any more. Raise ``ValidationError`` where the link cannot work, and
    ``LinkFileError`` where it came from the other installation itself."""
    if link.imported:
        raise LinkFileError("The other installation made this link: the file for it comes from there.")
    link.full_clean()
    addresses = tuple(address_of(row.host) for row in end_of_outside(link) if link.listens)
    made = link_keys.make(moment(now))
    link.link_id = new_link_id()
    link.keys, link.keys_made = sealed(made.of(listens=link.listens)), moment(now)
    link.save(update_fields=["link_id", "keys", "keys_made"])
    theirs, ours = (tuple(listed(each)) for each in (link.ours, link.theirs))
    keys = made.of(listens=not link.listens)
    return LinkFile(link.link_id, not link.listens, addresses, link.port, link.mtu, theirs, ours, keys).to_text()


def refuse_known(file: LinkFile) -> None:
    """Raise ``LinkFileError`` where this installation has the link already."""
    if known := OutsideLink.objects.filter(link_id=file.link).first():
        if known.imported:
            raise LinkFileError(f"This link file has been imported already: it is the link to {known}.")
        raise LinkFileError(
            f"This link file was made here, for the link to {known}: it is for the other installation. Servers of one "
            "installation are linked under Server links, without a file."
        )


def from_file(
    file: LinkFile, server: Server, name: str, ours: Iterable[str], *, masquerade: bool, now: float
) -> OutsideLink:
    """The link that a file says, not saved; ``full_clean`` says whether it can be. ``ours`` is what we offer, whatever
    the file asks for. Raise ``LinkFileError``."""
    refuse_known(file)
    return OutsideLink(
        link_id=file.link,
        server=server,
        name=name,
        ours=", ".join(ours),
        theirs=", ".join(file.theirs),
        listens=file.listens,
        addresses=", ".join(file.addresses),
        port=file.port,
        mtu=file.mtu,
        masquerade=masquerade,
        imported=True,
        keys=sealed(file.keys),
        keys_made=moment(now),
    )


def keys_of(link: OutsideLink) -> EndKeys:
    """Of our end of a link that works."""
    return link_keys.end_from(json.loads(link.keys.reveal()))


def sealed(keys: EndKeys) -> Secret:
    return Secret.of(json.dumps(link_keys.plain(keys)))
