"""LDAP with slapd: passwords, groups in groups, names that look like filters, servers that are not who they say."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.test import Client

from core.crypto import Secret
from core.redis_store import redis_client
from servers.policy import policy_of
from tests.admin_site import errors, messages, send, staff
from tests.attempts import an_attempt, code_at, enrol
from tests.factories import Company, HostStandIn
from tests.lab import HANGING
from tests.protocol_client import NOW, make_request, open_answer, plaintext
from users.authorize import authorize
from users.factors.ldap import directory as directories
from users.factors.ldap.directory import Directory, DirectoryRefused, judge
from users.factors.wanted import profile_flags
from users.models import Provider, VpnUser
from wgpeers.lifecycle.codes import explain
from wgpeers.models import Decision

from .liars import GRANTED, REFUSED, Listener
from .slapd import GROUPS, OURS, OURS_PASSWORD, PASSWORD, PEOPLE, Authority, Slapd, dn_of, group, group_dn, person

DEEP = 30
ENTRIES = "".join(
    [
        person("alice"),
        person("bob", "bob's own"),
        person("erin", more="pwdChangedTime: 20200101000000Z"),
        person("O'Brien"),
        person("twin", rdn="cn=twin one"),
        person("twin", rdn="cn=twin two"),
        person("Smith, Jane", rdn="uid=Smith\\, Jane"),
        # Alice is in "vpn" by "engineers" and "staff", which has itself in it; Bob is in none.
        group("engineers", dn_of("alice")),
        group("staff", group_dn("engineers"), group_dn("staff"), unique=True),
        group("vpn", group_dn("staff"), dn_of("erin")),
        group("deep0", dn_of("alice")),
        *(group(f"deep{number}", group_dn(f"deep{number - 1}")) for number in range(1, DEEP)),
    ]
)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Listener]:
    """Where the directory refers to, and nobody may go."""
    with Listener() as running:
        yield running


@pytest.fixture(scope="module")
def slapd(elsewhere: Listener) -> Iterator[Slapd]:
    with Slapd(ENTRIES, elsewhere=elsewhere.host) as running:
        yield running


@pytest.fixture
def alice(company: Company) -> VpnUser:
    return company.hire("alice")[0]


def ask_ldap(company: Company, slapd: Slapd, servers: str = "", totp: bool = False, **settings: Any) -> Provider:
    """Have the server ask for a password that the directory judges, and for nothing else."""
    company.server.factors.all().delete()
    Provider.objects.all().delete()
    search = {"bind_dn": OURS, "base": PEOPLE, "ca": slapd.authority.pem}
    provider = Provider.objects.create(
        kind="ldap",
        name="Directory",
        settings={"servers": servers or slapd.ldaps, **search, "timeout": 30, "patience": 30, **settings},
        secrets=Secret.of(json.dumps({"bind_password": OURS_PASSWORD})),
    )
    company.server.factors.create(kind="ldap", provider=provider)
    if totp:
        company.server.factors.create(kind="totp")
    return provider


def outcome(company: Company, user: VpnUser, password: str, **attempt: str) -> str:
    """ "allowed" or the refusal's code."""
    fresh = VpnUser.objects.select_related("organization").get(pk=user.pk)
    policy = policy_of(company.server)
    return getattr(authorize(fresh, policy, an_attempt(password, **attempt), NOW), "code", "allowed")


TEMPLATE = {"how": "template", "dn_template": f"uid={{user}},{PEOPLE}"}


@pytest.mark.parametrize("how", [{}, TEMPLATE], ids=["search", "template"])
@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
def test_the_right_password_passes_and_no_other(
    company: Company, alice: VpnUser, slapd: Slapd, scheme: str, how: dict[str, Any]
) -> None:
    bob, erin, nobody = (company.hire(name)[0] for name in ("bob", "erin", "nobody"))
    ask_ldap(company, slapd, getattr(slapd, scheme), **how)
    assert outcome(company, alice, PASSWORD) == "allowed"
    assert outcome(company, bob, "bob's own") == "allowed"
    assert outcome(company, bob, PASSWORD) == outcome(company, alice, "bob's own") == "ldap_wrong"
    assert outcome(company, erin, PASSWORD) == "ldap_wrong"  # it has expired
    assert outcome(company, nobody, PASSWORD) == ("ldap_wrong" if how else "ldap_unknown")
    assert outcome(company, alice, "") == "factor_missing"


