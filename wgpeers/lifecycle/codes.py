"""What each code of a decision means: what happened, and what to do, in words for administrators. One catalogue; what a
factor alone knows is in the factor's own ``sentences``."""

from __future__ import annotations

from users.factors.registry import FACTORS, load
from wgpeers.models import EndReason

SENTENCES: dict[str, str] = {
    "allowed": "The client was let in.",
    # of the account and the server's policy
    "user_disabled": "The account is disabled. Enable the user if they may connect.",
    "organization_disabled": "The user's organization is disabled, so nobody of it can connect.",
    "device_revoked": "The user revoked this device on their own page. “Let it in again” beside it on the user's page, "
    "if they want it back.",
    "not_in_organization": "The server does not let the user's organization in. Add it on the server's page.",
    "not_in_group": "The server lets in only users of its groups, and this one is in none of them.",
    "platform_not_allowed": "The server does not allow the operating system that the client says it runs on.",
    "not_signed_in": "The user has not signed in yet; their client asks again.",
    # of the factors together
    "factor_missing": "The server asks for a second factor, and the client sent none. It asks its user for it once its "
    "profile says so: have the client fetch the profile anew.",
    "factor_unclaimed": "The client sent a password, and no factor that is asked for takes one.",
    "factors_inseparable": "What is typed for two of the factors asked of this user cannot be told apart: two that "
    "take any text, a password that has a code with it and another code, or codes of two services. "
    "Take one of them off the server, or off the user's exceptions.",
    "too_many_attempts": "Too many wrong second factors came from this user or this address, so none is looked at for "
    "a while. If it was not the user, give them a new profile; if it was, “Let them try again” on their page.",
    # of the request
    "malformed": "The request was not well formed: no client of ours, or a broken one.",
    "unauthorized": "A proof was wrong: the client has an old profile, or somebody tries without the user's keys. Give "
    "the user a new profile if it is theirs.",
    "clock": "The client's clock is too far off. Have it set by itself on the client's machine.",
    "replayed": "The very request was sent before: it was recorded and played again, or a proxy repeats requests.",
    "too_large": "The request was larger than any that clients send.",
    "invalid_key": "The WireGuard key that the client offered is none that can be used.",
    "not_found": "There is no such address, user or server.",
    "no_profile": "There is no server yet that this user may use.",
    "method_not_allowed": "The address was asked in a way that it does not know.",
    "unknown_configuration": "There is no profile for this user on this server.",
    # of connecting
    "key_spent": "The WireGuard key was used before. The client makes a new one by itself; if it does so again and "
    "again, it is broken.",
    "server_stopped": "The server is stopped. Start it, and clients come by themselves.",
    "no_address_left": "Every address of the server's network is taken. Give it a larger network, or delete users who "
    "are gone.",
    "too_many_requests": "The user has connected too often within an hour: a client that reconnects without end, or "
    "somebody who has their profile.",
    "in_progress": "Another attempt with this key or for this address was under way. The client tries again by itself.",
    "no_host": "No host of the server was up. Look at its hosts.",
    "busy": "The request had waited for longer than its client does: more people connect than this machine can take at "
    "once. Clients try again by themselves.",
    "server_full": "Each host of the server has as many clients as it may have. Raise their limits, or add a host.",
    "key_not_ready": "The user's key was still being made. The client tries again by itself.",
    "store_down": "The database or Redis was away. The client tries again by itself.",
    "too_many_devices": "As many of the user's devices are connected as the server allows at the same time.",
    "device_connected": "Another device of the user is connected, and the server keeps the one that is.",
    "other_device": "Another device of the user has taken over, and this one came back by itself. A start by hand on "
    "it takes over again.",
    # of the user's own page
    "own_page_opened": "Somebody opened the user's own page by their profile link.",
    "own_page_changed": "Somebody at the user's own page changed this.",
    "own_page_refused": "Somebody at the user's own page could not prove what the user has. If it was not the user, "
    "revoke their profile links and give them a new profile.",
    # of ending
    EndReason.SILENT: "No ping came in time: the client was switched off, went to sleep or lost its network. It comes "
    "back by itself.",
    EndReason.REPLACED: "The same device connected again, with a new key.",
    EndReason.ELSEWHERE: "The user connected with another device, and the server allows one at a time.",
    EndReason.ADMIN: "An administrator disconnected it. The client comes back by itself if it may: disable the user to "
    "keep it away.",
    EndReason.BY_USER: "The user ended it on their own page. The client comes back by itself, if it may.",
    EndReason.SIGN_IN: "The provider of the user's sign-in was asked again, and no longer lets them in; why stands "
    "behind this. The client is asked to sign in anew.",
    EndReason.SESSION: "The session was as long as the server allows. The client comes back by itself, with the second "
    "factors that the server asks for.",
    EndReason.NOT_PERMITTED: "The user may not use the server any more: disabled, or in none of its organizations or "
    "groups any more.",
    EndReason.MOVED: "Its tunnel address, or the server's network, was changed. The client comes back with another.",
    EndReason.DRAINED: "An administrator is emptying its host. The client comes back by itself, on another one.",
    EndReason.STOPPED: "The server was stopped, or WireGuard was turned off for it.",
    EndReason.UNCONFIRMED: "No host said in time that it has the client, so it was not let in. The client tries again "
    "by itself; if this is seen often, look at the hosts.",
}


def explain(code: str, detail: str = "") -> str:
    """What a decision with this code says, with what its request said beyond that; empty for a code of another
    release."""
    sentence = SENTENCES.get(code) or _of_factor(code)
    return f"{sentence} ({detail[:1].upper()}{detail[1:]}.)" if sentence and detail else sentence


def _of_factor(code: str) -> str:
    for kind in sorted(FACTORS, key=len, reverse=True):  # a kind may begin like another
        if code.startswith(f"{kind}_"):
            return load(kind).sentence(code.removeprefix(f"{kind}_"))
    if code.endswith("_not_installed"):
        return "A factor is asked for that this installation does not have. Install it, or take it off the server."
    return ""


def factor_codes() -> list[str]:
    return [f"{kind}_{what}" for kind in FACTORS for what in load(kind).all_sentences()]
