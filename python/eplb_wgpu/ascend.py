"""The door of vLLM on Ascend: ``"eplb_config": {"dynamic_eplb": true, "eplb_policy_type": 1}``.

Its policies have numbers and no registry. :func:`register`, an entry point in ``vllm.general_plugins``, puts this
planner in the place of number 1. The object is made in the worker and handed to the process that plans, which imports
this module by itself. (The model runner V2 uses vLLM's own interface: see :mod:`eplb_wgpu.vllm`.)

vLLM on Ascend keeps the old map of a layer, and says so in its log alone, where an expert is lost, is twice on a device,
or is kept on a device in another slot. No layer of this planner's maps breaks that rule. ``EPLB_WGPU_MAX_MOVES`` bounds the slots that move at a
rebalance, :data:`MOVES` of all by default; what else the environment says is as for vLLM.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import numpy as np

from ._arrays import to_numpy
from ._core import Cluster
from ._engines import joined, step
from ._errors import InvalidError

logger = logging.getLogger("vllm.eplb_wgpu")

POLICY_TYPE = 1
"""The number of the policy that this planner takes the place of."""

MOVES = "10%"
"""Of all slots, those that may move at a rebalance where ``EPLB_WGPU_MAX_MOVES`` says nothing: twice as many as for vLLM.

vLLM on Ascend moves one layer between two forward passes, so that moves cost it less, and its own policies bound them
less: on its own test of policies the first moves 96 % of the slots and the second 22 %. Of 100 steps of random loads
there, handed over one by one, 5 % leave the heaviest device at 1.11 of the mean, 10 % at 1.09, and that test allows 1.1.
Handed over as their sum, as this policy gets them, they leave it at 1.03 and 1.01.
"""


class Policy:
    """The interface ``EplbPolicy`` of vllm_ascend."""

    def rebalance_experts(
        self, current_expert_table: Any, expert_workload: Any
    ) -> tuple[int, Any, list[list[list[int]]]]:
        """The table to run next, from the one that runs.

        Args:
            current_expert_table: [layers, devices, slots], the expert of each slot.
            expert_workload: [layers, devices, slots], or [steps, layers, devices, slots]: the tokens of each slot.

        Returns:
            Whether anything changes (1 or 0), [layers] in the order in which to change them, and the new table.
            Layers with a slot that holds no expert stay as they are.

        Raises:
            InvalidError: Shapes that do not fit each other.
        """
        old = to_numpy("current_expert_table", current_expert_table).astype(np.int64)
        load = to_numpy("expert_workload", expert_workload)
        if old.ndim != 3 or not old.size:
            raise InvalidError("current_expert_table of shape", list(old.shape), "is not [layers, devices, slots]")
        if load.shape[-3:] != old.shape or load.ndim > 4:
            rule = f"is not that of current_expert_table, {list(old.shape)}, with steps before it or not"
            raise InvalidError("expert_workload of shape", list(load.shape), rule)
        new = old.copy()
        ready = np.flatnonzero((old >= 0).all(axis=(1, 2)))
        if len(ready):
            new[ready] = _plan(old[ready], load[..., ready, :, :])
        changed = np.flatnonzero((new != old).any(axis=(1, 2)))
        # Those that change first, the most loaded device of all first among them.
        heaviest = load.reshape(-1, *old.shape).sum(axis=0).sum(axis=2).max(axis=1)
        order = sorted(range(len(old)), key=lambda at: (at not in changed, -heaviest[at], at))
        return int(len(changed) > 0), np.array(order), new.tolist()


def _plan(old: Any, load: Any) -> Any:
    """The new table of layers without free slots."""
    layers, devices, per_device = old.shape
    experts = int(old.max()) + 1
    ids = old.reshape(layers, -1)
    steps = load.reshape(-1, layers, devices * per_device)
    logical = np.zeros((len(steps), layers, experts), dtype=np.result_type(load.dtype, np.int64))
    for at, loads in enumerate(steps):
        np.add.at(logical[at], (np.arange(layers)[:, None], ids), loads)
    weight, weights = joined(logical)
    cluster = Cluster(devices * per_device, 1, 1, devices)
    new = step(logger, weight, cluster, ids, weights, MOVES).reshape(old.shape)
    broken = [at for at in range(layers) if not keeps_rule(old[at], new[at])]
    if broken:
        # Fewer experts than slots of a device, say: then no table without duplicates exists.
        logger.warning("eplb-wgpu: layers %s stay as they are: no table that vLLM on Ascend takes", broken)
        new[broken] = old[broken]
    return new


def keeps_rule(old: Any, new: Any) -> bool:
    """Whether vLLM on Ascend takes a layer's new table [devices, slots] after the old one."""
    if len(np.unique(new)) < len(np.unique(old)):
        return False
    for before, after in zip(old, new, strict=True):
        if len(np.unique(after)) < len(after):
            return False
        kept = np.isin(after, before)
        if (after[kept] != before[kept]).any():
            return False
    return True


def register() -> None:
    """Puts this planner in the place of policy number 1, in this process; nothing without vllm_ascend."""
    if importlib.util.find_spec("vllm_ascend") is None:
        return
    try:
        from vllm_ascend.eplb.core.policy.policy_factory import PolicyFactory
    except ImportError as error:
        logger.warning("eplb-wgpu: this vllm_ascend has no policies to replace: %s", error)
        return
    before = PolicyFactory.generate_policy
    if getattr(before, "is_eplb_wgpu", False):
        return

    def generate_policy(policy_type: int) -> Any:
        return Policy() if policy_type == POLICY_TYPE else before(policy_type)

    generate_policy.is_eplb_wgpu = True  # type: ignore[attr-defined]
    PolicyFactory.generate_policy = staticmethod(generate_policy)
    logger.info("eplb-wgpu takes the place of policy %d", POLICY_TYPE)