@pytest.mark.parametrize("password", ["\0", "a\0b", "x" * 257])
def test_nothing_is_sent_of_what_is_no_password(company: Company, alice: VpnUser, slapd: Slapd, password: str) -> None:
    ask_ldap(company, slapd)
    before = slapd.log().count("ACCEPT")
    assert outcome(company, alice, password) == "ldap_unusable"
    assert slapd.log().count("ACCEPT") == before


def directory(slapd: Slapd, **changes: Any) -> Directory:
    search = Directory(
        ca=slapd.authority.pem,
        bind_dn=OURS,
        bind_password=OURS_PASSWORD,
        base=PEOPLE,
        user_filter="(&(objectClass=person)(uid={user}))",
        dn_template="",
        group="",
        nested="direct",
        group_base=GROUPS,
        timeout=HANGING,
    )
    return replace(search, **changes)


def said(slapd: Slapd, name: str, password: str = PASSWORD, **changes: Any) -> str:
    try:
        judge(slapd.ldaps, directory(slapd, **changes), name, password, time.monotonic() + HANGING)
    except DirectoryRefused as error:
        return str(error.args[0])
    return "allowed"


def test_a_bind_without_a_password_or_a_name_is_never_tried(slapd: Slapd) -> None:
    """This directory calls it a success, as nobody."""
    assert said(slapd, "alice", "") == "wrong"
    assert said(slapd, "alice", "", dn_template=TEMPLATE["dn_template"]) == "wrong"
    assert said(slapd, "alice", PASSWORD, dn_template="") == "allowed"
    assert 'BIND dn="" method=128' not in slapd.log()


NAMES = [
    "*",
    "a*",
    "alice)(uid=*",
    "*)(objectClass=*",
    "alice)(|(uid=bob",
    "\\61lice",
    "(",
    "\0",
    "alice\0",
    "&",
    "#",
    "=",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("template", ["", TEMPLATE["dn_template"]], ids=["search", "template"])
def test_a_name_is_never_taken_for_a_filter_or_a_dn(slapd: Slapd, name: str, template: str) -> None:
    assert said(slapd, name, dn_template=template) in ("unknown", "wrong")


@pytest.mark.parametrize("template", ["", TEMPLATE["dn_template"]], ids=["search", "template"])
@pytest.mark.parametrize("name", ["O'Brien", "Smith, Jane"])
def test_names_of_people_are_found_as_they_are(slapd: Slapd, name: str, template: str) -> None:
    assert said(slapd, name, dn_template=template) == "allowed"
    assert said(slapd, name, "wrong", dn_template=template) == "wrong"


def test_two_of_one_name_are_nobody(slapd: Slapd) -> None:
    assert said(slapd, "twin") == "ambiguous"


@pytest.mark.parametrize("template", ["", TEMPLATE["dn_template"]], ids=["search", "template"])
@pytest.mark.parametrize(
    ("name", "wanted", "nested", "expected"),
    [
        ("alice", "engineers", "direct", "allowed"),
        ("alice", "staff", "direct", "not_in_group"),
        ("alice", "vpn", "walk", "allowed"),
        ("bob", "vpn", "walk", "not_in_group"),
        ("alice", "deep9", "walk", "allowed"),
        ("alice", f"deep{DEEP - 1}", "walk", "not_in_group"),
        # No rule in chain here, as nowhere but in Active Directory: then nobody is a member.
        ("alice", "engineers", "chain", "not_in_group"),
        ("alice", "there-is-none", "walk", "misconfigured"),
    ],
)
def test_groups_are_looked_through(
    slapd: Slapd, name: str, wanted: str, nested: str, expected: str, template: str
) -> None:
    password = "bob's own" if name == "bob" else PASSWORD
    changes = {"group": group_dn(wanted), "nested": nested, "dn_template": template}
    assert said(slapd, name, password, **changes) == expected
    assert said(slapd, name, "wrong", **changes) == "wrong"


def test_active_directory_is_asked_for_members_by_its_rule_in_chain(slapd: Slapd) -> None:
    said(slapd, "alice", group=f"cn=a(b)*,{GROUPS}", nested="chain")
    # What slapd does not know it writes as undefined; the base and that it was asked are seen.
    assert f'SRCH base="{dn_of("alice")}" scope=0 deref=0 filter="(?=undefined)"' in slapd.log()


def test_no_referral_is_followed(slapd: Slapd, elsewhere: Listener) -> None:
    assert said(slapd, "alice") == "allowed"
    assert said(slapd, "alice", base=f"ou=elsewhere,{PEOPLE}") == "misconfigured"
    assert said(slapd, "alice", dn_template=f"uid={{user}},ou=elsewhere,{PEOPLE}") == "wrong"
    assert elsewhere.taken == 0


@pytest.fixture(scope="module")
def expired() -> Iterator[Slapd]:
    with Slapd(person("alice"), days=-1) as running:
        yield running


@pytest.fixture(scope="module")
def misnamed() -> Iterator[Slapd]:
    with Slapd(person("alice"), host="ldap.example.com") as running:
        yield running


@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
@pytest.mark.parametrize("lie", ["expired", "another name", "another CA", "no CA that this machine knows"])
def test_a_server_that_is_not_who_it_says_is_told_nothing(
    company: Company, alice: VpnUser, slapd: Slapd, expired: Slapd, misnamed: Slapd, scheme: str, lie: str
) -> None:
    liar = {"expired": expired, "another name": misnamed}.get(lie, slapd)
    ca = {"another CA": Authority.new().pem, "no CA that this machine knows": ""}.get(lie, liar.authority.pem)
    ask_ldap(company, liar, getattr(liar, scheme), ca=ca)
    before = liar.log().count("BIND")
    assert outcome(company, alice, PASSWORD) == "ldap_bad_certificate"
    assert liar.log().count("BIND") == before


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (REFUSED, "ldap_no_starttls"),
        (GRANTED + b"\x30", "ldap_no_starttls"),
        (GRANTED[:1] + b"\x84" + bytes(8), "ldap_no_starttls"),
        (b"HTTP/1.0 400\r\n\r\n", "ldap_no_starttls"),
        (GRANTED + GRANTED, "ldap_no_starttls"),
    ],
)
def test_without_encryption_nothing_is_said(
    company: Company, alice: VpnUser, slapd: Slapd, says: bytes, expected: str
) -> None:
    with Listener(says) as plain:
        ask_ldap(company, slapd, f"ldap://{plain.host}")
        assert outcome(company, alice, PASSWORD) == expected
        assert all(b"1.3.6.1.4.1.1466.20037" in each and b"cn=vpn" not in each for each in plain.seen)


