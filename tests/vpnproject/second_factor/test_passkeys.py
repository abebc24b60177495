"""A passkey passes for its own administrator, session, site and challenge, with its user verified, and never twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from core import passkeys
from core.crypto import keyed_hash
from core.models import AdminAuthenticator, Passkey
from core.redis_store import redis_client
from tests.concurrency import together
from tests.conftest import Clock
from tests.passkey_maker import PRESENT, SITE, VERIFIED, PasskeyMaker, raw

from .administrators import (
    ACCOUNT,
    CONFIRM,
    ENROL,
    PASSWORD,
    VERIFY,
    administrator,
    history,
    is_in,
    leads_to,
)

BELOW = "/admin/second-factor/passkeys/"
HTTPS: dict[str, Any] = {"HTTP_HOST": SITE, "HTTP_REFERER": f"https://{SITE}/"}


class SecureClient(Client):
    """One that comes over TLS."""

    def generic(self, *args: Any, **kwargs: Any) -> Any:
        return super().generic(*args, **(kwargs | {"secure": True}))


@pytest.fixture(autouse=True)
def root(transactional_db: None, settings: Settings, fixed_clock: Clock) -> User:
    settings.ADMIN_SECOND_FACTOR = "required"
    return administrator()


def with_password(name: str = "root", **headers: Any) -> Client:
    client = SecureClient(REMOTE_ADDR="192.0.2.7", **(HTTPS | headers))
    assert client.post("/admin/login/", {"username": name, "password": PASSWORD}).status_code == 302
    return client


def options(client: Client, purpose: str) -> dict[str, Any]:
    answer = client.post(f"{BELOW}{purpose}/")
    assert answer.status_code == 200, answer.content
    return dict(json.loads(answer.content))


def add(client: Client, maker: PasskeyMaker, name: str = "laptop") -> Any:
    return client.post(f"{BELOW}add/", {"name": name, "answer": maker.create(options(client, "creation"))})


def show(client: Client, maker: PasskeyMaker) -> Any:
    return client.post(f"{BELOW}verify/", {"answer": maker.get(options(client, "question"))})


@pytest.fixture
def maker(root: User) -> PasskeyMaker:
    """A passkey that is set up."""
    found = PasskeyMaker()
    assert add(with_password(), found).status_code == 200
    return found


def test_it_is_the_first_factor_and_signs_in(root: User) -> None:
    maker, client = PasskeyMaker(), with_password()
    assert "Recovery codes" in add(client, maker, " My\x00 laptop ").content.decode()
    assert is_in(client)
    other = with_password()
    assert leads_to(other.get("/admin/")) == VERIFY
    before = other.session.session_key
    assert leads_to(show(other, maker)) == "/admin/"
    assert is_in(other)
    assert other.session.session_key != before
    assert (Passkey.objects.get().name, Passkey.objects.get().counter) == ("My laptop", 1)
    assert "Added the passkey “My laptop”." in history(root)
    assert "Signed in from 192.0.2.7 with the passkey “My laptop”." in history(root)


def test_what_the_browser_is_asked(maker: PasskeyMaker) -> None:
    client = with_password()
    asked = options(client, "question")
    assert (asked["rpId"], asked["userVerification"]) == (SITE, "required")
    assert len(asked["allowCredentials"]) == 1
    assert show(client, maker).status_code == 302
    made = options(client, "creation")
    assert made["authenticatorSelection"]["userVerification"] == "required"
    assert (made["rp"]["id"], len(made["excludeCredentials"])) == (SITE, 1)


def refused(client: Client, answer: str) -> str:
    """What is said of an answer that does not pass."""
    response = client.post(f"{BELOW}verify/", {"answer": answer}, follow=True)
    assert response.redirect_chain[0][0].startswith(VERIFY)
    assert not is_in(client)
    return " ".join(str(message) for message in response.context["messages"])


WRONG: list[tuple[str, Any]] = [
    ("of another origin", {"origin": "https://evil.example.com"}),
    ("of another port", {"origin": f"https://{SITE}:8443"}),
    ("without TLS", {"origin": f"http://{SITE}"}),
    ("of another site", {"site": "example.com"}),
    ("with its user not verified", {"flags": PRESENT}),
    ("with nobody present", {"flags": VERIFIED}),
    ("by another key", {"key": PasskeyMaker().key}),
    ("unknown", {"credential_id": b"x" * 32}),
]


@pytest.mark.parametrize("changes", [changes for _, changes in WRONG], ids=[name for name, _ in WRONG])
def test_an_answer_that_is_not_right_is_refused(maker: PasskeyMaker, changes: dict[str, Any]) -> None:
    client = with_password()
    for name, value in changes.items():
        setattr(maker, name, value)
    assert "not the answer of a passkey of yours" in refused(client, maker.get(options(client, "question")))


@pytest.mark.parametrize("changes", [changes for _, changes in WRONG[:6]], ids=[name for name, _ in WRONG[:6]])
def test_a_new_one_that_is_not_right_is_not_kept(changes: dict[str, Any]) -> None:
    assert leads_to(add(with_password(), PasskeyMaker(**changes))) == ENROL
    assert not Passkey.objects.exists()


@pytest.mark.parametrize("answer", ["", "{}", "[]", "null", "7", '{"id": 1}', "\x00", '{"id":"a","rawId":"a"}'])
def test_nonsense_is_refused(maker: PasskeyMaker, answer: str) -> None:
    client = with_password()
    options(client, "question")
    assert "not the answer of a passkey of yours" in refused(client, answer)


ODD: list[Any] = [None, 7, True, "", "é", "AAAA", [], {}, ["a"], {"a": 1}]


def twisted(answer: str) -> list[str]:
    """The answer with each part that WebAuthn looks at in turn something else, or gone."""
    found, whole = [], json.loads(answer)
    for path in [
        *((name,) for name in ("id", "rawId", "type", "response")),
        *(("response", name) for name in whole["response"]),
    ]:
        for odd in (*ODD, ...):
            copy = json.loads(answer)
            part = copy[path[0]] if path[1:] else copy
            part.pop(path[-1]) if odd is ... else part.update({path[-1]: odd})
            found.append(json.dumps(copy))
    return found


def test_an_answer_with_any_part_twisted_is_refused_in_words(maker: PasskeyMaker) -> None:
    administrator("carol")
    client, new = with_password(), with_password("carol")
    texts = twisted(maker.get(options(client, "question")))
    assert len(texts) == 77
    for text in texts:
        redis_client().set(key_of(client, "question"), challenge_of(text) or "AAAA")
        assert leads_to(client.post(f"{BELOW}verify/", {"answer": text})) == VERIFY, text
    for text in twisted(PasskeyMaker().create(options(new, "creation"))):
        redis_client().set(key_of(new, "creation"), challenge_of(text) or "AAAA")
        assert leads_to(new.post(f"{BELOW}add/", {"name": "x", "answer": text})) == ENROL, text


def key_of(client: Client, purpose: str) -> str:
    """Where the challenge of this session is kept."""
    options(client, purpose)
    kept_for = "show" if purpose == "question" else "add"
    return f"passkey:{keyed_hash('passkey challenge', kept_for, client.session.session_key or '')}"


def challenge_of(text: str) -> str:
    """The one that an answer is to, so that nothing but the twist keeps it from passing."""
    try:
        return str(json.loads(raw(json.loads(text)["response"]["clientDataJSON"]))["challenge"])
    except (KeyError, TypeError, ValueError):
        return ""


def test_a_challenge_is_answered_once(maker: PasskeyMaker) -> None:
    maker.step = 0  # no counter that would tell
    client, other = with_password(), with_password()
    asked = options(client, "question")
    wrong = PasskeyMaker(credential_id=maker.credential_id).get(asked)
    refused(client, wrong)
    assert "answered already" in refused(client, maker.get(asked))
    asked = options(other, "question")
    answer = maker.get(asked)
    said = together([lambda: other.post(f"{BELOW}verify/", {"answer": answer}).headers["Location"]] * 4)
    assert sum(each == "/admin/" for each in said) == 1


def test_a_challenge_is_one_sessions_and_one_purposes(maker: PasskeyMaker) -> None:
    client, other = with_password(), with_password()
    answer = maker.get(options(client, "question"))
    options(other, "question")
    assert "not the answer" in refused(other, answer)
    show(client, maker)
    asked = options(client, "creation")
    assert leads_to(client.post(f"{BELOW}verify/", {"answer": maker.get(asked)})) == CONFIRM


def test_a_challenge_runs_out(maker: PasskeyMaker) -> None:
    client = with_password()
    answer = maker.get(options(client, "question"))
    [key] = redis_client().keys("passkey:*")
    assert 0 < redis_client().ttl(key) <= passkeys.ANSWER_WITHIN
    redis_client().delete(key)
    assert "took too long" in refused(client, answer)


@pytest.mark.parametrize("counter", [0, 1, 4])
def test_a_copy_is_found_by_its_counter(maker: PasskeyMaker, root: User, counter: int) -> None:
    maker.step = 5
    assert leads_to(show(with_password(), maker)) == "/admin/"
    maker.counter, maker.step = counter, 0
    client = with_password()
    assert "somebody may have a copy" in refused(client, maker.get(options(client, "question")))
    assert "there is a copy" in history(root)
    assert Passkey.objects.get().counter == 5
    assert Passkey.objects.get().locked is not None
    maker.counter, maker.step = 100, 5  # whichever of the two it is
    assert client.post(f"{BELOW}question/").status_code == 400


def test_one_that_was_locked_meanwhile_does_not_pass(maker: PasskeyMaker, root: User) -> None:
    client = with_password()
    answer = maker.get(options(client, "question"))
    Passkey.objects.update(locked=Passkey.objects.get().created)
    assert "is locked" in refused(client, answer)


def test_one_without_a_counter_works_again_and_again(maker: PasskeyMaker) -> None:
    maker.step = 0
    assert [leads_to(show(with_password(), maker)) for _ in range(3)] == ["/admin/"] * 3


def test_anothers_passkey_does_not_pass(maker: PasskeyMaker) -> None:
    administrator("carol")
    own = PasskeyMaker()
    assert add(with_password("carol"), own).status_code == 200
    carol = with_password("carol")
    assert "not the answer of a passkey of yours" in refused(carol, maker.get(options(carol, "question")))


def test_the_same_is_not_added_twice_and_several_are(maker: PasskeyMaker) -> None:
    client = with_password()
    show(client, maker)
    assert leads_to(add(client, maker)) == ACCOUNT
    assert Passkey.objects.count() == 1
    second = PasskeyMaker()
    assert leads_to(add(client, second, "key ring")) == "/admin/"
    assert leads_to(show(with_password(), second)) == "/admin/"
    pk = Passkey.objects.get(name="laptop").pk
    assert client.post(f"{BELOW}remove/", {"passkey": pk}).status_code == 302
    assert [each.name for each in Passkey.objects.all()] == ["key ring"]
    client.post(f"{BELOW}remove/", {"passkey": Passkey.objects.get().pk})
    assert Passkey.objects.count() == 1  # the last one stays where one is required


def test_anothers_passkey_is_not_removed(maker: PasskeyMaker) -> None:
    administrator("carol")
    carol = with_password("carol")
    add(carol, PasskeyMaker(), "carol's")
    carol.post(f"{BELOW}remove/", {"passkey": Passkey.objects.get(name="laptop").pk})
    assert Passkey.objects.filter(name="laptop").exists()


def test_whoever_enrolled_meanwhile_is_not_enrolled_over(root: User) -> None:
    """Of two sessions that know the password alone, the second finds a factor there and is asked for it."""
    thief, owner, theirs = with_password(), with_password(), PasskeyMaker()
    answer = theirs.create(options(thief, "creation"))
    add(owner, PasskeyMaker())
    assert thief.post(f"{BELOW}add/", {"name": "x", "answer": answer}).status_code == 302
    assert Passkey.objects.count() == 1
    assert not AdminAuthenticator.objects.exists()


@pytest.mark.parametrize("host", ["192.0.2.10", "[2001:db8::1]:8443", "192.0.2.10:8443"])
def test_at_an_address_there_are_no_passkeys(host: str) -> None:
    client = with_password(HTTP_HOST=host, HTTP_REFERER=f"https://{host}/")
    assert "Passkeys need a host name" in client.get(ENROL).content.decode()
    assert client.post(f"{BELOW}creation/").status_code == 400


def test_at_another_name_of_ours_the_page_says_where_it_works(maker: PasskeyMaker) -> None:
    client = with_password(HTTP_HOST="other.example.com", HTTP_REFERER="https://other.example.com/")
    assert "or for another host name" in client.get(VERIFY).content.decode()
    assert client.post(f"{BELOW}question/").status_code == 400


def test_without_redis_nothing_passes_and_it_is_said(maker: PasskeyMaker, settings: Settings) -> None:
    client = with_password()
    answer = maker.get(options(client, "question"))
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    assert client.post(f"{BELOW}question/").status_code == 503
    assert "Redis is down" in refused(client, answer)


@pytest.mark.parametrize("path", ["passkeys/question/", "passkeys/verify/", "passkeys/creation/", "passkeys/add/",
                                  "passkeys/remove/", "authenticator/", "authenticator/remove/", "recovery-codes/",
                                  "sessions/end/", "verify/", "confirm/"])  # fmt: skip
def test_another_site_sends_nothing(root: User, path: str) -> None:
    careful = SecureClient(enforce_csrf_checks=True)
    careful.force_login(root)
    page = f"/admin/second-factor/{path}"
    answer = careful.post(page, {"code": "1"}, HTTP_ORIGIN="https://evil.example.com")
    assert answer.status_code in (302, 403)
    session = careful.session
    session["second_factor_at"] = 1790000000.0
    session.save()
    assert careful.post(page, {"code": "1"}, HTTP_ORIGIN="https://evil.example.com").status_code == 403
