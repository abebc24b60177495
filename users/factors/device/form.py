"""What a server can say of registered devices."""

from __future__ import annotations

from django import forms


class DeviceSettings(forms.Form):
    """``most``: a user who has so many confirmed devices can register no other one."""

    most = forms.IntegerField(
        label="Most devices",
        min_value=1,
        max_value=1000,
        initial=10,
        help_text="Of one user; who has so many must have one revoked first.",
    )
