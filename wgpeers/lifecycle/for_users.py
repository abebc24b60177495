"""What refused a user, in words for them: what they can do about it, and nothing that helps who guesses. Which of two
secrets was wrong is for administrators alone (``codes``)."""

from __future__ import annotations

from users.factors.registry import FACTORS

OTHER = "It was refused. Ask your administrator, and tell them when it was."
FACTOR = "A second factor was not right, or there was none."
NOT_ENROLLED = (
    "The server asks for a second factor that you do not have yet. Set it up here, or ask your administrator."
)
NOBODY_CAN_SAY = "A second factor could not be checked at that moment. Ask your administrator."

SENTENCES = {
    "user_disabled": "Your account was disabled.",
    "organization_disabled": "Your organization was disabled.",
    "device_revoked": "The device was revoked. Ask your administrator to let it in again.",
    "not_in_organization": "The server does not let your organization in.",
    "not_in_group": "The server lets in only members of certain groups, and you are in none of them.",
    "platform_not_allowed": "The server does not allow the operating system of that device.",
    "factor_missing": FACTOR,
    "factor_unclaimed": FACTOR,
    "own_page_refused": "What was typed on this page as a proof was not right. If it was not you, tell your "
    "administrator.",
    "too_many_attempts": "There were too many wrong attempts. If they were not yours, tell your administrator.",
    "too_many_requests": "A device of yours connected again and again.",
    "unauthorized": "A profile of yours was too old, or somebody tried without your keys.",
    "clock": "The clock of that device was off. Have it set by itself.",
    "server_stopped": "The server was stopped.",
    "server_full": "The server was full.",
    "no_address_left": "The server was full.",
    "no_host": "The server could not be reached for a while.",
    "unconfirmed": "The server could not be reached for a while.",
    "busy": "Too many connected at that moment.",
    "in_progress": "Another attempt was under way. Devices try again by themselves.",
    "key_not_ready": "Your key was still being made.",
    "store_down": "The service was down for a moment. Devices try again by themselves.",
    "too_many_devices": "As many of your devices were connected as the server allows.",
    "device_connected": "Another device of yours was connected.",
    "other_device": "Another device of yours had taken over.",
}


def explain(code: str) -> str:
    if code in SENTENCES:
        return SENTENCES[code]
    if not code.startswith(tuple(f"{kind}_" for kind in FACTORS)):
        return OTHER
    if code.endswith("_not_enrolled"):
        return NOT_ENROLLED
    return NOBODY_CAN_SAY if code.endswith(("_unavailable", "_not_installed", "_not_configured")) else FACTOR