SILENT: dict[str, Any] = {"timeout": 1, "patience": 1}  # waiting for longer finds the same


@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
@pytest.mark.parametrize("encrypts", [False, True])
def test_a_silent_server_is_not_waited_for_without_end(
    company: Company, alice: VpnUser, slapd: Slapd, scheme: str, encrypts: bool
) -> None:
    with Listener(authority=slapd.authority if encrypts else None) as silent:
        ask_ldap(company, slapd, f"{scheme}://{silent.host}", **SILENT)
        assert outcome(company, alice, PASSWORD) == "ldap_unavailable"


def test_the_next_server_answers_for_one_that_is_down_which_is_asked_last_then(
    company: Company, alice: VpnUser, slapd: Slapd
) -> None:
    with Listener() as gone:
        down = f"ldaps://{gone.host}"
    provider = ask_ldap(company, slapd, f"{down}\n{slapd.ldap}")
    assert outcome(company, alice, PASSWORD) == "allowed"
    assert redis_client().keys("silent:*") == [f"silent:{provider.public_id}:{down}"]


@pytest.mark.parametrize(("skip", "expected"), [("refuse", "ldap_unavailable"), ("skip", "allowed")])
def test_a_directory_that_is_down_lets_nobody_in_unless_its_administrator_said_so(
    company: Company, alice: VpnUser, slapd: Slapd, skip: str, expected: str
) -> None:
    ask_ldap(company, slapd, "ldaps://localhost:9")
    company.server.factors.update(if_unavailable=skip)
    assert outcome(company, alice, PASSWORD) == expected


@pytest.mark.parametrize("skip", ["refuse", "skip"])
def test_a_wrong_setting_lets_nobody_in(company: Company, alice: VpnUser, slapd: Slapd, skip: str) -> None:
    ask_ldap(company, slapd, base="ou=nowhere,dc=example,dc=com")
    company.server.factors.update(if_unavailable=skip)
    assert outcome(company, alice, PASSWORD) == "ldap_misconfigured"


def test_that_our_own_account_is_refused_is_said(company: Company, alice: VpnUser, slapd: Slapd) -> None:
    ask_ldap(company, slapd, f"{slapd.ldaps}\n{slapd.ldap}", bind_dn=dn_of("alice"))
    before = slapd.binds(dn_of("alice"))
    assert outcome(company, alice, PASSWORD) == "ldap_service_account"
    assert slapd.binds(dn_of("alice")) == before + 1  # or it would soon be locked


