"""Signing in to somebody else's service in a browser, while a connect waits for it.

``sign_ins`` keeps what is open, ``waiting`` holds the client, ``pages`` is what the user sees, ``factor`` what every
factor of this kind shares.
"""
