"""gateway web's door: what has not come through a tunnel is not answered at all."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseForbidden

from servers import mesh
from servers.gateways import Gateways

# A place of the front's own, which ends the connection without a word. To a client that would be no final answer.
HANG_UP = "/.hang_up"


class TunnelsOnly:
    """Middleware. Where the connection came from and to is what the front says (``behind_front``)."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._gateways = Gateways(mesh.carried)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        meta = request.META
        if self._gateways.admits(meta.get("REMOTE_ADDR", ""), meta.get("SERVER_ADDR", "")):
            return self._get_response(request)
        # What a host says that forwards it. Of anybody else it means nothing.
        client, local = meta.get("HTTP_X_HOST_CLIENT", ""), meta.get("HTTP_X_HOST_GATEWAY", "")
        if self._gateways.forwards(meta.get("REMOTE_ADDR", ""), client, local):
            meta["REMOTE_ADDR"], meta["SERVER_ADDR"] = client, local
            return self._get_response(request)
        return HttpResponseForbidden(headers={"X-Accel-Redirect": HANG_UP})
