"""Parts that the doors of all engines share: settings from the environment, one step, one line of log.

Every rank plans for itself from the same loads and the same map, and nothing is sent around: the ranks agree since a
plan depends on nothing else. Whoever runs two releases side by side sees it in the log, by plan version and fingerprint.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from ._arrays import MAX_WINDOWS, floats, ints, loads_of
from ._errors import InvalidError
from ._planner import shared_planner

if TYPE_CHECKING:
    import logging

    from numpy.typing import NDArray

MOVES = "5%"
"""Of all slots, those that may move at a step where neither ``EPLB_WGPU_MAX_MOVES`` nor the engine's door says another."""

MIN_GAIN = 0.01
"""The gain that moving all slots of a layer must bring, in a loop that plans every few minutes."""

WINDOWS = 8
"""Into how many windows the steps of a recorder are joined."""


def max_moves(default: str = MOVES) -> dict[str, Any]:
    """The limit on moves that ``EPLB_WGPU_MAX_MOVES`` names: ``200`` slots, or ``5%`` of all."""
    text = os.environ.get("EPLB_WGPU_MAX_MOVES", "").strip() or default
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
            if 0 <= share <= 1:
                return {"max_moves_share": share}
        elif int(text) >= 0:
            return {"max_moves": int(text)}
    except ValueError:
        pass
    raise InvalidError("EPLB_WGPU_MAX_MOVES", text, "is neither a number of slots, as 200, nor a share, as 5%")


def options() -> dict[str, Any]:
    """Options of a plan that the environment names: ``EPLB_WGPU_PRESET``."""
    preset = os.environ.get("EPLB_WGPU_PRESET", "").strip()
    return {"preset": preset} if preset else {}


def step(
    logger: logging.Logger,
    weight: NDArray[Any],
    cluster: _core.Cluster,
    running: NDArray[Any] | None,
    window_weights: list[float] | None = None,
    moves: str = MOVES,
) -> NDArray[np.int64]:
    """The next map [layers, slots] from the one that runs, [layers, columns] of any ids, or from nothing.

    ``moves`` is the engine's default of ``EPLB_WGPU_MAX_MOVES``.
    """
    start = time.perf_counter()
    planner = shared_planner()._inner
    loads = loads_of(weight, window_weights)
    layers = loads.layers
    told: dict[str, Any]
    if running is None or running.shape[0] != layers or not running.shape[1]:
        plan = planner.plan(loads, cluster, options())
        new = ints(plan.physical_to_logical(), layers, cluster.num_slots)
        gpus = floats(plan.gpu_loads(), layers, cluster.num_gpus)
        most = gpus.max(axis=1).sum()
        told = {
            "fingerprint": plan.fingerprint,
            "before": float("nan"),
            "after": gpus.mean(axis=1).sum() / most if most else 1.0,
            "received_by_layer": [new.size],
            "repairs_by_layer": [new.size],
            "waiting": 0,
            "device": plan.device,
            "warnings": plan.warnings(),
        }
    else:
        data = np.ascontiguousarray(running, dtype=np.int64).tobytes()
        limits = {"min_gain": MIN_GAIN, **max_moves(moves)}
        flat, told = planner.step(loads, cluster, data, running.shape[1], options(), limits)
        new = ints(flat, layers, cluster.num_slots)
    for warning in told["warnings"]:
        logger.warning("eplb-wgpu: %s", warning)
    waiting = f", {told['waiting']} layers wait with groups across nodes" if told["waiting"] else ""
    logger.info(
        "eplb-wgpu %s, plan version %d: plan %s of %d layers x %d experts on %d GPUs: balancedness %.4f -> %.4f, "
        "%d of %d slots move, %d of them repairs%s; %.0f ms on %s",
        _core.VERSION,
        _core.PLAN_VERSION,
        told["fingerprint"],
        layers,
        loads.experts,
        cluster.num_gpus,
        told["before"],
        told["after"],
        sum(told["received_by_layer"]),
        new.size,
        sum(told["repairs_by_layer"]),
        waiting,
        (time.perf_counter() - start) * 1e3,
        told["device"],
    )
    return new


def joined(steps: NDArray[Any], windows: int = WINDOWS) -> tuple[NDArray[Any], list[float] | None]:
    """Steps [T, layers, experts] joined to at most this many windows, and the weight of each: its tokens.

    One window [layers, experts] where there is one step, or nothing has load.
    """
    parts = np.array_split(steps, min(windows, MAX_WINDOWS, max(1, len(steps))))
    summed = np.stack([part.sum(axis=0) for part in parts])
    tokens = [float(window.sum()) for window in summed]
    if len(summed) == 1 or not sum(tokens):
        return summed.sum(axis=0), None
    return summed, tokens
