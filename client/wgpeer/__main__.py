"""``python -m wgpeer`` is the same as the command ``wgpeer``."""

from wgpeer.cli import main

main()
