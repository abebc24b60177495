"""A user's static addresses on their page: one for each server that they may use, editable."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.http import HttpRequest

from core.admin.page import Page, Panel, posted
from servers import addresses
from servers.access import servers_of
from servers.models import Address, Server
from users.models import VpnUser


class AddressesMixin(Page[VpnUser]):
    def panels(self, request: HttpRequest, obj: VpnUser) -> list[Panel]:
        held = Address.objects.filter(user=obj, dynamic=False).select_related("server")
        by_server = {address.server_id: address for address in held}
        usable = list(servers_of(obj))
        usable += [address.server for address in held if address.server not in usable]
        rows = [(server, by_server.get(server.pk)) for server in usable]
        data = {"rows": rows, "user": obj, "url": self.post_url(obj, "set_address")}
        data["may_change"] = self.may_post(request, "set_address")
        return [*super().panels(request, obj), Panel("Static addresses", "admin/servers/addresses.html", data, place=3)]

    @posted("users.change_vpnuser")
    def set_address(self, request: HttpRequest, user: VpnUser) -> None:
        """Give the user the address in the form; a connection on another address of theirs is ended."""
        number = request.POST.get("server", "")
        server = Server.objects.filter(pk=int(number)).first() if number.isascii() and number.isdigit() else None
        if server is None:
            messages.error(request, "There is no such server any more.")
            return
        try:
            address = addresses.assign(server, user, request.POST.get("address", ""))
        except ValidationError as error:
            messages.error(request, f"{user} keeps the address on {server}. {' '.join(error.messages)}")
        except IntegrityError:
            messages.error(request, f"That address of {server} was taken at the same moment. Choose another one.")
        else:
            self.done(request, user, f"{user} has {address.address} on {server}.")
