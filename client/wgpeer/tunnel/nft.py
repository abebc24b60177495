"""The program nft."""

from __future__ import annotations

import subprocess

from wgpeer.text import printable

TIMEOUT = 10.0
NOT_INSTALLED = "nft is missing; install nftables"


def run(arguments: list[str], text: str = "") -> tuple[str, str]:
    """Run it: its output, and what went wrong, for people (empty: nothing)."""
    try:
        done = subprocess.run(
            ["nft", *arguments], input=text, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except FileNotFoundError:
        return "", NOT_INSTALLED
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"nft: {type(error).__name__}"
    if done.returncode:
        return "", printable(done.stderr, 200) or "nft failed"
    return done.stdout, ""
