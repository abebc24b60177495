"""The names of the control side's tasks: what is queued by name in one layer is a function of a layer above it."""

from __future__ import annotations

from typing import Final

MAKE_USER_KEY: Final = "users.make_user_key"
MAKE_ORGANIZATION_CA: Final = "users.make_organization_ca"
MAKE_MISSING: Final = "users.make_missing"

# Send one host (primary key) its full state.
CONVERGE: Final = "wgpeers.converge"
CONVERGE_ALL: Final = "wgpeers.converge_all"
# Have a deleted host (public id, version, boot) take everything down.
DISMISS: Final = "wgpeers.dismiss"
# End what is connected and no longer allowed to be.
ENFORCE: Final = "wgpeers.enforce"
# End what a machine (public id) may do in Redis.
CUT_OFF: Final = "wgpeers.cut_off"
TAKE_REPORTS: Final = "wgpeers.take_reports"
# Tell hosts of clients that came or went on others; so many (a number) in one message.
SPREAD: Final = "wgpeers.spread_remotes"
# Ask providers again about who is connected by a sign-in.
ASK_AGAIN: Final = "wgpeers.ask_again"
SWEEP: Final = "wgpeers.sweep"
PRUNE: Final = "wgpeers.prune"

# Work at one job (primary key) for a while; and queue those that nobody works at.
RUN_JOB: Final = "core.run_job"
RESUME_JOBS: Final = "core.resume_jobs"
