"""Django's PostgreSQL backend, which leaves a server that takes no changes any more."""
