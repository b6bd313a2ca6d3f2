"""What a probe found: time per step, memory and micro-batches of a workload on one device, by batch size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from batchscope.errors import ProbeError
from batchscope.spec.faults import explain
from batchscope.spec.space import Frozen

SCHEMA = 1

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class Spread(Frozen):
    """A time in seconds that was measured many times: its median and its quartiles."""

    median: Seconds
    low: Seconds
    high: Seconds


class ProbedBatch(Frozen):
    """One batch size on one device.

    Attributes:
        batch_size: Examples in one weight update.
        micro_batch_size: The largest part of it that was really run in one pass; None if none fits.
        accumulation_steps: Passes in one update.
        step: Of one whole update, data already on the device; None if none fits.
        step_with_data: Likewise, with fetching the batch from the training data; None also where ``note`` says so.
        examples_per_second: ``batch_size`` over the median step.
        peak_bytes: The most memory in use during the updates; None where the device does not tell.
        updates: How many were timed.
        reason: Why no micro-batch fits; empty otherwise.
        note: What was measured less well than asked for, and why; empty otherwise.
    """

    batch_size: Count
    micro_batch_size: Count | None
    accumulation_steps: Count | None
    step: Spread | None
    step_with_data: Spread | None
    examples_per_second: float | None
    peak_bytes: int | None
    updates: Annotated[int, Field(ge=0)]
    reason: str = ""
    note: str = ""


class TimeModel(Frozen):
    """Seconds for one update at a batch size B: a fixed cost, a cost for each example, and a soft step between them.

    t(B) = (fixed^sharpness + (per_example B)^sharpness)^(1 / sharpness); sharpness 1 is a straight line.

    Attributes:
        fixed: Seconds of an update however small.
        per_example: Seconds of one more example where the device is busy.
        sharpness: 1 for a sum; larger where small batches cost nothing more.
        error: The largest relative departure from a measured median, each left out of the fit in turn.
        smallest: The smallest batch size that was measured.
        largest: The largest batch size that was measured.
    """

    fixed: Annotated[float, Field(ge=0)]
    per_example: Annotated[float, Field(ge=0)]
    sharpness: Annotated[float, Field(ge=1)]
    error: Annotated[float, Field(ge=0)]
    smallest: Count
    largest: Count

    def seconds(self, batch_size: float) -> float:
        """Of one update; an extrapolation outside ``smallest`` to ``largest``."""
        one, other = self.fixed, self.per_example * batch_size
        top = max(one, other)
        return float(top * ((one / top) ** self.sharpness + (other / top) ** self.sharpness) ** (1 / self.sharpness))


class Probe(Frozen):
    """What ``batchscope probe`` writes.

    Attributes:
        workload: Its name.
        optimizer: Whose update was timed.
        device: ``cpu``, ``cuda`` or ``cuda:1``, say.
        device_name: The processor's own name.
        threads: Of the CPU.
        world_size: Ranks that measured together.
        dtype: ``float32``, or ``bfloat16`` for autocast to it.
        clip_gradient_norm: That every update clipped gradients to; None for no clipping.
        average_weights: Of the moving average that every update moved; None for none.
        parameters: Of the model.
        gradient_bytes: That data-parallel training exchanges in every update.
        batches: One for each batch size, ascending.
        time_model: Through the medians without data loading; None with fewer than two measured batch sizes.
        saturation_batch_size: The smallest measured batch size whose examples per second are within a tenth of the
            best; None where only the largest measured one is, so that more would still help.
        versions: Of Python, torch and Batchscope.
        date: When, ISO 8601.
    """

    schema_version: Annotated[int, Field(alias="schema", ge=1)] = SCHEMA
    workload: str
    optimizer: str
    device: str
    device_name: str
    threads: Count
    world_size: Count = 1
    dtype: str = "float32"
    clip_gradient_norm: float | None = None
    average_weights: float | None = None
    parameters: Annotated[int, Field(ge=0)]
    gradient_bytes: Annotated[int, Field(ge=0)]
    batches: Annotated[tuple[ProbedBatch, ...], Field(min_length=1)]
    time_model: TimeModel | None
    saturation_batch_size: int | None
    versions: dict[str, str]
    date: str

    def to_json(self) -> str:
        """The document that ``from_json`` reads."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2)

    @classmethod
    def from_json(cls, path: str | Path) -> Probe:
        """Read what ``batchscope probe --json`` printed.

        Raises:
            ProbeError: If there is no such file, or it is not of this form; with every fault at once.
        """
        try:
            document: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ProbeError(f"no probe at {path}; write one with batchscope probe WORKLOAD --json > {path}") from None
        except IsADirectoryError:
            raise ProbeError(f"{path} is a folder: give the file that batchscope probe has written") from None
        except (OSError, ValueError, RecursionError) as error:
            raise ProbeError(f"cannot read the probe {path}: {error}") from None
        if not isinstance(document, dict) or "batches" not in document:
            raise ProbeError(f"{path} is no probe: write one with batchscope probe WORKLOAD --json > {path}")
        if isinstance(document.get("schema"), int) and document["schema"] > SCHEMA:
            raise ProbeError(f"{path} has schema {document['schema']}, this Batchscope reads {SCHEMA}; update it")
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise ProbeError(explain(error, cls, str(path))) from None
