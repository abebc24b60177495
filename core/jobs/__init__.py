"""Long work in short transactions.

A *kind* of job is a function ``step(job, room) -> Step`` that does a part of the work, as much of it as there is
``room`` for, and says where the next part begins. Each step is a transaction of its own, together with the job's row:
after a crash the next step begins where the last one that counted ended. Whoever writes to the database beside it waits
for one step at most. So what is done item by item goes on for some milliseconds (``room.each``), and how many items fit
where one statement deals with all of them (``room.most``) is measured: a step is short on any machine and at any size.
"""

from .registry import Step as Step
from .registry import kind as kind
from .running import AT_ONCE as AT_ONCE
from .running import Work as Work
from .running import at_once as at_once
from .running import begin as begin
from .running import create as create
from .running import prune as prune
from .running import record as record
from .running import resume as resume
from .running import stop as stop
