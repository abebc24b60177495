"""The second factor that administrators sign in with: an authenticator app, passkeys, and recovery codes.

Nothing here knows pages: they are in ``vpnproject.second_factor``. What a page asks before something that must not be
done by whoever finds an open browser is in ``core.admin.asking_again``.
"""
