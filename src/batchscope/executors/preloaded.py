"""What the process that workers are forked from imports. For that process alone: it makes it deaf to Ctrl-C."""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # first: the driver hears Ctrl-C, and this process ends with it

import torch._dynamo  # noqa: E402 - what tracing a pack loads on first use

import batchscope.executors.local  # noqa: E402

__all__ = ["batchscope", "torch"]
