"""The supervisor side of ``bin/run``: everything that one machine needs around the server's own processes.

It imports nothing of the server. Its modules import each other relatively, because ``bin/run`` starts it as a package
of its own (``python -m runner``), without Celery and Django.
"""
