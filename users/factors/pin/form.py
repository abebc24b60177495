"""What a server can say of PINs."""

from __future__ import annotations

from django import forms

from .enrolment import LONGEST, SHORTEST


class PinSettings(forms.Form):
    """``shortest``: users whose PIN has fewer characters are refused. Only a PIN that is typed tells how long it is:
    what is stored is a hash."""

    shortest = forms.IntegerField(
        label="Shortest PIN",
        min_value=SHORTEST,
        max_value=LONGEST,
        initial=SHORTEST,
        help_text="Characters; whose PIN is shorter needs a new one.",
    )
