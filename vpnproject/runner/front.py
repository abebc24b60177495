"""The front: nginx, the one program that strangers reach. It takes in a request whole, within a size and a time, before
web or gateway web hear of it, so that nobody holds their few threads with what never comes.

It never is root, so it cannot enter ``var``. What it needs is in a directory of this installation's own: ``conf``,
which root writes and it reads (the TLS key is there for it alone); ``own``, for its sockets and what is too long for
memory; and ``web``, where web and gateway web make the sockets on which it finds them.

    client -> stream (counts connections) -> http (TLS, whole requests, PROXY line from stream) -> web or gateway web
"""

from __future__ import annotations

import ipaddress
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import to_https
from .files import write_private
from .layout import Place
from .privileges import CONTROL, FRONT, ROOT, gid, make_users, uid

HOMES = Path("/var/lib/vpn-front")
MODULES = Path("/usr/lib/nginx/modules")
# Connections of one source: an IPv4 address, an IPv6 /64, a tunnel's address. Many people may share the first.
PER_SOURCE, PER_TUNNEL = 64, 16
# All of a listener's. Both at their most leave each worker room: a connection takes two places in stream, two in http.
PUBLIC, GATEWAY = 4096, 2048
PLACES = 16384
# Requests with long bodies, of one source and of all: what they bring is kept on the disk meanwhile.
UPLOADS_PER_SOURCE, UPLOADS = 4, 64
# Seconds for a TLS handshake, for all headers, between two pieces of a body; and for an answer to be made.
COMING, ANSWERING = 10, 300


@dataclass(frozen=True, slots=True)
class Front:
    """What the configuration depends on. ``trusted`` are proxies of the administrator's, each with many clients.
    ``plain_port``: where browsers that come without TLS are sent to HTTPS; 0: nowhere."""

    directory: Path
    port: int
    gateway_port: int
    ipv6: bool
    trusted: tuple[str, ...] = ()
    plain_port: int = 0
    # The mesh's networks: hosts forward the pings of many clients each, so they are not counted.
    mesh: tuple[str, ...] = ()


def directory(instance: str) -> Path:
    """Where the front's sockets and temporary files are."""
    return HOMES / instance


def web_socket(home: Path) -> Path:
    return home / "web" / "web.sock"


def waiting_socket(home: Path) -> Path:
    """Of web's second pool, for what waits for the servers of others."""
    return home / "web" / "waiting.sock"


def gateway_socket(home: Path) -> Path:
    return home / "web" / "gateway.sock"


def own_sockets(home: Path) -> tuple[Path, Path, Path]:
    """Those between the two halves of nginx: for TLS, for what comes through tunnels, and for who is sent to HTTPS."""
    return home / "own" / "tls.sock", home / "own" / "plain.sock", home / "own" / "to_https.sock"


def configuration_file(home: Path) -> Path:
    return home / "conf" / "nginx.conf"


def prepare(home: Path) -> None:
    """Make its directories, where they do not exist. The sockets in ``web`` belong to the front's group."""
    make_users()
    for directory, user, group, mode in (
        (HOMES, ROOT, ROOT, 0o755),
        (home, ROOT, ROOT, 0o711),
        (home / "conf", ROOT, FRONT, 0o750),
        (home / "own", FRONT, FRONT, 0o700),
        (home / "web", CONTROL, FRONT, 0o2750),
    ):
        # Only root writes into the one above, so what is there is a directory of ours.
        directory.mkdir(mode=0o700, exist_ok=True)
        os.chown(directory, uid(user), gid(group))
        directory.chmod(mode)


def configure(home: Path, text: str) -> None:
    write_private(configuration_file(home), text.encode(), Place(ROOT, FRONT, 0o640))


def take_pair(home: Path, certificate: Path, key: Path) -> None:
    """Give the front copies: what an administrator puts into ``var`` may be links to files that only root reads."""
    for source, name in ((key, "key.pem"), (certificate, "certificate.pem")):
        write_private(home / "conf" / name, source.read_bytes(), Place(FRONT, FRONT, 0o400))


