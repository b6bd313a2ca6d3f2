"""``batchscope status``: how far a run is."""

from __future__ import annotations

from batchscope.amounts import number
from batchscope.cli.shared_options import AsJson, RunFolder
from batchscope.cli.show import print_json, print_warnings, say
from batchscope.runs import open_run


def status(run: RunFolder, as_json: AsJson = False) -> None:
    """Show how far a run is; also beside a driver at work."""
    result = open_run(run)
    document = result.status()
    if as_json:
        print_json(document)
        return
    driver = document["driver"] or f"{document['state']}, nobody is running it"
    say(f"{result.workload} in {run}: {driver}")
    for size in document["batch_sizes"]:
        counts = ", ".join(f"{number(count)} {name}" for name, count in size["trials"].items())
        best = ", ".join(f"{goal}: {number(steps)}" for goal, steps in size["best"].items())
        say(f"  batch size {size['batch_size']}: {counts or 'not begun'}; steps to {best}")
    print_warnings(result)
