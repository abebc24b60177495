"""Pings and syncs of this host's clients on their way to a gateway web on another machine."""
