"""WHERE: hosts, the servers that run on them, what they route, and who has which tunnel address."""

from .address import Address
from .by_openvpn import ByOpenVpn, address_of, among
from .client import ClientNetwork, PortForward, Protocol
from .factor import FactorMode, IfUnavailable, ServerFactor
from .host import Host
from .link import Carrier, ServerLink, ends_of, linked_with, links_of, with_linked
from .mesh import JoinToken, Mesh, MeshNode
from .outside_link import OutsideLink, end_of_outside, new_link_id
from .region import ClientRegion
from .route import Route, SplitDomain
from .server import Server, ServerHost, hosts_of, hosts_of_linked

__all__ = [
    "Address",
    "ByOpenVpn",
    "Carrier",
    "ClientNetwork",
    "ClientRegion",
    "FactorMode",
    "Host",
    "IfUnavailable",
    "JoinToken",
    "Mesh",
    "MeshNode",
    "OutsideLink",
    "PortForward",
    "Protocol",
    "Route",
    "Server",
    "ServerFactor",
    "ServerHost",
    "ServerLink",
    "SplitDomain",
    "address_of",
    "among",
    "end_of_outside",
    "ends_of",
    "hosts_of",
    "hosts_of_linked",
    "linked_with",
    "links_of",
    "new_link_id",
    "with_linked",
]