def remove(home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    with suppress(OSError):  # another installation's is in it
        HOMES.rmdir()


def configuration(front: Front, files: int) -> str:
    """nginx's file. ``files`` is how many descriptors a worker may have."""
    home = front.directory
    return f"""# Written by bin/run at every start, and when the mesh has another network.
load_module {MODULES}/ngx_stream_module.so;
load_module {MODULES}/ngx_http_headers_more_filter_module.so;
daemon off;
pid {home}/own/nginx.pid;
working_directory {home};
worker_processes {max(2, min(4, os.cpu_count() or 1))};
worker_rlimit_nofile {files};
worker_shutdown_timeout 60s;
error_log stderr notice;

events {{
    worker_connections {PLACES};
}}

{_stream(front)}
http {{
{_http_settings(home)}{_http_servers(front)}}}
"""


def _stream(front: Front) -> str:
    """Takes connections in and counts them."""
    tls, plain, redirecting = own_sockets(front.directory)
    listener = ""
    if front.plain_port:
        listener = to_https.listener(front.plain_port, front.ipv6, PER_SOURCE, redirecting)
    return f"""# Counted as soon as they are there, before a byte is read.
stream {{
    error_log stderr crit;  # not each connection that a stranger breaks off
    limit_conn_log_level info;
    proxy_protocol on;
    proxy_connect_timeout {COMING}s;
    proxy_timeout {ANSWERING + 60}s;  # http is the one who ends connections
    proxy_buffer_size 8k;
    # A network of IPv6 is its address's first half; a proxy of ours is not counted.
    map $binary_remote_addr $network {{
        "~(?s)^(?<half>.{{8}}).{{8}}$" $half;
        default $binary_remote_addr;
    }}
    map $remote_addr $source {{
        default $network;
{_uncounted(front.trusted)}    }}
    limit_conn_zone $source zone=sources:4m;
    geo $hosts {{
        default 0;
{_mesh(front.mesh)}    }}
    map $hosts $tunnel {{
        1 "";
        default $binary_remote_addr;
    }}
    limit_conn_zone $tunnel zone=tunnels:4m;
    limit_conn_zone $server_port zone=listeners:64k;
    server {{
        listen 0.0.0.0:{front.port} reuseport backlog=4096;
{_listen6(front)}        limit_conn sources {PER_SOURCE};
        limit_conn listeners {PUBLIC};
        proxy_pass unix:{tls};
    }}
{listener}
    # Tunnels come and go, so it cannot listen on their addresses alone. Our firewall lets nobody else reach this port;
    # should somebody have removed that, gateway web itself has strangers hung up on.
    server {{
        listen 0.0.0.0:{front.gateway_port} reuseport backlog=4096;
{_listen_mesh(front)}        limit_conn tunnels {PER_TUNNEL};
        limit_conn listeners {GATEWAY};
        proxy_pass unix:{plain};
    }}
}}
"""


def _http_settings(home: Path) -> str:
    """What holds for all of the servers below: times, sizes, what web is told, TLS."""
    own = home / "own"
    return f"""    error_log stderr alert;  # what is less urgent quotes the request, and a link in it is a secret
    access_log off;
    limit_conn_log_level info;
    server_tokens off;
    more_clear_headers Server;
    default_type text/plain;

    client_header_timeout {COMING}s;
    client_body_timeout {COMING}s;
    send_timeout {2 * COMING}s;
    keepalive_timeout 15s;
    reset_timedout_connection on;
    client_body_buffer_size 16k;
    client_max_body_size 64k;
    client_body_temp_path {own}/bodies;
    proxy_temp_path {own}/answers;
    fastcgi_temp_path {own}/unused;
    uwsgi_temp_path {own}/unused;
    scgi_temp_path {own}/unused;

    proxy_http_version 1.1;
    proxy_set_header Connection close;
    proxy_set_header Host $http_host;
    # Overwrite what a client sends by these names; nginx drops names with underscores, which WSGI would take for them.
    proxy_set_header X-Front-Address $proxy_protocol_addr;
    proxy_set_header X-Front-Local $proxy_protocol_server_addr;
    proxy_set_header X-Front-Time $msec;  # from here on the request waits for a thread
    proxy_connect_timeout {COMING}s;
    proxy_read_timeout {ANSWERING}s;
    proxy_send_timeout {COMING}s;
    proxy_next_upstream off;  # no request is ever repeated
    proxy_max_temp_file_size 256m;

    map $request_method $upload {{
        default "";
        POST all;
    }}
    map $request_method $uploader {{
        default "";
        POST $proxy_protocol_addr;
    }}
    limit_conn_zone $upload zone=uploads:64k;
    limit_conn_zone $uploader zone=uploaders:1m;

    ssl_certificate {home}/conf/certificate.pem;
    ssl_certificate_key {home}/conf/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:sessions:2m;
    ssl_session_tickets off;
    ssl_buffer_size 4k;

"""


def _http_servers(front: Front) -> str:
    """Where whole requests go: from strangers to web, from tunnels to gateway web."""
    home = front.directory
    web, waiting, gateway = web_socket(home), waiting_socket(home), gateway_socket(home)
    tls, plain, redirecting = own_sockets(home)
    server = to_https.server(front.port, redirecting) if front.plain_port else ""
    return f"""    upstream web {{
        server unix:{web};
    }}
    upstream waiting {{
        server unix:{waiting};
    }}
    upstream gateway {{
        server unix:{gateway};
    }}
    server {{
        listen unix:{tls} ssl proxy_protocol backlog=4096;
        error_page 497 /.needs_tls;
        location / {{
            proxy_pass http://web;
        }}
        location /admin/ {{
            client_max_body_size 5m;
            limit_conn uploaders {UPLOADS_PER_SOURCE};
            limit_conn uploads {UPLOADS};
            proxy_pass http://web;
        }}
        # Where web says so (X-Accel-Redirect), a request goes on there as it came, with its method and body.
        location @waiting {{
            proxy_pass http://waiting;
        }}
        location = /.needs_tls {{
            internal;
            return 400 "This port speaks HTTPS: use https:// in the address.\\n";
        }}
{_OWN_WORDS}    }}
    server {{
        listen unix:{plain} proxy_protocol backlog=4096;
        location / {{
            proxy_pass http://gateway;
        }}
        location = /.hang_up {{
            internal;
            return 444;
        }}
        error_page 400 404 405 408 411 413 414 494 501 505 /.hang_up;
{_UNAVAILABLE}    }}
{server}"""


# What the front answers by itself. To a client a 5xx says: try again.
_UNAVAILABLE = """        error_page 502 503 504 =503 /.unavailable;
        location = /.unavailable {
            internal;
            default_type application/json;
            return 503 '{"error":"unavailable","detail":"try again"}';
        }
"""
_OWN_WORDS = f"""        error_page 400 404 405 408 411 414 494 501 505 /.malformed;
        error_page 413 /.too_large;
        location = /.malformed {{
            internal;
            default_type application/json;
            return 400 '{{"error":"malformed"}}';
        }}
        location = /.too_large {{
            internal;
            default_type application/json;
            return 413 '{{"error":"too_large"}}';
        }}
{_UNAVAILABLE}"""


def _listen6(front: Front) -> str:
    # A socket of its own, so that an IPv4 address is never seen as an IPv6 one.
    return f"        listen [::]:{front.port} ipv6only=on reuseport backlog=4096;\n" if front.ipv6 else ""


def _listen_mesh(front: Front) -> str:
    # For hosts: tunnels are IPv4 here.
    wanted = front.ipv6 and any(":" in network for network in front.mesh)
    return f"        listen [::]:{front.gateway_port} ipv6only=on reuseport backlog=4096;\n" if wanted else ""


def _uncounted(proxies: Sequence[str]) -> str:
    """Lines of the map. What is no address is never a client's, and must not become a part of the configuration."""
    return "".join(f'        "{address}" "";\n' for address in sorted(set(map(_plain_address, proxies)) - {""}))


def _mesh(networks: Sequence[str]) -> str:
    """Lines of the map. Raise ``ValueError`` for what is no network."""
    return "".join(f"        {network} 1;\n" for network in map(ipaddress.ip_network, networks))


def _plain_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
