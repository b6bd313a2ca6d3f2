"""``python -m batchscope``: the same as the ``batchscope`` command."""

from batchscope.cli.entry import main

if __name__ == "__main__":
    main()
