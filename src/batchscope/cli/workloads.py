"""``batchscope workloads``: what can be named in a study."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from batchscope.cli.shared_options import AsJson
from batchscope.cli.show import console, print_json, print_table, say
from batchscope.workloads import names


def workloads(as_json: AsJson = False) -> None:
    """List the built-in workloads."""
    if as_json:
        print_json({"workloads": [listed._asdict() for listed in names()]})
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("workload", "what it is", "goals to begin with"):
        table.add_column(title)
    for listed in names():
        table.add_row(Text(listed.pattern), Text(listed.description), Text("\n".join(listed.goals)))
    print_table(console(), table)
    say("Your own: write path/to/file.py:function; batchscope init FILE writes one to start from.")
