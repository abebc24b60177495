"""Below ``/admin/second-factor/``."""

from django.contrib import admin
from django.urls import path

from . import account, passkeys, views

app_name = "second_factor"
closed = admin.site.admin_view

urlpatterns = [
    path("", closed(account.show), name="account"),
    path("verify/", closed(views.verify), name="verify"),
    path("confirm/", closed(views.confirm), name="confirm"),
    path("enrol/", closed(views.enrol), name="enrol"),
    path("authenticator/", closed(views.authenticator), name="authenticator"),
    path("authenticator/remove/", closed(account.remove_authenticator), name="authenticator_remove"),
    path("recovery-codes/", closed(account.recovery_codes), name="recovery_codes"),
    path("sessions/end/", closed(account.end_sessions), name="sessions_end"),
    path("passkeys/question/", closed(passkeys.question), name="passkey_question"),
    path("passkeys/verify/", closed(passkeys.verify), name="passkey_verify"),
    path("passkeys/creation/", closed(passkeys.creation), name="passkey_creation"),
    path("passkeys/add/", closed(passkeys.add), name="passkey_add"),
    path("passkeys/remove/", closed(passkeys.remove), name="passkey_remove"),
]
