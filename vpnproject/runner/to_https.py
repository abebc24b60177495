"""The front's part without TLS: it sends people who type a name or an address to HTTPS.

A program that comes there is hung up on: to a client, whatever it is answered (a redirect, a 4xx) could end a tunnel,
and without an answer it tries again, and elsewhere.
"""

from __future__ import annotations

from pathlib import Path

from .network import HTTPS

# Of all sources together: nobody stays.
MOST = 256


def listener(port: int, ipv6: bool, per_source: int, socket: Path) -> str:
    """For nginx's ``stream``."""
    listen6 = f"        listen [::]:{port} ipv6only=on reuseport backlog=512;\n" if ipv6 else ""
    return f"""    server {{
        listen 0.0.0.0:{port} reuseport backlog=512;
{listen6}        limit_conn sources {per_source};
        limit_conn listeners {MOST};
        proxy_pass unix:{socket};
    }}
"""


def server(https: int, socket: Path) -> str:
    """For nginx's ``http``. ``https`` is the port of web."""
    port = "" if https == HTTPS else f":{https}"
    return f"""    server {{
        listen unix:{socket} proxy_protocol backlog=512;
        client_max_body_size 1k;
        location / {{
            if ($http_host = "") {{
                return 444;
            }}
            if ($request_method !~ ^(GET|HEAD)$) {{
                return 444;
            }}
            error_page 418 =301 /.to_https;  # nginx's own 301 has a page that names it
            return 418;
        }}
        location = /.to_https {{
            internal;
            more_set_headers "Location: https://$host{port}$request_uri";
            return 200 "This site speaks HTTPS.\\n";
        }}
        location ~ ^/(key|ku)(/|$) {{
            return 444;
        }}
        location = /.hang_up {{
            internal;
            return 444;
        }}
        error_page 400 404 405 408 411 413 414 494 501 505 /.hang_up;
    }}
"""
