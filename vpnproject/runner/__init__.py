"""The supervisor side of ``bin/run``: everything that one machine needs around the server's own processes.

Of the server it imports the host's side and ``core.disks``, which need nothing installed. Its modules import each other
relatively, because ``bin/run`` starts it as a package of its own (``python -m runner``), without Celery and Django.
"""
