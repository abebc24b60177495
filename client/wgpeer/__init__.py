"""wgpeer: a WireGuard client that asks for a new key and a new permission for every connection."""

__version__ = "0.1.0"
