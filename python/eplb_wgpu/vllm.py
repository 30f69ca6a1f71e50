"""The door of vLLM: installing the wheel is enough.

vLLM loads :func:`register` from its entry point ``vllm.general_plugins`` in every process; it puts this planner in the
place of the policy named ``default``, the only one that vLLM runs asynchronously. ``VLLM_PLUGINS`` chooses which
plugins are loaded: without ``eplb_wgpu`` in it vLLM's own policy stays.

Moves are bounded: ``EPLB_WGPU_MAX_MOVES`` says how many slots may move at a rebalance, ``5%`` of all by default. A
server starts with a map whose groups are across nodes; where nodes matter, layer after layer is brought together within
that bound. ``EPLB_WGPU_DEVICE`` (``cpu`` by default: the GPU is the model's), ``EPLB_WGPU_THREADS`` (4) and
``EPLB_WGPU_PRESET`` say the rest. All ranks must run the same release: each logs version and fingerprint of its plan.
"""

from __future__ import annotations

import logging
from typing import Any

from ._arrays import is_tensor, to_numpy, to_tensor
from ._core import Cluster
from ._engines import step

# Below vLLM's own logger, whose handlers it uses.
logger = logging.getLogger("vllm.eplb_wgpu")


def rebalance_experts(
    weight: Any,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_ranks: int,
    old_global_expert_indices: Any = None,
) -> Any:
    """vLLM's policy: the map to run next, from the one that runs.

    Args:
        weight: [layers, experts], tokens of each expert.
        num_replicas: Slots of a layer, a multiple of ``num_ranks``.
        num_groups: Groups of experts, kept in a node where they are a multiple of ``num_nodes``.
        num_nodes: Nodes.
        num_ranks: GPUs, a multiple of ``num_nodes``.
        old_global_expert_indices: [layers, slots], the map that runs; -1 in slots that are new, and more columns than
            ``num_replicas`` where the GPUs at the end go. None for a plan from nothing.

    Returns:
        [layers, num_replicas] of int64 on the CPU, the expert of each slot; what stays on a GPU keeps its slot.

    Raises:
        InvalidError: What breaks a rule, with field, value and rule.
    """
    cluster = Cluster(num_replicas, num_groups, num_nodes, num_ranks)
    old = old_global_expert_indices
    running = None if old is None else to_numpy("old_global_expert_indices", old)
    new = step(logger, to_numpy("weight", weight), cluster, running)
    return to_tensor(new) if is_tensor(weight) else new


def register() -> None:
    """Puts this planner in the place of vLLM's policy ``default``, in this process; a second call does nothing."""
    try:
        from vllm.distributed.eplb import policy
    except ImportError as error:
        logger.warning("eplb-wgpu: this vLLM has no policies of expert load balancing to replace: %s", error)
        return
    before = policy.EPLB_POLICIES["default"]
    if getattr(before, "is_eplb_wgpu", False):
        return

    class EplbWgpuPolicy(policy.AbstractEplbPolicy):  # type: ignore[misc]
        """This planner, with vLLM's interface."""

        is_eplb_wgpu = True

        @classmethod
        def rebalance_experts(cls, *args: Any, **options: Any) -> Any:
            return rebalance_experts(*args, **options)

    policy.EPLB_POLICIES["default"] = EplbWgpuPolicy
    logger.info("eplb-wgpu takes the place of %s", before.__name__)
