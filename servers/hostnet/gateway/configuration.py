"""What nginx reads. Pure.

    client -> stream (counts connections) -> http (whole requests, PROXY line from stream) -> gateway web of a node

Why nginx and not a translation of addresses in the kernel: tunnels are IPv4 and the mesh may be IPv6, which no DNAT
leads into one another; a node that dies takes its flows with it, and the kernel does not ask the next one; nor can it
say 503 where there is none. And the control side would need a route to each client to know its source.

The client's address goes in headers that no client can set: ``X-Host-Client`` and, the gateway's address that it came
to, ``X-Host-Gateway``. Gateway web may believe them of a host as far as the tunnels of that host's servers go, since by
the mesh nobody else has the host's address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from servers.hostnet.state import Gateway

STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
CLIENT, LOCAL = "X-Host-Client", "X-Host-Gateway"
# Of one tunnel, and of all of them: as the control side's own front has them.
PER_TUNNEL, ALL = 16, 2048
PLACES = 8192  # a connection takes two in stream and two in http
COMING = 5  # seconds for all headers, and between two pieces of a body
# Seconds to reach a node, for its answer, and for all nodes together. A node that does neither is left alone for a
# while, in which nobody waits for it; where none is left, clients are told so at once.
CONNECT, ANSWER, ALL_NODES = 1, 2, 4
LEFT_ALONE = 5


def configuration(home: Path, port: int, gateways: Sequence[Gateway]) -> str:
    """``home`` is the directory of its own; ``gateways`` are asked in their order."""
    return f"""# Written by the host's worker.
load_module {STREAM};
daemon off;
pid own/nginx.pid;
working_directory {home};
worker_processes 2;
error_log stderr crit;

events {{
    worker_connections {PLACES};
}}

stream {{
    limit_conn_log_level info;
    limit_conn_zone $binary_remote_addr zone=tunnels:4m;
    limit_conn_zone $server_port zone=listener:64k;
    server {{
        # Our firewall lets nobody but tunnels to it.
        listen 0.0.0.0:{int(port)} reuseport backlog=4096;
        limit_conn tunnels {PER_TUNNEL};
        limit_conn listener {ALL};
        proxy_protocol on;
        proxy_connect_timeout {COMING}s;
        proxy_timeout {COMING + ALL_NODES + 30}s;
        proxy_pass unix:{home}/own/http.sock;
    }}
}}

http {{
{_HTTP_SETTINGS}{_server(home, gateways)}}}
"""


_HTTP_SETTINGS = f"""    access_log off;
    server_tokens off;
    default_type application/json;
    client_header_timeout {COMING}s;
    client_body_timeout {COMING}s;
    send_timeout {COMING}s;
    keepalive_timeout 15s;
    reset_timedout_connection on;
    client_max_body_size 64k;
    client_body_buffer_size 64k;
    client_body_temp_path own/bodies;
    proxy_temp_path own/answers;
    fastcgi_temp_path own/unused;
    uwsgi_temp_path own/unused;
    scgi_temp_path own/unused;
"""


def _server(home: Path, gateways: Sequence[Gateway]) -> str:
    """Pings and syncs go to the first node that answers."""
    return f"""    upstream gateways {{
        zone gateways 64k;
{_servers(gateways)}    }}
    server {{
        listen unix:{home}/own/http.sock proxy_protocol backlog=4096;
        location /key/ {{
            proxy_pass http://gateways;
            proxy_http_version 1.1;
            proxy_set_header Connection close;
            proxy_set_header Host $http_host;
            proxy_set_header {CLIENT} $proxy_protocol_addr;
            proxy_set_header {LOCAL} $proxy_protocol_server_addr;
            proxy_connect_timeout {CONNECT}s;
            proxy_send_timeout {ANSWER}s;
            proxy_read_timeout {ANSWER}s;
            # A ping and a sync bear repetition, so the next node may be asked whatever became of the first.
            proxy_next_upstream error timeout invalid_header http_502 http_503 http_504;
            proxy_next_upstream_timeout {ALL_NODES}s;
        }}
        location / {{
            return 444;
        }}
        error_page 502 503 504 =503 /.unavailable;
        location = /.unavailable {{
            internal;
            return 503 '{{"error":"unavailable","detail":"try again"}}';
        }}
        error_page 400 405 408 411 413 414 494 501 505 /.hang_up;
        location = /.hang_up {{
            internal;
            return 444;
        }}
    }}
"""


def _servers(gateways: Sequence[Gateway]) -> str:
    lines = []
    for number, gateway in enumerate(gateways):
        # What is no address must not become a part of the configuration.
        address = ipaddress.ip_address(gateway.address)
        where = f"[{address}]" if address.version == 6 else str(address)
        backup = " backup" if number else ""
        lines.append(f"        server {where}:{int(gateway.port)} max_fails=1 fail_timeout={LEFT_ALONE}s{backup};\n")
    return "".join(lines)
