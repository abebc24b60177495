"""Links between servers that OpenVPN carries: a process for each end, its interface, and what is routed into it."""
