"""Where the updates of a probe run: a process of their own, or this one where no other can load the workload.

A process that ran out of memory ends, and the next request goes to a new one: what an attempt left behind, in an
allocator or half-made, goes with it. A process that the kernel killed is an attempt that did not fit.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from contextlib import ExitStack, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch

from batchscope import workloads
from batchscope.errors import BatchscopeError, ProbeError
from batchscope.machine.mortality import die_with_driver
from batchscope.probing.memory_bound import is_out_of_memory
from batchscope.probing.requests import DoesNotFit, Facts, Fails, Reply, Request
from batchscope.probing.untouched import untouched
from batchscope.probing.updates import ProbeSetup, Trainer
from batchscope.spec.workload import Workload


class NotLoadable(Exception):
    """A pickled workload that another process cannot make again."""


class Bench(Protocol):
    """Answers requests."""

    facts: Facts

    def ask(self, request: Request) -> Reply:
        """Run updates; memory that was not enough is a reply, not an exception."""

    def close(self) -> None:
        """End, leaving nothing behind."""


def open_bench(workload: str | Workload, setup: ProbeSetup) -> Bench:
    """A process of its own where the workload can be made again there, else this one.

    A workload that there is not, or that cannot be built, is a ``WorkloadError``; one that does not even fit before
    its first update is a ``ProbeError``.

    Args:
        workload: A name, or a workload itself.
        setup: Everything else; its own ``workload`` is replaced.
    """
    if isinstance(workload, str):
        workloads.check_name(workload)
        return Child(replace(setup, workload=workload))
    try:
        # By value: torch's own pickling between processes would move the caller's tensors into shared memory.
        pickled = pickle.dumps(workload)
    except Exception:  # a lambda or a local class, most often; what pickle raises is up to the object
        return Here(workload, setup)
    try:
        return Child(replace(setup, workload=pickled))
    except NotLoadable:  # such as a function of a notebook
        return Here(workload, setup)


class Here:
    """This process: an update that does not fit is caught by its exception alone."""

    def __init__(self, workload: Workload, setup: ProbeSetup) -> None:
        """Build the model; until ``close``, the switches of this process are the probe's."""
        with ExitStack() as after:
            if torch.device(setup.device).type == "cuda":
                torch.cuda.init()  # type: ignore[no-untyped-call]
            after.enter_context(untouched())
            after.enter_context(torch.inference_mode(False))
            torch.set_grad_enabled(True)
            torch.set_num_threads(setup.threads)
            try:
                self._trainer = Trainer(workload, setup, own_process=False)
            except Exception as error:
                if is_out_of_memory(error):
                    raise _too_large(str(error)) from None
                if (theirs := workloads.in_words(error, "the workload")) is not None:
                    raise theirs from error
                raise
            after.callback(self._trainer.close)
            self._after = after.pop_all()
        self.facts = self._trainer.facts

    def ask(self, request: Request) -> Reply:
        """Do it."""
        return self._trainer.answer(request)

    def close(self) -> None:
        """Free what was taken, and leave the process as it was."""
        self._after.close()


class Child:
    """A process that answers until a request fails; then a new one answers the next.

    That memory was not enough is believed only of a process that has done nothing else before.
    """

    def __init__(self, setup: ProbeSetup) -> None:
        """Start the first process, and wait until it has loaded the workload."""
        self._setup = setup
        self._process: Any = None
        self._fresh = False
        self.facts = self._start()

    def ask(self, request: Request) -> Reply:
        """Send it to the process, or to a fresh one.

        Errors:
            WorkloadError: If the workload is wrong at any batch size.
        """
        reply, fresh = self._once(request)
        if isinstance(reply, DoesNotFit) and not fresh:
            reply, _ = self._once(request)
        return reply

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None

    def _once(self, request: Request) -> tuple[Reply, bool]:
        if self._process is None:
            self._start()
        fresh, self._fresh = self._fresh, False
        try:
            self._pipe.send(request)
            reply: Reply = self._pipe.recv()
        except (EOFError, OSError):
            reply = DoesNotFit(f"the process {self._ending()}")
        if isinstance(reply, BatchscopeError):
            raise reply
        if _is_last(reply, self._setup):
            self.close()
        return reply, fresh

    def _start(self) -> Facts:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._setup), daemon=True)
        self._process.start()
        theirs.close()
        self._fresh = True
        try:
            reply: object = self._pipe.recv()
        except (EOFError, OSError):
            reply = self._early_end()
        except BaseException:
            self.close()
            raise
        if not isinstance(reply, Facts):
            self.close()
            assert isinstance(reply, Exception)
            raise reply
        return reply

    def _early_end(self) -> ProbeError:
        ending = self._ending()
        if self._process.exitcode < 0:
            return _too_large(f"the process {ending}")
        return ProbeError(
            f"the process that measures {ending} before it began; what it printed says why. "
            'A script must call probe under  if __name__ == "__main__":'
        )

    def _ending(self) -> str:
        self._process.join()
        status = self._process.exitcode
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"ended with exit status {status}"


def _serve(pipe: Connection, setup: ProbeSetup) -> None:
    """A process that measures: one request after the other until one fails, or nobody asks any more."""
    die_with_driver()
    os.dup2(2, 1)  # what the workload's code prints is no part of a JSON document
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # if memory runs out, the kernel takes this process
    torch.set_num_threads(setup.threads)
    with suppress(EOFError, OSError):
        try:
            trainer = Trainer(_load(setup), setup, own_process=True)
        except (BatchscopeError, NotLoadable) as error:
            pipe.send(error)
            return
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            theirs = workloads.in_words(error, setup.workload if isinstance(setup.workload, str) else "the workload")
            fails = theirs or ProbeError(f"the workload fails: {words}")
            pipe.send(_too_large(words) if is_out_of_memory(error) else fails)
            return
        pipe.send(trainer.facts)
        while True:
            try:
                reply: Reply | BatchscopeError = trainer.answer(pipe.recv())
            except BatchscopeError as error:
                reply = error
            pipe.send(reply)
            if _is_last(reply, setup):
                return


def _is_last(reply: object, setup: ProbeSetup) -> bool:
    """Whether a process ends with a reply; on CUDA any failed kernel spoils all that follow."""
    failed = isinstance(reply, Fails) and torch.device(setup.device).type == "cuda"
    return failed or isinstance(reply, DoesNotFit | BatchscopeError)


def _load(setup: ProbeSetup) -> Workload:
    try:
        return setup.load()
    except Exception as error:
        if isinstance(setup.workload, bytes):
            raise NotLoadable(str(error)) from error
        raise


def _too_large(words: str) -> ProbeError:
    return ProbeError(
        f"the workload could not even be loaded ({words}): its model and data need more memory than there is; "
        "take a smaller model, or a device with more"
    )
