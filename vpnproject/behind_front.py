"""What web and gateway web know of a request that comes by way of the front (``runner.front``)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from core import request_id

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


LONGEST = 300.0  # seconds; the front itself waits no longer for an answer


def waited(since: str) -> float:
    """Seconds since the front had a request whole (``since``, Unix seconds by this machine's clock, which is read here
    as the front reads it). What cannot be is a clock that was set meanwhile, and counts as nothing."""
    try:
        seconds = time.clock_gettime(time.CLOCK_REALTIME) - float(since)
    except ValueError:  # there is no front
        return 0.0
    return seconds if 0 < seconds <= LONGEST else 0.0


class BehindFront:
    """A WSGI application whose clients have the addresses that the front says, and reached the address it says.
    ``WAITED`` is for how many seconds the request has, ``REQUEST_ID`` its name in the log. ``pool`` is what this pool
    of threads says of every request: ``WAIT_ELSEWHERE``, that what waits for the servers of others goes on in the other
    pool, or ``HANDED_OVER``, that it comes from there.

    Only the front and root reach the unix socket that this listens on, and the front overwrites the headers whatever a
    client sent by their names. Without them nobody knows whose request it is: then there is no address.
    """

    def __init__(self, application: WSGIApplication, scheme: str, pool: str = "") -> None:
        self._application = application
        self._scheme = scheme
        self._pool = pool

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["REMOTE_ADDR"] = environ.pop("HTTP_X_FRONT_ADDRESS", "")
        environ["SERVER_ADDR"] = environ.pop("HTTP_X_FRONT_LOCAL", "")
        environ["WAITED"] = str(waited(environ.pop("HTTP_X_FRONT_TIME", "")))
        environ["wsgi.url_scheme"] = self._scheme
        environ["REQUEST_ID"] = request_id.begin()
        if self._pool:
            environ[self._pool] = "yes"
        return self._application(environ, start_response)
