"""Results of the planner: plans, their quality and their moves."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import _core
from ._arrays import floats, ints, map_of, windows_of
from ._errors import InvalidError
from ._files import Map, warn

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Quality:
    """How good a map is. Loads are in the unit of the loads given, usually tokens."""

    balancedness: float
    """Sum over layers of the mean GPU load / sum over layers of the largest: 1 is perfect."""
    replica_balancedness: float
    """The same over replicas."""
    max_over_mean: float
    """Largest / mean GPU load of the layer where that is largest."""
    mean_gap: float
    """Mean over layers of largest GPU load / lower bound - 1."""
    worst_gap: float
    """The largest of these."""
    same_gpu_duplicates: int
    """Slots that repeat an expert of their GPU."""
    foreign_replicas: int
    """Replicas outside the home node of their group."""
    layers_without_load: int
    """Layers in which no expert has load."""
    max_gpu_load: NDArray[np.float64]
    """[layers]: the load of the heaviest GPU."""
    mean_gpu_load: NDArray[np.float64]
    """[layers]: the mean load of a GPU."""
    lower_bound: NDArray[np.float64]
    """[layers]: what no valid plan can go below."""
    duplicates_by_layer: NDArray[np.int64]
    """[layers]: slots that repeat an expert of their GPU."""

    @classmethod
    def _of(cls, told: dict[str, Any]) -> Quality:
        for field in ("max_gpu_load", "mean_gpu_load", "lower_bound"):
            told[field] = np.array(told[field], dtype=np.float64)
        told["duplicates_by_layer"] = np.array(told["duplicates_by_layer"], dtype=np.int64)
        return cls(**told)


@dataclass(frozen=True, eq=False)
class Traffic:
    """Where tokens go under a dispatch."""

    dispatch: str
    """``equal``, ``nearest`` or ``own-gpu``."""
    balancedness: float
    """Sum over layers of the mean GPU load / sum over layers of the largest: 1 is perfect."""
    on_gpu: float
    """The share of tokens that are served by the GPU that they come from."""
    in_node: float
    """The share of tokens that are served in the node that they come from, those on the GPU included."""
    gpu_loads: NDArray[np.float64]
    """[layers, num_gpus]: the load of each GPU."""


@dataclass(frozen=True, eq=False)
class Moves:
    """Moves of a plan. A slot moves where its GPU receives an expert that it did not hold."""

    received: int
    """Slots that move, all layers together: the transfers."""
    repairs: int
    """Those of them that could not be avoided: what the map before did not hold, or had where it may not be."""
    slots: int
    """Slots in all."""
    received_by_layer: NDArray[np.int64]
    """[layers]: slots that move."""
    order: list[int]
    """The layers that move, first the one that gains most for a moved slot."""
    lost: list[tuple[int, int]]
    """Layer and expert of each expert that the map before does not hold: its weights must come from elsewhere."""

    @property
    def share(self) -> float:
        """Slots that move over all slots."""
        return self.received / self.slots if self.slots else 0.0

    @classmethod
    def _of(cls, told: dict[str, Any], slots: int) -> Moves:
        received = np.array(told["received_by_layer"], dtype=np.int64)
        repairs = sum(told["repairs_by_layer"])
        return cls(int(received.sum()), repairs, slots, received, told["order"], told["lost"])


class Plan:
    """A plan, as :class:`Planner` makes it; arrays are read-only and computed when asked for.

    With L layers, E experts, S slots and X the largest replica count over all layers.
    """

    def __init__(self, inner: _core.Plan) -> None:
        self._inner = inner

    @cached_property
    def physical_to_logical(self) -> NDArray[np.int64]:
        """[L, S]: the expert of each slot, -1 where it is free. DeepSeek's ``phy2log``."""
        layers, _, slots, _ = self._inner.shape
        return _frozen(ints(self._inner.physical_to_logical(), layers, slots))

    @cached_property
    def logical_to_physical(self) -> NDArray[np.int64]:
        """[L, E, X]: the slots of each expert in ascending order, padded with -1. DeepSeek's ``log2phy``."""
        layers, experts, _, width = self._inner.shape
        return _frozen(ints(self._inner.logical_to_physical(), layers, experts, width))

    @cached_property
    def replica_counts(self) -> NDArray[np.int64]:
        """[L, E]: replicas of each expert. DeepSeek's ``logcnt``."""
        layers, experts, _, _ = self._inner.shape
        return _frozen(ints(self._inner.replica_counts(), layers, experts))

    @cached_property
    def gpu_loads(self) -> NDArray[np.float64]:
        """[L, num_gpus]: the load of each GPU, each replica carrying an equal part of its expert's load."""
        return _frozen(floats(self._inner.gpu_loads(), self._inner.shape[0], self.cluster.num_gpus))

    def traffic(
        self, dispatch: Literal["equal", "nearest", "own-gpu"] = "nearest", sources: ArrayLike | None = None
    ) -> Traffic:
        """Where the tokens that the plan was made for go.

        Args:
            dispatch: How they are dealt to replicas, see :class:`PlanOptions`.
            sources: [num_gpus, layers, experts], the tokens that each GPU sends. By default every GPU sends an equal
                part of every expert's load.

        Raises:
            InvalidError: No such dispatch, or sources of another shape.
        """
        windows = None if sources is None else windows_of(sources, "sources")
        data, told = self._inner.traffic(dispatch, windows)
        loads = floats(data, self._inner.shape[0], self.cluster.num_gpus)
        return Traffic(gpu_loads=_frozen(loads), **told)

    @property
    def cluster(self) -> _core.Cluster:
        """The cluster the plan is for."""
        return self._inner.cluster

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the map, equal where the maps are: for ranks to compare."""
        return self._inner.fingerprint

    @cached_property
    def quality(self) -> Quality:
        """How good the plan is on the loads it was made for. The bound in it may take longer than the plan."""
        return Quality._of(self._inner.quality())

    @property
    def balancedness(self) -> float:
        """See :attr:`Quality.balancedness`."""
        return self.quality.balancedness

    @cached_property
    def layer_ids(self) -> list[int]:
        """[L]: the numbers of the layers, as the loads had them."""
        return self._inner.layer_ids()

    def save(self, path: str | PathLike[str], format: str | None = None) -> None:
        """Writes the plan, whole or not at all: as a plan file, which ``eplb`` and :func:`read_map` take, or as an engine
        reads it.

        Args:
            path: The file.
            format: ``eplb``, ``sglang``, ``vllm``, ``tensorrt-llm``, ``vllm-ascend`` or ``npy``. By default what the
                ending of ``path`` says: ``.json`` is a plan file, ``.yaml`` TensorRT-LLM's, ``.npy`` NumPy's.

        Raises:
            InvalidError: A format that cannot hold the plan, with the reason.
            OSError: A file that cannot be written.

        What a format cannot say, as the numbers of layers, is warned of.
        """
        warn(_core.write_plan(os.fspath(path), format, self._inner))

    @cached_property
    def moves(self) -> Moves | None:
        """The moves of the plan; None where nothing ran before."""
        told = self._inner.moved()
        return None if told is None else Moves._of(told, self.physical_to_logical.size)

    @cached_property
    def stops(self) -> list[str]:
        """[L]: why the search of each layer ended, as ``bound reached`` or ``previous plan``."""
        return self._inner.stops()

    @property
    def device(self) -> str:
        """The device that made it."""
        return self._inner.device

    @property
    def elapsed(self) -> float:
        """Seconds it took, without the bound of :attr:`quality`."""
        return self._inner.elapsed

    @cached_property
    def warnings(self) -> list[str]:
        """Warnings for the caller: for instance, a device failed, and the CPU backend finished its work."""
        return self._inner.warnings()

    def __repr__(self) -> str:
        layers, experts, _, _ = self._inner.shape
        return f"<Plan {self.fingerprint} of {layers} layers x {experts} experts on {self.cluster!r}>"


def running_map(previous: Plan | Map | ArrayLike, layers: int | None = None) -> tuple[bytes, int]:
    """A plan or map that runs, as bytes, with its slots."""
    if isinstance(previous, Plan | Map):
        previous = previous.physical_to_logical
    if previous is None:
        raise InvalidError("previous", None, "is not a plan or a map [layers, slots]")
    data, _, slots = map_of("previous", previous, layers)
    return data, slots


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array
