"""FreeRADIUS, Debian's, on a loopback port: a real counterpart that drops requests without a Message-Authenticator."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.lab import HANGING, until

SECRET = "32-random-characters-would-do-it"
# What a challenge is answered with; no text, so that nobody can take it for one.
STATE = "0x00ff7374617465fe"

CONFIGURATION = """
confdir = {here}
logdir = {here}
run_dir = {here}
libdir = /usr/lib/freeradius
max_requests = 1024
security {{
  reject_delay = 0
  status_server = no
}}
proxy_requests = no
client tests {{
  ipaddr = 127.0.0.1
  secret = "{secret}"
  require_message_authenticator = yes
}}
modules {{
  pap {{
  }}
  expiration {{
  }}
  files {{
    usersfile = {here}/people
  }}
  exec once {{
    wait = yes
    program = "/bin/sh {here}/once %{{User-Password}}"
    shell_escape = no
  }}
}}
server default {{
  listen {{
    type = auth
    ipaddr = 127.0.0.1
    port = {port}
  }}
  authorize {{
    files
    expiration
    if (&User-Name == "carol" && &State == {state} && &User-Password == "314159") {{
      update control {{
        &Auth-Type := Accept
      }}
    }}
    elsif (&User-Name == "carol" && !&State && &User-Password == "open sesame") {{
      update control {{
        &Auth-Type := Accept
        &Response-Packet-Type := Access-Challenge
      }}
      update reply {{
        &State := {state}
        &Reply-Message := "The code, please"
      }}
    }}
    elsif (&User-Name == "frank@example.com" && &Calling-Station-Id == "198.51.100.7" && &NAS-Identifier == "gate") {{
      update control {{
        &Auth-Type := Accept
      }}
    }}
    elsif (&User-Name == "gina") {{
      update control {{
        &Auth-Type := Reject
      }}
      update reply {{
        &Reply-Message := "<b>Too many\\n attempts</b>"
      }}
    }}
    pap
  }}
  authenticate {{
    Auth-Type PAP {{
      pap
    }}
    Auth-Type once {{
      once
    }}
  }}
  post-auth {{
    update reply {{
      {signed}
    }}
    Post-Auth-Type REJECT {{
      update reply {{
        {signed}
      }}
    }}
    Post-Auth-Type Challenge {{
      update reply {{
        {signed}
      }}
    }}
  }}
}}
"""

# Dora's passwords have a code that is good once.
PEOPLE = """
alice Cleartext-Password := "open sesame"
bob   Cleartext-Password := "bob's own"
erin  Cleartext-Password := "open sesame", Expiration := "01 Jan 2020"
dora  Auth-Type := once
"""
ONCE = '[ "$1" = "open sesame271828" ] && mkdir "{here}/used"\n'


class FreeRadius:
    """``signing`` False: it answers without a Message-Authenticator, as releases before 2024 do."""

    def __init__(self, signing: bool = True) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="radius-"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        signed = "&Message-Authenticator := 0x00" if signing else "&Framed-MTU := 1400"
        here = str(self._directory)
        values = {"here": here, "secret": SECRET, "port": self.port, "state": STATE, "signed": signed}
        (self._directory / "radiusd.conf").write_text(CONFIGURATION.format(**values))
        (self._directory / "dictionary").write_text("$INCLUDE /usr/share/freeradius/dictionary\n")
        (self._directory / "people").write_text(PEOPLE)
        (self._directory / "once").write_text(ONCE.format(here=here))
        self._log = self._directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            command = ["freeradius", "-fx", "-l", "stdout", "-n", "radiusd", "-d", str(self._directory)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: "Ready to process requests" in self._log.read_text() or self._process_is_dead(), HANGING)
        assert not self._process_is_dead(), self._log.read_text()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(HANGING)
        shutil.rmtree(self._directory)

    def _process_is_dead(self) -> bool:
        return self._process is None or self._process.poll() is not None
