"""What a recommendation rests on, said in sentences that its readers can check against their own case."""

from __future__ import annotations

from collections.abc import Sequence

from batchscope.advice.options import Option
from batchscope.advice.step_time import Link, loading_share, shares
from batchscope.amounts import memory, percent
from batchscope.analysis.curve import Curve
from batchscope.spec.probe import Probe


def of_steps(curve: Curve) -> str:
    """What the steps are."""
    if curve.confirmed:
        return (
            "Steps are those of a fresh training: the best few points of each batch size were trained again with new "
            "seeds, some to choose by and others to count on. Intervals hold one such training."
        )
    return (
        "Steps are the fewest of a search of all trials at each batch size, and a lower bound: who trains with its "
        "winner again needs more, for a winner is lucky. confirm: {seeds: 5} in a study measures what they take."
    )


def of_ideal_hardware() -> tuple[str, ...]:
    """Without a probe."""
    return (
        "There is no probe, so hardware is idealised: a step takes the same time at every batch size. Time is steps, "
        "and cost is examples.",
    )


def of_hardware(
    probe: Probe,
    link: Link,
    devices: Sequence[int],
    options: Sequence[Option],
    price: float | None,
    power: float | None,
) -> tuple[str, ...]:
    """What is taken of devices, their links, and what was not counted."""
    threads = f", {probe.threads} thread{'s' if probe.threads > 1 else ''}" if probe.device.startswith("cpu") else ""
    found = [
        f"A step takes what the probe measured of {probe.optimizer} in {probe.dtype} on {probe.device_name} "
        f"({probe.device}{threads}); every device is such a one and has as many threads to itself."
    ]
    if probe.world_size > 1:
        found.append(
            f"The probe measured {probe.world_size} ranks at work together, each with its share of the batch: whatever "
            "slows them side by side is in the times, the exchange of gradients is not."
        )
    measured = set(shares(probe))
    if probe.time_model and any(option.device_batch_size not in measured for option in options):
        found.append(
            "Where a device's share of the batch was not measured itself, the time is that of the probe's model, whose "
            f"largest error at a measured size was {percent(probe.time_model.error)}."
        )
    if max(devices) > 1:
        found.append(_communication(probe, link))
    loading = loading_share(probe)
    found.append(
        "Data is on the device when a step begins; evaluation, checkpoints and starting up are not counted."
        + (f" Where the device waits for data, a step took up to {percent(loading)} longer." if loading > 0.02 else "")
    )
    money = "in device-hours, for there is no price" if price is None else f"{price:g} for a device-hour"
    energy = "" if power is None else f"; energy is {power:g} W for each device throughout"
    found.append(f"Cost is {money}; every device counts for the whole time{energy}.")
    found.append(
        "Intervals join that of the steps with that of a step's time: the spread of single updates, and the error of "
        "the model. Nothing is known of the error of the communication model. The option that evaluations best "
        "is a lucky one too: how often it is the best of the samples says how sure that is."
    )
    return tuple(found)


def _communication(probe: Probe, link: Link) -> str:
    text = (
        "N devices train synchronously, each with B/N examples, rounded up. A ring all-reduce of "
        f"{memory(probe.gradient_bytes)} of gradients takes 2(N-1)/N x bytes / bandwidth + 2(N-1) x latency, and "
        "nothing of it overlaps with computing"
    )
    if link.bandwidth is None and not link.latency:
        return f"{text}; neither --bandwidth nor --latency was given, so here it takes no time."
    bandwidth = "bytes are free, for no --bandwidth was given" if link.bandwidth is None else f"{link.bandwidth:g} GB/s"
    return f"{text}: {bandwidth}, {link.latency:g} microseconds."
