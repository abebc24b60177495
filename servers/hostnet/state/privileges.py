"""What a host's worker may do as root, in setpriv's words; it is root for what is root's, and has no more rights than
these: interfaces, routes and firewall; probes; DNS and WireGuard on low ports; and to start unbound, which becomes a
user of its own, and to end it."""

CAPABILITIES = ("net_admin", "net_raw", "net_bind_service", "setuid", "setgid", "kill")
