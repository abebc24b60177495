"""The way of WireGuard's own packets, which must not go into a tunnel."""
