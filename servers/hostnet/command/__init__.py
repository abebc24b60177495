"""``bin/host``: a machine joins an installation, says how it is, and leaves."""
