"""``batchscope status``: how far a run is."""

from __future__ import annotations

from batchscope.amounts import number
from batchscope.cli.shared_options import AsJson, RunFolder
from batchscope.cli.show import console, print_json, print_warnings, printable
from batchscope.runs import open_run


def status(run: RunFolder, as_json: AsJson = False) -> None:
    """Show how far a run is; also beside a driver at work."""
    result = open_run(run)
    document = result.status()
    if as_json:
        print_json(document)
        return
    out = console()
    driver = printable(document["driver"] or "nobody is running it")
    out.print(f"{printable(result.workload)} in {printable(str(run))}: {driver}")
    waiting = {} if document["driver"] else {"running": "unfinished"}  # where nobody runs it, nothing is running
    for size in document["batch_sizes"]:
        counts = ", ".join(f"{count} {waiting.get(name, name)}" for name, count in size["trials"].items())
        best = ", ".join(f"{goal}: {number(steps)}" for goal, steps in size["best"].items())
        out.print(f"  batch size {size['batch_size']}: {printable(counts) or 'not begun'}; steps to {printable(best)}")
    print_warnings(result)
