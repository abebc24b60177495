"""What a password of an administrator must not be."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

from users.models import OneTimePassword


class NotTheOneTimePassword:
    """A validator of AUTH_PASSWORD_VALIDATORS: the first password cannot be chosen again."""

    def validate(self, password: str, user: User | None = None) -> None:
        # Of an unsaved account there is none yet.
        if user is None or user.pk is None or not OneTimePassword.objects.filter(user=user).exists():
            return
        if user.check_password(password):
            raise ValidationError("Choose one that is different from the one-time password.", code="one_time")

    def get_help_text(self) -> str:
        return "Your password can't be the one-time password that you were given."
