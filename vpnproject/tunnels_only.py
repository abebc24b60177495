"""gateway web's door: what has not come through a tunnel is not answered at all."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseForbidden

from servers.gateways import Gateways

# A place of the front's own, which ends the connection without a word. To a client that would be no final answer.
HANG_UP = "/.hang_up"


class TunnelsOnly:
    """Middleware. Where the connection came from and to is what the front says (``behind_front``)."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._gateways = Gateways()

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if self._gateways.admits(request.META.get("REMOTE_ADDR", ""), request.META.get("SERVER_ADDR", "")):
            return self._get_response(request)
        return HttpResponseForbidden(headers={"X-Accel-Redirect": HANG_UP})
