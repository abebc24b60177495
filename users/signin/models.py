"""What is kept of a sign-in after the connect that waited for it."""

from __future__ import annotations

from django.db import models

from core.crypto import SecretField


class SignInGrant(models.Model):
    """What a provider gave with a sign-in so that it can be asked about the account again; see ``users.signin.grants``.

    ``refresh_token``: the newest, as many are good once, empty where there is none; ``account``: by which the
    provider's directory knows them, empty where it has none. ``serial`` grows with each token, so that an answer that
    comes late changes nothing. ``groups``: the last that the provider named, None where it does not say. ``agreed``:
    when it last said that the account is fine; ``due``: when it is asked next; ``silent_since``: since when it gives no
    answer.
    """

    user = models.ForeignKey("users.VpnUser", on_delete=models.CASCADE, related_name="sign_in_grants")
    provider = models.ForeignKey("users.Provider", on_delete=models.CASCADE, related_name="grants")
    refresh_token = SecretField()
    account = models.CharField(max_length=255, blank=True, default="")
    groups = models.JSONField(null=True)
    agreed = models.DateTimeField()
    due = models.DateTimeField(db_index=True)
    silent_since = models.DateTimeField(null=True)
    serial = models.PositiveBigIntegerField(default=0)

    class Meta:
        app_label = "users"
        constraints = [models.UniqueConstraint(fields=["user", "provider"], name="one_grant_of_user_and_provider")]

    def __str__(self) -> str:
        return "sign-in grant"
