"""What a plan means for a machine, in words: does it fit, what would make it fit, how long does it take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llama_exp.config.schema import Config
from llama_exp.run.plan import Plan, format_size
from llama_exp.run.plan_changes import Change, find_changes, find_smallest
from llama_exp.run.plan_machine import Room
from llama_exp.run.plan_rates import estimate

MARGIN = 0.15  # how far a predicted peak may be from the measured one
GET_A_RATE = "train some steps of it here: the same command with trainer.max_steps=30 and name=rate"
MOST_DIFFERING = 3  # keys that are named


def count_needed(plan: Plan, room: Room) -> int:
    """Bytes that the plan takes of a room: an accelerator holds the run's own arrays."""
    return plan.array_bytes if room.is_accelerator else plan.peak_bytes


def say_fit(plan: Plan, room: Room) -> str:
    """Whether a plan fits a room; what is nearer to its border than a prediction is good for is called close."""
    needed = count_needed(plan, room)
    there = f"{format_size(room.num_bytes)} of {room.name}"
    if room.num_bytes < room.total_bytes:
        there = f"{format_size(room.num_bytes)} free of {format_size(room.total_bytes)} ({room.name})"
    if needed > room.num_bytes:
        answer = "no" if needed > room.num_bytes * (1 + MARGIN) else "barely not"
    else:
        answer = "yes" if needed * (1 + MARGIN) <= room.num_bytes else "closely"
    return f"{answer}: {format_size(needed)} into {there}"


def say_time(config: Config, plan: Plan, rooms: Sequence[Room]) -> str:
    """How long the run's steps take, and how that is known."""
    found = estimate(config, plan, tuple(room.name for room in rooms if room.is_accelerator))
    if found is None:
        return f"nothing was measured on this machine yet; {GET_A_RATE}"
    text = f"about {_duration(found.seconds)} for all steps, at {found.tokens_per_second:,.0f} tokens/s"
    if not found.differing:
        return f"{text} (measured {found.measured}, same settings)"
    named = ", ".join(found.differing[:MOST_DIFFERING])
    more = f" and {len(found.differing) - MOST_DIFFERING} more" if len(found.differing) > MOST_DIFFERING else ""
    return f"{text} (scaled by arithmetic from a run of {found.measured} with another {named}{more})"


def list_change_lines(config: Config, plan: Plan, rooms: Sequence[Room]) -> Iterator[str]:
    """What would make a plan fit the rooms that it does not fit."""
    for room in rooms:
        if count_needed(plan, room) <= room.num_bytes:
            continue

        def fits(changed: Plan, room: Room = room) -> bool:
            return count_needed(changed, room) <= room.num_bytes

        changes = find_changes(config, plan, fits)
        if changes:
            yield f"one of these makes it fit ({room.name}); it takes the place of the same key on the line:"
        elif changes := find_smallest(config, plan):
            yield f"nothing alone makes it fit ({room.name}); as small as it gets:"
        else:
            yield f"nothing makes it smaller ({room.name})"
        yield from _rows(changes, room)


def _rows(changes: Sequence[Change], room: Room) -> list[str]:
    cells = [
        (
            change.text,
            format_size(count_needed(change.plan, room)),
            f"arithmetic x {change.time_factor:.2f}",
            change.accuracy,
        )
        for change in changes
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [f"  {a:<{widths[0]}}   {b:>{widths[1]}}   {c:<{widths[2]}}   {d}" for a, b, c, d in cells]


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
