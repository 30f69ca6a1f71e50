"""Options of a plan, and limits on how far it may move from the plan that runs."""

from __future__ import annotations

import os
from typing import Any, Literal, TypedDict

from . import _core
from ._arrays import whole


class PlanOptions(TypedDict, total=False):
    """Options of a plan; all may be left out."""

    preset: str
    """A name of :func:`eplb_wgpu.presets`: ``default`` (``scenarios`` for several windows), ``fast``, ``thorough``."""
    seed: int
    """Seed of what is drawn: equal seeds give equal plans. From 0 to 2^64 - 1; 0 by default."""
    starts: int
    """Starts a node at most, 1 to 65,536."""
    iterations: int
    """Iterations of a start at most, up to 1,048,576."""
    patience: int
    """A start ends after this many iterations without a new best."""
    assignments: int | None
    """Assignments of groups to nodes tried a layer at most, 1 to 1,024; None for as many as could win."""
    allow_duplicates: bool
    """Whether a GPU may hold an expert twice, as DeepSeek's planner lets it. False by default."""
    max_replicas_per_expert: int | None
    """The most replicas of an expert; None for as many as are useful."""
    dispatch: Literal["equal", "nearest", "own-gpu"]
    """How tokens are dealt to replicas: ``equal`` by default; ``nearest`` (own GPU, else own node, else all); ``own-gpu``
    (own GPU, else whole GPUs to replicas in turn). Plans are judged by it where nodes hold no whole groups."""
    connected: bool
    """Connect the GPUs of a node (of the cluster, where nodes hold no whole groups) by replicas of one expert, so
    that :meth:`Planner.batch_shares` can level them. False by default."""
    max_foreign: int
    """The most replicas of a layer outside the home node of their group, where nodes hold whole groups; less than a group
    has experts. 0 by default."""
    foreign_target: float
    """With ``max_foreign``: largest / mean GPU load at which a layer gets no more of them; 1 by default."""


class MoveLimits(TypedDict, total=False):
    """Limits on moves; all may be left out. A slot moves where its GPU receives an expert that it did not hold."""

    max_moves: int | None
    """The most slots that may move, all layers together."""
    max_moves_share: float | None
    """The same as a share of all slots, 0 to 1."""
    max_moves_per_layer: int | None
    """The most slots of a layer that may move."""
    max_rounds_per_layer: int | None
    """The most rounds that the moves of a layer may take. In a round each GPU exchanges experts with at most one other."""
    min_gain: float
    """The least gain that moving all slots of a layer must bring, as a share of the mean GPU's load; a moved slot must
    be worth its part of that."""
    skip_if_balanced: float | None
    """Layers of at least this balancedness stay as they are."""


class RebalanceOptions(MoveLimits, total=False):
    """Options of a rebalancer and a replay; all may be left out."""

    scenario_windows: int
    """Windows of ``scenarios``, 1 to 16, which is the default."""
    decay: float
    """Each window of ``scenarios`` weighs this much of the one after it; 0.9 by default."""
    forecast_windows: int
    """Windows that the forecast looks at; 32 by default."""
    fresh: bool
    """Plan anew each time, whatever runs. False by default."""
    connected: bool
    """As for :class:`PlanOptions`."""


_LIMITS = frozenset(MoveLimits.__annotations__)


def split(options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options apart from limits on moves."""
    limits = {name: value for name, value in options.items() if name in _LIMITS}
    return {name: value for name, value in options.items() if name not in _LIMITS}, limits


def device_of(device: str | int | None) -> str:
    """The device that a caller, or else the environment, names; the CPU backend where none does."""
    if device is None:
        device = os.environ.get("EPLB_WGPU_DEVICE", "").strip() or "cpu"
    return str(device)


def threads_of(threads: int | None) -> int:
    """The threads that a caller, or else the environment, names; four, or as many as there are cores."""
    if threads is None:
        named = os.environ.get("EPLB_WGPU_THREADS", "").strip()
        if named:
            return whole("EPLB_WGPU_THREADS", int(named) if named.isdecimal() else named)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(4, cores)
    return whole("threads", threads)


def presets() -> list[str]:
    """The names of all presets."""
    return _core.presets()
