"""What a host's worker may do as root, in setpriv's words; it is root for what is root's, and has no more rights than
these: interfaces, routes and firewall; probes; DNS and WireGuard on low ports; to start unbound and
openvpn, which become users of their own, and to end them; and to take all other rights off openvpn (setpcap)."""

CAPABILITIES = ("net_admin", "net_raw", "net_bind_service", "setuid", "setgid", "kill", "setpcap")
