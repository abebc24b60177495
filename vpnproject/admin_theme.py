"""How the admin looks: titles, the side bar and the tabs above lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy

Callback = Callable[[HttpRequest], Any]


def _may_view(app: str, model: str) -> Callback:
    return lambda request: request.user.has_perm(f"{app}.view_{model}")


def _item(title: str, icon: str, app: str, model: str, **more: Any) -> dict[str, Any]:
    link = reverse_lazy(f"admin:{app}_{model}_changelist")
    return {"title": title, "icon": icon, "link": link, "permission": _may_view(app, model), **more}


def _tab(title: str, app: str, model: str, parameter: str, value: str, default: str = "") -> dict[str, Any]:
    """A tab that sets one filter of a list."""

    def link(request: HttpRequest) -> str:
        address = str(reverse_lazy(f"admin:{app}_{model}_changelist"))
        return f"{address}?{parameter}={value}" if value else address

    def active(request: HttpRequest) -> bool:
        return request.path.endswith(f"/{app}/{model}/") and request.GET.get(parameter, default) == value

    return {"title": title, "link": link, "active": active, "permission": _may_view(app, model)}


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "VPN",
    "SITE_HEADER": "VPN",
    "SITE_SUBHEADER": "People on WireGuard",
    "SITE_SYMBOL": "vpn_lock",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("core/icon.svg")}],
    "SITE_URL": None,
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "wgpeers.admin.dashboard.dashboard",
    "ACCOUNT": {
        "navigation": [
            {"title": "Second factor and sessions", "link": reverse_lazy("second_factor:account")},
            {"title": "Change password", "link": reverse_lazy("admin:password_change")},
        ]
    },
    "LOGIN": {"form": "vpnproject.sign_in.SignInForm"},
    "STYLES": [lambda request: static("core/admin.css")],
    "SCRIPTS": [lambda request: static("core/admin.js")],
    "SIDEBAR": {
        "show_search": False,
        "navigation": [
            {"items": [{"title": "Dashboard", "icon": "dashboard", "link": reverse_lazy("admin:index")}]},
            {
                "title": "People",
                "items": [
                    _item("Users", "person", "users", "vpnuser"),
                    _item("Groups", "sell", "users", "group"),
                    _item("Organizations", "apartment", "users", "organization"),
                    _item("Providers", "key", "users", "provider"),
                ],
            },
            {
                "title": "Servers",
                "items": [
                    _item("Servers", "vpn_lock", "servers", "server"),
                    _item("Hosts", "dns", "servers", "host"),
                    _item("Server links", "link", "servers", "serverlink"),
                    _item("Other installations", "share", "servers", "outsidelink"),
                    _item("Mesh", "hub", "servers", "mesh"),
                    _item("Port forwards", "move_up", "servers", "portforward"),
                    _item("Client networks", "home_work", "servers", "clientnetwork"),
                    _item("Client regions", "public", "servers", "clientregion"),
                ],
            },
            {
                "title": "Connections",
                "items": [
                    _item("Connections", "lan", "wgpeers", "connection"),
                ],
            },
            {
                "title": "Log",
                "items": [
                    _item("Decisions", "fact_check", "wgpeers", "decision"),
                    _item("Jobs", "pending_actions", "core", "job"),
                ],
            },
            {
                "title": "This site",
                "items": [
                    _item("Administrators", "admin_panel_settings", "auth", "user"),
                    _item("Roles", "badge", "auth", "group"),
                ],
            },
        ],
    },
    "TABS": [
        {
            "models": ["wgpeers.connection"],
            "items": [
                _tab("Connected now", "wgpeers", "connection", "show", "live", default="live"),
                _tab("History", "wgpeers", "connection", "show", "ended", default="live"),
            ],
        },
        {
            "models": ["wgpeers.decision"],
            "items": [
                _tab("All", "wgpeers", "decision", "what", ""),
                _tab("Allowed", "wgpeers", "decision", "what", "allowed"),
                _tab("Refused", "wgpeers", "decision", "what", "refused"),
                _tab("Connections ended", "wgpeers", "decision", "what", "ended"),
            ],
        },
    ],
}
