"""Planners, and the functions that use one made on first use."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

from . import _core
from ._arrays import ints, is_tensor, loads_of, map_of, to_tensor, whole, windows_of
from ._errors import InvalidError
from ._files import Map, layer_numbers
from ._options import device_of, split, threads_of
from ._plan import Plan, Quality, running_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Unpack

    from ._core import Cluster
    from ._options import MoveLimits, PlanOptions

    class ReplanOptions(PlanOptions, MoveLimits, total=False):
        """Options of a plan made from a previous one."""


class Planner:
    """Makes plans on one device; made once and used often, from any thread and after a fork.

    Args:
        device: ``cpu``, ``auto``, ``gpu``, a number or a part of a name, as :func:`eplb_wgpu.devices` lists them.
            By default what ``EPLB_WGPU_DEVICE`` says, or else ``cpu``: in a serving process the GPU is the model's.
        threads: Threads of the CPU backend, 1 to 1,024. By default what ``EPLB_WGPU_THREADS`` says, or else 4, or as
            many as there are cores. Every device and number of threads gives the same plan.

    Raises:
        InvalidError: A device that is not here (with those found), a number of threads out of range.
        RuntimeError: A driver that refuses.
    """

    def __init__(self, device: str | int | None = None, threads: int | None = None) -> None:
        self._inner = _core.Planner(device_of(device), threads_of(threads))

    @property
    def device(self) -> str:
        """The device that makes the plans."""
        return self._inner.device

    @property
    def threads(self) -> int:
        """Threads of the CPU backend."""
        return self._inner.threads

    def plan(
        self,
        weight: ArrayLike,
        cluster: Cluster,
        *,
        window_weights: Sequence[float] | None = None,
        layer_ids: Sequence[int] | None = None,
        **options: Unpack[PlanOptions],
    ) -> Plan:
        """A plan for loads on a cluster, without the interpreter's lock while it is made.

        Args:
            weight: [layers, experts], tokens of each expert, or [windows, layers, experts] for one plan that suits up
                to 16 windows; numpy, torch or lists, of any dtype and layout, at least 0 and finite.
            cluster: Where replicas can go.
            window_weights: [windows], what each window counts; all the same by default.
            layer_ids: [layers], the numbers of the layers, which files of the plan keep; 0 and on by default.
            **options: See :class:`PlanOptions`.

        Raises:
            InvalidError: Loads, cluster and options that break a rule, alone or together.
        """
        loads = numbered(loads_of(weight, window_weights), layer_ids)
        return Plan(self._inner.plan(loads, cluster, dict(options)))

    def replan(
        self,
        weight: ArrayLike,
        cluster: Cluster,
        previous: Plan | Map | ArrayLike,
        *,
        window_weights: Sequence[float] | None = None,
        layer_ids: Sequence[int] | None = None,
        **options: Unpack[ReplanOptions],
    ) -> Plan:
        """A plan from the one that runs: each moved slot must be worth its transfer.

        The map that runs need not fit: slots may have come or gone at the end, hold -1 or a foreign id, or have
        groups across nodes. What can stay stays. What must be mended is mended whatever the limits say, and counted
        in :attr:`Moves.repairs`.

        Args:
            weight: As for :meth:`plan`.
            cluster: Where replicas can go now.
            previous: A :class:`Plan`, a :class:`Map`, or [layers, slots] of whole numbers, the expert of each slot.
            window_weights: As for :meth:`plan`.
            layer_ids: As for :meth:`plan`. Where ``previous`` tells its layers too, they must be the same.
            **options: See :class:`PlanOptions` and :class:`MoveLimits`. By default there is no limit on the number of
                moves, and ``min_gain`` is 0.1, or less where more slots may move.

        Raises:
            InvalidError: As for :meth:`plan`, and a map of other layers or not of whole numbers.
        """
        loads = numbered(loads_of(weight, window_weights), layer_ids)
        data, slots = running_map(previous, loads.layers)
        check_same_layers(previous, layer_ids)
        chosen, limits = split(options)
        return Plan(self._inner.replan(loads, cluster, data, slots, chosen, limits))

    def shares(
        self,
        windows: ArrayLike,
        cluster: Cluster,
        physical_to_logical: Plan | Map | ArrayLike,
        *,
        sample: ArrayLike | None = None,
    ) -> NDArray[np.int64]:
        """A table of shares for the next window: how many of 256 parts of its expert's tokens each slot serves.

        It moves no weights, so that it can be made anew at every window.

        Args:
            windows: [windows, layers, experts], the loads of the last windows, oldest first. The last 16 are planned
                on, around a forecast from the last 32.
            cluster: Where replicas can go.
            physical_to_logical: A :class:`Plan`, a :class:`Map`, or [layers, slots], the expert of each slot, -1 where it is free.
            sample: [layers, experts], the loads of what has run of the window that the table is for. It and the windows
                are then to be counts of routings: of few, less is believed.

        Returns:
            [layers, slots]; the parts of an expert's slots sum to 256, and a free slot has none.

        Raises:
            InvalidError: Loads and a map that do not fit.

        >>> from eplb_wgpu import Cluster, Planner
        >>> planner, cluster = Planner(), Cluster(6, 1, 1, 3)
        >>> plan = planner.plan([[90, 30, 20, 10]], cluster)
        >>> int(planner.shares([[[90, 30, 20, 10]], [[80, 40, 20, 10]]], cluster, plan).sum())
        1024
        """
        loads = windows_of(windows)
        seen = None if sample is None else loads_of(sample)
        data, layers, slots = entries_of(physical_to_logical)
        return ints(self._inner.shares(loads, seen, False, cluster, data), layers, slots)

    def batch_shares(
        self, weight: ArrayLike, cluster: Cluster, physical_to_logical: Plan | Map | ArrayLike
    ) -> NDArray[np.int64]:
        """A table of shares for one batch whose loads are known, as :meth:`shares` gives it.

        Args:
            weight: [layers, experts], the loads of the batch.
            cluster: Where replicas can go.
            physical_to_logical: As for :meth:`shares`; best of a plan made with ``connected=True``.

        Raises:
            InvalidError: Loads and a map that do not fit.
        """
        data, layers, slots = entries_of(physical_to_logical)
        return ints(self._inner.shares([loads_of(weight)], None, True, cluster, data), layers, slots)

    def check(
        self,
        weight: ArrayLike,
        cluster: Cluster,
        physical_to_logical: Plan | Map | ArrayLike,
        *,
        shares: ArrayLike | None = None,
        max_foreign: int = 0,
    ) -> Quality:
        """The quality of a map on loads, by code that shares nothing with the planner.

        Args:
            weight: [layers, experts].
            cluster: Where replicas can go.
            physical_to_logical: A :class:`Plan`, a :class:`Map`, or [layers, slots], the expert of each slot, -1 where it is free.
            shares: [layers, slots], a table as :meth:`shares` makes it; even shares by default.
            max_foreign: The most replicas of a layer outside the home node of their group.

        Raises:
            InvalidError: The first rule that the map breaks, with layer and slot, expert or node.
        """
        loads = loads_of(weight)
        data, _, _ = entries_of(physical_to_logical)
        parts = None if shares is None else map_of("shares", shares)[0]
        return Quality._of(self._inner.check(loads, cluster, data, parts, min(whole("max_foreign", max_foreign), 2**32 - 1)))


def entries_of(physical_to_logical: Plan | Map | ArrayLike) -> tuple[bytes, int, int]:
    """A map as bytes, with its layers and slots."""
    if isinstance(physical_to_logical, Plan | Map):
        physical_to_logical = physical_to_logical.physical_to_logical
    return map_of("physical_to_logical", physical_to_logical)


def numbered(loads: _core.Loads, layer_ids: Sequence[int] | None) -> _core.Loads:
    """The same loads, of layers with these numbers where they are given."""
    return loads if layer_ids is None else loads.numbered(layer_numbers(layer_ids))


def check_same_layers(previous: Plan | Map | ArrayLike, layer_ids: Sequence[int] | None) -> None:
    """Refuses a map that tells its layers and is of others than the loads."""
    if layer_ids is None or not isinstance(previous, Plan | Map) or previous.layer_ids is None:
        return
    if list(previous.layer_ids) != list(layer_ids):
        rule = f"are not those of the loads, {list(layer_ids)}"
        raise InvalidError("layers of previous", list(previous.layer_ids), rule)


_shared: dict[tuple[str, int], Planner] = {}
_shared_lock = Lock()


def shared_planner(device: str | int | None = None, threads: int | None = None) -> Planner:
    """The planner of this process for a device and number of threads, made on first use."""
    key = (device_of(device), threads_of(threads))
    with _shared_lock:
        if key not in _shared:
            _shared[key] = Planner(*key)
        return _shared[key]


def rebalance_experts(
    weight: Any,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    *,
    device: str | int | None = None,
    threads: int | None = None,
    **options: Unpack[PlanOptions],
) -> tuple[Any, Any, Any]:
    """DeepSeek's ``rebalance_experts``, near the optimum: groups of experts stay in a node where ``num_groups`` is a
    multiple of ``num_nodes``, else any replica may go anywhere.

    Args:
        weight: [layers, experts], tokens of each expert: numpy, torch or lists, of any dtype and layout.
        num_replicas: Replicas of a layer, a multiple of ``num_gpus``, at least the number of experts.
        num_groups: Groups of experts.
        num_nodes: Nodes.
        num_gpus: GPUs of all nodes together, a multiple of ``num_nodes``.
        device, threads: As for :class:`Planner`; the CPU backend by default.
        **options: See :class:`PlanOptions`.

    Returns:
        ``(physical_to_logical, logical_to_physical, expert_count)`` of int64 with the shapes [layers, num_replicas],
        [layers, experts, X] and [layers, experts]: the expert of each slot, the slots of each expert in ascending
        order padded with -1, and its replicas; X is the largest of these over all layers. Tensors on the CPU where
        ``weight`` is a tensor, numpy arrays where it is anything else.

    Raises:
        InvalidError: What breaks a rule, with field, value and rule.

    >>> import numpy as np
    >>> from eplb_wgpu import rebalance_experts
    >>> phy2log, log2phy, logcnt = rebalance_experts(np.array([[90, 30, 20, 10]]), 6, 1, 1, 3)
    >>> phy2log.shape, log2phy.shape, int(logcnt.sum())
    ((1, 6), (1, 4, 3), 6)
    """
    cluster = _core.Cluster(num_replicas, num_groups, num_nodes, num_gpus)
    plan = shared_planner(device, threads)._inner.plan(loads_of(weight), cluster, dict(options))
    layers, experts, slots, width = plan.shape
    maps = (
        ints(plan.physical_to_logical(), layers, slots),
        ints(plan.logical_to_physical(), layers, experts, width),
        ints(plan.replica_counts(), layers, experts),
    )
    if is_tensor(weight):
        return to_tensor(maps[0]), to_tensor(maps[1]), to_tensor(maps[2])
    return maps


def check(weight: ArrayLike, cluster: Cluster, physical_to_logical: Plan | Map | ArrayLike) -> Quality:
    """:meth:`Planner.check` on a planner made on first use."""
    return shared_planner().check(weight, cluster, physical_to_logical)
