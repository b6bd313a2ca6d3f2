"""The ``batchscope`` command: which verbs there are, and how errors and interruptions end it."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer

import batchscope
from batchscope import interrupts
from batchscope.errors import BatchscopeError

DONE, FAILED, MISUSE, INTERRUPTED = 0, 1, 2, interrupts.INTERRUPTED

VERBS = {
    "run": "Run a study, or go on where it stopped.",
    "status": "Show how far a run is.",
    "analyze": "Show steps to result and scaling regimes of a run.",
    "report": "Write report.html and summary.json of a run.",
    "probe": "Measure time per step, memory and micro-batches of a workload on a device.",
    "recommend": "Recommend batch size, devices and hyperparameters for time or money.",
    "branch": "Find the critical batch size over one training, and the batch-size warm-up that follows.",
    "predict": "Predict the steps of other batch sizes from one training.",
    "schedule": "Compile a learning-rate schedule to a batch-size schedule.",
    "import": "Make a run of measurements from elsewhere.",
    "export": "Write the measurements of a run in another format.",
    "workloads": "List the built-in workloads.",
    "init": "Write a workload file and a study to start from.",
}
"""Verb to what it does; each is the function ``command``, or of the verb's name, in the module of its name."""

MODULES = {"import": "importing"}


def application(verb: str | None) -> typer.Typer:
    """The command with all its verbs; only the one that is called is loaded, so that ``--help`` needs no torch."""
    app = typer.Typer(
        help=batchscope.__doc__.splitlines()[0],
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name, summary in VERBS.items():
        function = _function(name) if name == verb else _not_called
        if isinstance(function, typer.Typer):
            app.add_typer(function, name=name, help=summary)
        else:
            app.command(name, help=summary if function is _not_called else None)(function)
    return app


def _function(verb: str) -> Any:
    module = importlib.import_module(f"batchscope.cli.{MODULES.get(verb, verb)}")
    return getattr(module, "command", None) or getattr(module, verb)


def _not_called() -> None:
    raise AssertionError("a verb that is called is loaded")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"batchscope {batchscope.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the verb."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0 done, 1 failed, 2 misuse, 130 interrupted with nothing lost."""
    interrupts.end_at_once()
    sys.exit(invoke(sys.argv[1:] if arguments is None else list(arguments)))


def invoke(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    verb = next((argument for argument in arguments if not argument.startswith("-")), None)
    run: Callable[..., Any] = application(verb)
    if verb != "run":  # a run says itself from when on there is something to keep
        interrupts.raise_them()
    try:
        status = run(arguments, prog_name="batchscope", standalone_mode=False)
    except typer.TyperException as error:
        show = getattr(error, "show", None)
        show(file=sys.stderr) if show else print(f"batchscope: {error}", file=sys.stderr)
        return MISUSE
    except BatchscopeError as error:
        _say(f"batchscope: {error}")
        return MISUSE if isinstance(error, ValueError) else FAILED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read the output has gone; there is nobody to tell
        return FAILED
    except OSError as error:
        if error.filename is None:
            return _fault()
        _say(f"batchscope: {error.filename}: {error.strerror}; see to it, or give another path")
        return FAILED
    except (typer.Abort, KeyboardInterrupt):
        status = INTERRUPTED
    except MemoryError:
        _say("batchscope: memory ran out; what was committed is safe: close other programs, or make the study smaller")
        return FAILED
    except Exception:
        return _fault()
    if status == INTERRUPTED and verb != "run":  # newer versions of typer make it a status without a word
        print("\nbatchscope: interrupted", file=sys.stderr)
    return status if isinstance(status, int) else DONE


def _say(text: str) -> None:
    """A message that may quote a file: without characters that a terminal would obey."""
    plain = (c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    print("".join(plain), file=sys.stderr)


def _fault() -> int:
    traceback.print_exc()
    print("batchscope: this is a fault of Batchscope itself; what was committed is safe", file=sys.stderr)
    return FAILED
