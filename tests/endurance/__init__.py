"""The whole product for minutes: people come and go, administrators change things, every process is killed or stopped,
and afterwards all of it must fit together again.

    bin/test --endurance [--minutes N] [--seed S] [--keep]

One seed makes one plan (``plan``), which is carried out by clients (``clients``), an administrator (``admin``) and
somebody who breaks things (``faults``), on an installation in a network namespace (``world``). What must hold is in
``invariants``, judged by what was read of the product (``reading``) and by what clients were told (``record``).
"""
