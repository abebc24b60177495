"""How the kernel tells WireGuard's own packets, and links of ours, from all others. Numbers that nobody else is known
to use (0x7767 is "wg"); the mark leaves the lower half of its bits to others."""

MARK = 0x77670000  # of each packet that WireGuard sends to its peers
GROUP = 0x7767  # of our links
TABLE = 0x7767  # of the routes that such packets take where the main table would send them into a tunnel
