"""An administrator brings in a list of people, and disables them all, in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from core.models import Job, JobState
from core.tasks import run_job
from users.models import Organization, VpnUser

from .test_admin_browser import complaints, page

__all__ = ["complaints", "page"]
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def work() -> None:
    while job := Job.objects.filter(state=JobState.QUEUED).first():
        run_job(job.pk)


def test_a_list_is_corrected_looked_at_and_imported_and_all_in_it_are_disabled(page: Page, tmp_path: Path) -> None:
    Organization.objects.create(name="Acme")
    page.locator("#nav-sidebar a").filter(has=page.get_by_text("Users", exact=True)).first.click()
    page.get_by_role("link", name="Import").first.click()
    file = tmp_path / "people.csv"
    rows = "".join(f"Acme;person {number};p{number}@example.com\n" for number in range(60))
    file.write_text(f"Organization;Name;Email\n{rows}Nobody;zoe;not-an-address\n")
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("button", name="Look at what it would change").click()
    expect(page.locator("#problems")).to_contain_text("line 62, organization: There is no organization 'Nobody'")
    expect(page.locator("#problems")).to_contain_text("line 62, email")
    file.write_text(f"Organization;Name;Email\n{rows}")
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("button", name="Look at what it would change").click()
    expect(page.get_by_text("60 new")).to_be_visible()
    page.get_by_role("button", name="Import").click()
    expect(page.locator("#job-progress")).to_have_text("0 of 60")
    work()
    # By itself, without anybody asking.
    expect(page.locator("#job-progress")).to_have_text("60 of 60")
    assert VpnUser.objects.count() == 60

    page.locator("#nav-sidebar a").filter(has=page.get_by_text("Users", exact=True)).first.click()
    page.locator("#action-toggle").check()
    page.get_by_text("Select all 60").click()
    page.locator("select[name=action]").select_option("disable_users")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_text("Disable 60 users?")).to_be_visible()
    page.get_by_role("button", name="Yes, ").click()
    expect(page.get_by_text("Disable 60 users is under way.")).to_be_visible()
    page.get_by_role("link", name="See how far it is").click()
    work()
    expect(page.locator("#job-progress")).to_have_text("60 of 60")
    assert not VpnUser.objects.filter(enabled=True).exists()
