"""Where the command begins: a signal is answered from the first moment on, before anything else is imported."""

from __future__ import annotations

from batchscope import interrupts


def main() -> None:
    """Run the ``batchscope`` command and exit."""
    interrupts.end_at_once()
    from batchscope.cli import main  # here, because a signal is answered before it is there

    main.main()
