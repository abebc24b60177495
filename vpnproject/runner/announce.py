"""What the person at the terminal is told once all is up: where it is, and what to give to the first user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core import client_wheel, import_links

from .certificate import fingerprint
from .client_wheel import DIRECTORY

DEFAULT_VAR = Path(__file__).resolve().parents[2] / "var"


def announce(say: Callable[[str], None], url: str, var: Path, rows: Mapping[str, Any]) -> None:
    """``url`` is where the admin and the API are; ``rows`` is what bootstrap reported."""
    certificate = var / "certificate.pem"
    say("")
    say(f"  Admin         {url}/admin/")
    if rows.get("password"):
        say(f"                name {rows['admin']}, one-time password {rows['password']} (shown only now)")
    elif rows.get("never_signed_in"):
        say("                password lost? bin/run --new-password" + (f" --var {var}" if var != DEFAULT_VAR else ""))
    host = url.removeprefix("https://")
    usable = import_links.usable(host, certificate)
    if rows.get("short"):
        say(f"  First user    {rows['user']} on {rows['server']}")
        if usable:
            say(f"  Import link   pritunl://{host}/ku/{rows['short']}")
        say(f"  Page          {url}/k/{rows['short']}")
        if not usable:
            say("                Download the .tar there, and import the file.")
        say("                Through the tunnel: this host and its clients. More: Servers, Routes in the admin.")
    if wheel := client_wheel.offered(var / DIRECTORY):
        say(f"  Linux client  {url}/client/{wheel.name}, SHA-256:")
        say(f"                {wheel.sha256}")
    say("")
    if import_links.self_signed(certificate):
        say("  The certificate is self-signed: a browser asks once. Its SHA-256 fingerprint:")
        say(f"  {fingerprint(certificate)}")
        if not usable:
            say(f"  Clients do not ask: they import no link by {host} until it has a certificate that they trust.")
            say("  Until then the pages of links, also those that the admin makes, have the profile as a .tar.")
            say(f"  Put certificate.pem and certificate_key.pem into {var}: they are served within seconds.")
        say("")