def test_each_attempt_is_asked_about_once(company: Company, alice: VpnUser, slapd: Slapd) -> None:
    ask_ldap(company, slapd)
    before = slapd.binds(dn_of("alice"))
    assert [outcome(company, alice, "wrong") for _ in range(3)] == ["ldap_wrong"] * 3
    assert slapd.binds(dn_of("alice")) == before + 1
    assert outcome(company, alice, "wrong", wg_public_key="key-2") == "ldap_wrong"
    assert slapd.binds(dn_of("alice")) == before + 2


@pytest.mark.parametrize("code_first", [False, True])
def test_a_wrong_password_does_not_use_up_the_code_beside_it(
    company: Company, alice: VpnUser, slapd: Slapd, code_first: bool
) -> None:
    enrol(alice, totp=True)
    ask_ldap(company, slapd, totp=True)
    assert profile_flags(alice, policy_of(company.server), NOW).password_mode == "otp_password"
    code = code_at(NOW)

    def typed(password: str) -> str:
        return code + password if code_first else password + code

    assert outcome(company, alice, typed("wrong"), wg_public_key="key-1") == "ldap_wrong"
    assert outcome(company, alice, typed(PASSWORD), wg_public_key="key-2") == "allowed"
    assert outcome(company, alice, typed(PASSWORD), wg_public_key="key-3") == "totp_used"


def test_users_can_be_asked_about_by_their_address(company: Company, alice: VpnUser, slapd: Slapd) -> None:
    ask_ldap(company, slapd, name_from="email")
    assert outcome(company, alice, PASSWORD) == "ldap_no_email"


def test_the_log_says_why(company: Company, slapd: Slapd, host: HostStandIn) -> None:
    ask_ldap(company, slapd, group=group_dn("staff"))
    identity = company.hire("alice")[1]
    request = make_request(identity, plaintext(password=PASSWORD))
    answer = open_answer(request.send().json(), identity, request.box_private_key)
    assert (answer["allow"], answer["reason"]) == (False, "Second factor refused")
    decision = Decision.objects.latest("pk")
    assert explain(decision.code) == "The password was right, and the user is not in the group that is asked for."
    assert PASSWORD not in str(Decision.objects.values().get())


def test_without_its_library_nobody_gets_in_and_its_page_says_what_to_install(
    company: Company, alice: VpnUser, slapd: Slapd, monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    ask_ldap(company, slapd)
    monkeypatch.setattr(directories, "INSTALLED", False)
    assert outcome(company, alice, PASSWORD) == "ldap_not_installed"
    staff(client, superuser=True)
    assert "libldap2-dev" in client.get("/admin/users/provider/add/").content.decode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data 532, v3839", "expired"),
        ("80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data 775, v3839", "locked"),
        ("80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data 52e, v3839", ""),
    ],
)
def test_what_active_directory_says_of_a_refused_bind_is_said(text: str, words: str) -> None:
    """As it is written down of it; there is none here to ask."""
    import ldap

    error = ldap.INVALID_CREDENTIALS({"desc": "Invalid credentials", "info": text})
    said = directories.why_refused(error)
    assert words in said
    assert bool(said) == bool(words)


@pytest.mark.django_db(transaction=True)
def test_a_directory_is_set_up_and_tried_on_its_page(company: Company, client: Client, slapd: Slapd) -> None:
    staff(client, superuser=True)
    add = "/admin/users/provider/add/?kind=ldap"
    filled: dict[str, Any] = {
        "name": "Directory",
        "servers": slapd.ldaps,
        "ca": slapd.authority.pem,
        "bind_dn": OURS,
        "bind_password": OURS_PASSWORD,
        "base": PEOPLE,
        "timeout": 30,
        "patience": 30,
    }
    for field, wrong in {
        "servers": "http://localhost",
        "ca": "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----",
        "bind_dn": "",
        "bind_password": "",
        "user_filter": "(uid={user}",
        "patience": 29,
        "how": "template",
    }.items():
        assert errors(send(client, add, **filled | {field: wrong})), field
    assert errors(send(client, add, **filled)) == {}
    page = f"/admin/users/provider/{Provider.objects.get().pk}"
    assert "Each server answered" in messages(client, f"{page}/do/try_out/", {})
    assert errors(send(client, f"{page}/change/", ca="")) == {}
    assert "is not of who it says it is" in messages(client, f"{page}/do/try_out/", {})
    assert OURS_PASSWORD not in client.get(f"{page}/change/").content.decode()
