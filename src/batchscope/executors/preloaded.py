"""What the process that workers are forked from imports. For that process alone: it makes it deaf to signals."""

import signal

for _name in ("SIGINT", "SIGTERM", "SIGHUP"):  # first: the driver hears them, and this process ends with it
    signal.signal(getattr(signal, _name), signal.SIG_IGN)

from batchscope.machine.mortality import die_with_parent  # noqa: E402

die_with_parent()

import torch._dynamo  # noqa: E402 - what tracing a pack loads on first use

import batchscope.executors.local  # noqa: E402

__all__ = ["batchscope", "torch"]
