"""The clients' API: parse, call, seal. No decisions are made here."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import redis
from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.views import APIView

from core import clock
from core.client_address import client_address
from core.crypto import CannotDecrypt
from core.rate_limits import count_of
from core.redis_store import RedisUnavailable
from servers.policy import policy_of
from users.authorize import Denied, MustWait, Pending, authorize
from users.factors.base import Attempt
from users.signin.waiting import still_waits

from .lifecycle import accounts, connect, decisions, renewals
from .lifecycle.ping import ping
from .lifecycle.turns import turns
from .profiles import sync
from .protocol import envelope
from .protocol.errors import Refusal, SealedRefusal

log = logging.getLogger(__name__)
# The front's name for the pool of threads in which a connect may wait for the servers of others.
WAITING = "@waiting"


class ClientView(APIView):
    """What all of them share: a refusal becomes its status and a short JSON error; a fault of ours a 5xx, because to
    a client that pings any 4xx is final."""

    metadata_class = None  # no OPTIONS

    @property
    def default_response_headers(self) -> dict[str, str]:
        """None: what a path allows is said where it matters, with a 405, and not looked up for each ping."""
        return {}

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpRequest:  # type: ignore[override]
        """As it came: there is nothing to parse, to negotiate or to authenticate that the framework could do."""
        return request

    def initial(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        """None of the framework's own checks. Whatever ``Accept`` or ``?format=`` say, the answer is JSON: negotiation
        could only turn a good request into a failed one. The envelope is the authentication."""

    def handle_exception(self, exc: Exception) -> HttpResponse:  # type: ignore[override]
        if isinstance(exc, Refusal):
            return refusal_response(exc)
        if isinstance(exc, RedisUnavailable | redis.RedisError | DatabaseError):
            log.error("a store is down: %s", type(exc).__name__)
            return refusal_response(Refusal("store_down", "try again", 1))
        if isinstance(exc, CannotDecrypt):
            log.error("%s", exc)
            return json_response({"error": "internal"}, 500)
        if isinstance(exc, MethodNotAllowed):
            return json_response({"error": "method_not_allowed"}, 405, {"Allow": ", ".join(self.allowed_methods)})
        log.exception("a request failed")
        return json_response({"error": "internal"}, 500)


def json_response(data: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> HttpResponse:
    text = json.dumps(data, separators=(",", ":"))
    return HttpResponse(text.encode(), content_type="application/json", status=status, headers=headers)


def refusal_response(refusal: Refusal) -> HttpResponse:
    headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else None
    return json_response({"error": refusal.code, "detail": refusal.detail}, refusal.status, headers)


@csrf_exempt
def not_found(request: HttpRequest) -> HttpResponse:
    """Any other path below the clients' own: for programs, so in JSON too."""
    return json_response({"error": "not_found"}, 404)


def waited(request: HttpRequest) -> float:
    """For how many seconds the request has waited for its turn since the front had it whole."""
    return float(request.META.get("WAITED", 0.0))


def asked_address(request: HttpRequest) -> str:
    """The name or address that the client sent its request to, without port and brackets. Nothing proves it: it may
    say where somebody would like to go, and no more."""
    host = str(request.META.get("HTTP_HOST", ""))
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def signed_request(request: HttpRequest) -> envelope.Signed:
    """The request's envelope, read and well formed; nothing is verified yet."""
    meta = request.META
    headers = {name: meta.get(f"HTTP_AUTH_{name.upper()}", "") for name in ("token", "timestamp", "nonce", "signature")}
    return envelope.parse(request.method or "", request.path, headers, _body(request))


def _body(request: HttpRequest) -> bytes:
    if request.method == "GET":
        return b""
    # Read no more than the limit and one byte, whatever length the client claims.
    return request.read(envelope.MAX_BODY + 1)


class ConnectView(ClientView):
    """``POST /key/wg/…``, and what ``POST /key/wg_wait/…`` shares with it."""

    def post(self, request: HttpRequest, organization: str, user: str, server: str) -> HttpResponse:
        now = clock.now()
        # Before anything is looked at: what of it were done in vain would cost the next one its turn.
        if pause := turns.come_again(waited(request)):
            raise Refusal("busy", "too many connect at this moment", pause)
        signed = signed_request(request)
        account = accounts.find(organization, user, server)
        authentic = envelope.authenticate(signed, accounts.credentials_of(account))
        if account is None:
            raise Refusal("unauthorized", "not authorized")
        attempt, address = None, client_address(request)
        # The pool that handed it over has counted it, and taken its nonce.
        is_new = "HANDED_OVER" not in request.META
        try:
            plaintext = envelope.open_request(authentic, now, settings.CLOCK_WINDOW, remember_nonce=is_new)
            attempt = _attempt(plaintext, address, envelope.device_of(signed, plaintext))
            if is_new:
                self.count(account)
        except Refusal as refusal:
            decisions.record_refusal(account, attempt, now, refusal, address)
            raise
        may_wait = "WAIT_ELSEWHERE" not in request.META
        try:
            account, now = self.hold(account, plaintext, now, may_wait=may_wait)
            answer = self.answer(account, attempt, now, asked_address(request), may_wait=may_wait)
        except MustWait:
            # The front takes the request there as it came; no client sees this answer.
            return HttpResponse(headers={"X-Accel-Redirect": WAITING})
        if isinstance(answer, Pending):
            return json_response(_asked_back(answer, authentic))
        return json_response(envelope.seal(answer, authentic))

    def count(self, account: accounts.Account) -> None:
        _count(account)

    def hold(
        self, account: accounts.Account, plaintext: envelope.Plaintext, now: float, *, may_wait: bool
    ) -> tuple[accounts.Account, float]:
        """The account as it is when the answer is made, and when that is. Raise ``MustWait``."""
        return account, now

    def answer(
        self, account: accounts.Account, attempt: Attempt, now: float, asked: str, *, may_wait: bool
    ) -> dict[str, Any] | Pending:
        try:
            return _answer(account, attempt, now, asked, may_wait=may_wait)
        except Refusal as refusal:
            decisions.record_refusal(account, attempt, now, refusal, attempt.address)
            raise


