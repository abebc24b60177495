"""What a provider is told of us, and where it has browsers post its answers."""

from __future__ import annotations

from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.csrf import csrf_exempt

from core import clock
from users.factors import providers
from users.models import Provider
from users.signin import posted, sign_ins
from users.signin.pages import held_to_policy, say

from . import metadata
from .factor import KIND, answers_to, entity_id_of
from .form import SamlProviderForm, signing_pair


@csrf_exempt  # the form is the provider's; what it brings is looked at where the browser shows our cookie
@held_to_policy("POST")
def answers(request: HttpRequest) -> HttpResponse:
    state, answer = (str(request.POST.get(name, "")) for name in ("RelayState", "SAMLResponse"))
    if not 0 < len(answer) <= posted.LONGEST or not sign_ins.is_open(state, KIND, clock.now()):
        return say(request, "gone", status=400)
    posted.keep(state, answer)
    response = redirect(f"/sso/back?{urlencode({'state': state})}")
    # "See other": whatever a browser makes of the others, this one it follows by GET.
    response.status_code = 303
    return response


@held_to_policy("GET")
def about_us(request: HttpRequest, provider: str) -> HttpResponse:
    row = Provider.objects.filter(kind=KIND, public_id=provider).first()
    try:
        config = providers.config_of(row, SamlProviderForm) if row else None
    except providers.NotConfigured:
        config = None
    if config is None:
        return say(request, "gone", status=404)
    pem = str(config.settings["our_certificate"])
    certificate = signing_pair(pem, config.secrets["our_key"])[0] if pem else None
    said = metadata.ours(entity_id_of(config), answers_to(config), certificate)
    return HttpResponse(
        said, content_type="application/samlmetadata+xml", headers={"X-Content-Type-Options": "nosniff"}
    )
