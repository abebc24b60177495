"""The machine's side of a connection: WireGuard, addresses, routes, DNS. ``machine.MachineTunnel`` is all of it."""
