"""The door of SGLang: installing the wheel is enough.

SGLang loads :func:`register` from its entry point ``sglang.srt.plugins`` in every process (``SGLANG_PLUGINS`` chooses
which plugins); releases without plugins need one call of it in each process before the first rebalance. It replaces the
two functions that SGLang's manager calls. ``--eplb-algorithm`` keeps its meaning: names that end in ``_hierarchical``
keep groups in a node, ``elasticity_aware`` ones leave out ranks that are dead, ``auto`` chooses; ``eplb_wgpu`` is
another word for ``auto``.

The steps of the recorder are joined to 8 windows, and the plan suits them all. It starts from the map that runs, and
moves are bounded as for vLLM: see :mod:`eplb_wgpu.vllm` for the variables.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np

from ._arrays import is_tensor, to_numpy, to_tensor
from ._core import Cluster
from ._engines import joined, step
from ._errors import InvalidError

logger = logging.getLogger("sglang.eplb_wgpu")


def rebalance_experts(
    tokens_per_expert: Any,
    num_physical_experts: int,
    num_local_physical_experts: int,
    num_groups: int | None,
    num_nodes: int,
    algorithm: Any,
    *,
    active_ranks: Any = None,
    running: Any = None,
) -> tuple[Any, Any, Any]:
    """SGLang's function, with two arguments that it leaves to be asked for.

    Args:
        tokens_per_expert: [steps, layers, experts], or [layers, experts].
        num_physical_experts: Slots of a layer.
        num_local_physical_experts: Slots of a GPU.
        num_groups: Groups of experts, or None.
        num_nodes: Nodes.
        algorithm: A member of SGLang's ``EplbAlgorithm``, or its name.
        active_ranks: [GPUs or more], 0 for a GPU that is dead: under ``elasticity_aware`` what SGLang's manager says,
            else all live.
        running: [layers, slots], the map that runs; what SGLang says by default.

    Returns:
        ``(physical_to_logical, logical_to_physical, expert_count)`` as for :func:`eplb_wgpu.rebalance_experts`. Slots
        of a dead GPU hold expert 0 in the first and are not in the second and third.

    Raises:
        InvalidError: What breaks a rule, such as fewer living slots than experts.
    """
    name = getattr(algorithm, "name", str(algorithm))
    if num_local_physical_experts < 1 or num_physical_experts % num_local_physical_experts:
        rule = f"is not a multiple of num_local_physical_experts {num_local_physical_experts}"
        raise InvalidError("num_physical_experts", num_physical_experts, rule)
    gpus = num_physical_experts // num_local_physical_experts
    steps = to_numpy("tokens_per_expert", tokens_per_expert)
    weights = None
    if steps.ndim == 3:
        steps, weights = joined(steps)
    if name.startswith("elasticity_aware") and active_ranks is None:
        active_ranks = _active_ranks()
    living = np.ones(gpus, dtype=bool)
    if active_ranks is not None:
        living = to_numpy("active_ranks", active_ranks).ravel()[:gpus] != 0
    running = _running_map() if running is None else running
    old = None if running is None else to_numpy("running", running)
    new, experts = _plan(steps, weights, living, num_local_physical_experts, _nodes(name, num_groups, num_nodes), old)
    maps = (new, *_lists(new, np.repeat(living, num_local_physical_experts), experts))
    if is_tensor(tokens_per_expert):
        return to_tensor(maps[0]), to_tensor(maps[1]), to_tensor(maps[2])
    return maps


def _nodes(name: str, num_groups: int | None, num_nodes: int) -> tuple[int, int]:
    """Groups and nodes, as the algorithm's name has them."""
    if name.endswith("_hierarchical"):
        if num_groups is None:
            raise InvalidError("num_groups", None, f"is not a number, which {name} needs")
        return num_groups, num_nodes
    return 1, 1


def _plan(
    weight: Any,
    weights: list[float] | None,
    living: Any,
    per_gpu: int,
    groups_and_nodes: tuple[int, int],
    old: Any,
) -> tuple[Any, int]:
    """The map of all GPUs, 0 in the slots of dead ones, and the number of experts."""
    experts = weight.shape[-1]
    alive = int(living.sum())
    slots = np.repeat(living, per_gpu)
    groups, nodes = groups_and_nodes
    if alive < len(living):
        # Nodes are no longer equal: any replica may go to any GPU that lives.
        groups, nodes = 1, 1
        if alive * per_gpu < experts:
            rule = f"x {per_gpu} slots is less than the number of experts {experts}: some could not be served"
            raise InvalidError("living GPUs", alive, rule)
        old = old[:, slots] if old is not None and old.shape[-1] == len(slots) else None
    cluster = Cluster(alive * per_gpu, groups, nodes, alive)
    planned = step(logger, weight, cluster, old, weights)
    new = np.zeros((planned.shape[0], len(slots)), dtype=np.int64)
    new[:, slots] = planned
    return new, experts


def _lists(new: Any, alive: Any, experts: int) -> tuple[Any, Any]:
    """The slots of each expert, ascending and padded with -1, and how many there are; dead slots left out."""
    layers = len(new)
    counts = np.zeros((layers, experts), dtype=np.int64)
    slots = np.flatnonzero(alive)
    rows = np.arange(layers)
    for slot in slots:
        counts[rows, new[:, slot]] += 1
    lists = np.full((layers, experts, int(counts.max())), -1, dtype=np.int64)
    filled = np.zeros_like(counts)
    for slot in slots:
        expert = new[:, slot]
        lists[rows, expert, filled[rows, expert]] = slot
        filled[rows, expert] += 1
    return lists, counts


def _active_ranks() -> Any:
    """SGLang's list of the ranks that are active."""
    from sglang.srt.elastic_ep.elastic_ep import ElasticEPStateManager

    state = ElasticEPStateManager.instance()
    return ElasticEPStateManager.healthy_rank_state() if state is None else state.active_ranks


def _running_map() -> Any:
    """The map that SGLang runs; None before there is one."""
    location = sys.modules.get("sglang.srt.eplb.expert_location")
    metadata = location.get_global_expert_location_metadata() if location else None
    return None if metadata is None else metadata.physical_to_logical_map_cpu


def register() -> None:
    """Replaces the functions that SGLang's manager calls, in this process; a second call does nothing."""
    try:
        from sglang.srt.eplb import eplb_algorithms
    except ImportError as error:
        logger.warning("eplb-wgpu: this SGLang has no algorithms of expert load balancing to replace: %s", error)
        return
    if eplb_algorithms.rebalance_experts is rebalance_experts:
        return
    resolve = eplb_algorithms.compute_algorithm

    def compute_algorithm(raw_algorithm: str, num_groups: int | None, num_nodes: int) -> Any:
        raw_algorithm = "auto" if raw_algorithm == "eplb_wgpu" else raw_algorithm
        return resolve(raw_algorithm, num_groups, num_nodes)

    eplb_algorithms.compute_algorithm = compute_algorithm
    eplb_algorithms.rebalance_experts = rebalance_experts
    logger.info("eplb-wgpu takes the place of SGLang's algorithms")
