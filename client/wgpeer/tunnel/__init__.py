"""The machine's side of a connection: WireGuard, addresses, routes, DNS. ``machine.LinuxTunnel`` is all of it."""
