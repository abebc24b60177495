"""WHERE: hosts, the servers that run on them, what they route, and who has which tunnel address."""

from .address import Address
from .client import ClientNetwork, PortForward, Protocol
from .host import Host
from .route import Route, SplitDomain
from .server import PinMode, Server, ServerHost

__all__ = [
    "Address",
    "ClientNetwork",
    "Host",
    "PinMode",
    "PortForward",
    "Protocol",
    "Route",
    "Server",
    "ServerHost",
    "SplitDomain",
]
