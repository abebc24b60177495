"""What web and gateway web know of a request that comes by way of the front (``runner.front``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class BehindFront:
    """A WSGI application whose clients have the addresses that the front says, and reached the address it says, at the
    time that it says (Unix seconds).

    Only the front and root reach the unix socket that this listens on, and the front overwrites the headers whatever a
    client sent by their names. Without them nobody knows whose request it is: then there is no address.
    """

    def __init__(self, application: WSGIApplication, scheme: str) -> None:
        self._application = application
        self._scheme = scheme

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["REMOTE_ADDR"] = environ.pop("HTTP_X_FRONT_ADDRESS", "")
        environ["SERVER_ADDR"] = environ.pop("HTTP_X_FRONT_LOCAL", "")
        environ["REQUEST_TIME"] = environ.pop("HTTP_X_FRONT_TIME", "")
        environ["wsgi.url_scheme"] = self._scheme
        return self._application(environ, start_response)
