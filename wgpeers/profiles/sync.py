"""Configuration sync: a client asks with the hash of what it has, and gets what changed."""

from __future__ import annotations

from servers.access import usable_by
from wgpeers.lifecycle.accounts import Account
from wgpeers.protocol import envelope
from wgpeers.protocol.errors import Refusal

from . import content


def sync(account: Account, sync_hash: str) -> dict[str, str]:
    """``{}`` where ``sync_hash`` is current; else the profile, signed, without any private key."""
    user = account.user
    if not usable_by(user).filter(pk=account.server.pk).exists() or not user.key_ready:
        raise Refusal("unknown_configuration", "there is no configuration for this user on this server")
    current, conf = content.synced(user, account.server)
    if current == sync_hash:
        return {}
    return {"conf": conf, "signature": envelope.sign(conf, account.credentials)}