class WaitView(ConnectView):
    """``POST /key/wg_wait/…``, the second half of a sign-in: held until the user has signed in, then answered as a
    connect. Without a token, or with one that nobody waits for, it is a connect."""

    def count(self, account: accounts.Account) -> None:
        """Only once it is a connect: a client asks again and again until its user has signed in."""

    def hold(
        self, account: accounts.Account, plaintext: envelope.Plaintext, now: float, *, may_wait: bool
    ) -> tuple[accounts.Account, float]:
        token = plaintext.text("sso_token")
        if token and not may_wait:
            raise MustWait
        if token and still_waits(account.user, token):
            raise Refusal("not_signed_in", "the user has not signed in yet")
        _count(account)
        if not token:
            return account, now
        # While it was held, the user may have been disabled or the server stopped.
        again = accounts.find(account.user.organization.public_id, account.user.public_id, account.server.public_id)
        if again is None:
            raise Refusal("unauthorized", "not authorized")
        return again, clock.now()


def _asked_back(verdict: Pending, authentic: envelope.Authentic) -> dict[str, Any]:
    """A sign-in is asked for without a box, as existing clients want it; our own requires the signature. Whatever else
    (a device's registration key) is sealed as every answer."""
    answer = dict(verdict.answer)
    if "sso_token" not in answer:
        return envelope.seal(answer, authentic)
    text = f"{answer['sso_token']}&{answer['sso_url']}"
    return {**answer, "signature": envelope.sign(text, authentic.credentials)}


def _count(account: accounts.Account) -> None:
    if not count_of("connects", account.user.public_id, settings.CONNECTS_PER_HOUR, 3600):
        # Each that is allowed leaves rows for ever: whoever holds a profile must not be able to fill the disk.
        raise Refusal("too_many_requests", "this user has connected too often within an hour", 60)


def _answer(
    account: accounts.Account, attempt: Attempt, now: float, asked: str, *, may_wait: bool
) -> dict[str, Any] | Pending:
    """What the client is told, in a box, or what it is asked back; raise ``Refusal`` for what it gets as an error, and
    ``MustWait``."""
    if not account.server.running:
        raise Refusal("server_stopped", "this server is stopped", 30)
    attempt = renewals.to_be_judged(account, attempt, now)
    verdict = authorize(account.user, policy_of(account.server), attempt, now, may_wait=may_wait)
    layers = (*decisions.ENVELOPE_OK, *verdict.layers)
    if isinstance(verdict, Pending):
        decisions.record(account, attempt, layers, now)
        return verdict
    if isinstance(verdict, Denied):
        decisions.record(account, attempt, layers, now, code=verdict.code, detail=verdict.detail)
        return _refused(
            verdict.reason + (f" Try again in {_time(verdict.retry_after)}." if verdict.retry_after else "")
        )
    try:
        # Anew: judging may have taken a minute, and a connection's times begin with it.
        configuration = connect.connect(account, attempt, replace(verdict, layers=layers), clock.now(), asked)
    except SealedRefusal as refusal:
        decisions.record(account, attempt, (*layers, ("connect", refusal.code)), now)
        return _refused(refusal.reason)
    return {"allow": True, "reason": None, "configuration": configuration}


def _refused(reason: str) -> dict[str, Any]:
    return {"allow": False, "reason": reason, "configuration": None}


def _time(seconds: int) -> str:
    minutes = -(-seconds // 60)
    if minutes > 120:
        return f"{-(-minutes // 60)} hours"
    return f"{minutes} minutes" if minutes > 1 else f"{seconds} s"


def _attempt(plaintext: envelope.Plaintext, address: str | None, device_key: str) -> Attempt:
    return Attempt(
        device_id=plaintext.text("device_id"),
        device_name=plaintext.text("device_name"),
        platform=plaintext.text("platform") or "unknown",
        wg_public_key=plaintext.text("wg_public_key"),
        address=address or "",
        password=plaintext.text("password"),
        token=plaintext.text("token"),
        device_hostname=plaintext.text("device_hostname"),
        client_version=plaintext.text("client_ver"),
        device_key=device_key,
        renews=plaintext.text("renews"),
    )


class WireGuardView(ConnectView):
    """``/key/wg/…``: POST connects, PUT is the ping."""

    def put(self, request: HttpRequest, organization: str, user: str, server: str) -> HttpResponse:
        now = clock.now()
        said = ping(signed_request(request), (organization, user, server), client_address(request), now)
        answer: dict[str, Any] = {"status": said.is_open, "timestamp": int(now)}
        if said.ended_because:
            answer["reason"] = said.ended_because
        return json_response(envelope.seal(answer, said.authentic))


class PingView(WireGuardView):
    """``/key/wg/…`` on gateway web: pings only. A connect belongs on the API's own address, where it may wait."""

    http_method_names = ["put"]


class SyncView(ClientView):
    """``GET /key/sync/…``: what changed in the profile."""

    def get(self, request: HttpRequest, organization: str, user: str, server: str, sync_hash: str) -> HttpResponse:
        now = clock.now()
        signed = signed_request(request)
        account = accounts.find(organization, user, server)
        authentic = envelope.authenticate(signed, accounts.credentials_of(account))
        envelope.check_get(authentic, now, settings.CLOCK_WINDOW)
        if account is None:
            raise Refusal("unauthorized", "not authorized")
        return json_response(sync.sync(account, sync_hash))
