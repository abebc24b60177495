"""What a server can say of riddles."""

from __future__ import annotations

from django import forms


class RiddleSettings(forms.Form):
    language = forms.ChoiceField(choices=[("greek", "Greek"), ("norse", "Norse")], initial="greek")
    loud = forms.BooleanField(required=False, initial=False)
    hint = forms.CharField(required=False, initial="")
