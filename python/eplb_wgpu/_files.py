"""Files: maps as every serving engine reads and writes them, and recorded loads."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from ._arrays import floats, ints, map_of, to_numpy, whole
from ._errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Map:
    """Which slot holds which expert, as a file says it: not held against loads or a cluster yet.

    Whatever takes a map that runs (:meth:`Planner.replan`, :meth:`Rebalancer.apply`, :func:`check`) takes this too.
    """

    physical_to_logical: NDArray[np.int64]
    """[layers, slots]: the expert of each slot, -1 where it holds nothing."""
    layer_ids: Sequence[int] | None = None
    """[layers]: the numbers of the layers, where they are known."""
    num_gpus: int | None = None
    """Number of GPUs, where it is known."""
    format: str | None = field(default=None, compare=False)
    """The format that it was read from."""

    def save(self, path: str | PathLike[str], format: str | None = None) -> None:
        """Writes the map for an engine, whole or not at all.

        Args:
            path: The file.
            format: ``sglang``, ``vllm``, ``tensorrt-llm``, ``vllm-ascend`` or ``npy``. By default what the ending of
                ``path`` says: ``.yaml`` is TensorRT-LLM's, ``.npy`` NumPy's.

        Raises:
            InvalidError: A format that cannot hold the map, with the reason; a map of other shapes.
            OSError: A file that cannot be written.

        What a format cannot say, as the numbers of layers, is warned of.
        """
        data, _, slots = map_of("physical_to_logical", self.physical_to_logical)
        ids = None if self.layer_ids is None else layer_numbers(self.layer_ids)
        gpus = None if self.num_gpus is None else whole("num_gpus", self.num_gpus)
        warn(_core.write_map(os.fspath(path), format, data, slots, ids, gpus))


@dataclass(frozen=True, eq=False)
class RecordedLoads:
    """Loads that an engine recorded."""

    loads: NDArray[Any]
    """[windows, layers, experts]: tokens of each expert; whole numbers where all of them are."""
    layer_ids: Sequence[int]
    """[layers]: the numbers of the layers."""


def read_map(path: str | PathLike[str], format: str | None = None) -> Map:
    """Reads a map of any engine, by its content, or as this format.

    Args:
        path: A plan file, SGLang's ``--init-expert-location`` (.json; .pt with torch), vLLM's slot map, TensorRT-LLM's
            load balancer (.yaml), the expert map of vLLM on Ascend, or .npy.
        format: ``eplb``, ``sglang``, ``vllm``, ``tensorrt-llm``, ``vllm-ascend`` or ``npy``, where the content could be
            two things.

    Raises:
        InvalidError: A file that is not what it should be, with layer and slot.
        OSError: A file that cannot be read.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Map(np.array([[0, 1, 2, 0]])).save(f"{folder}/init.json", "sglang")
    ...     read_map(f"{folder}/init.json").physical_to_logical.tolist()
    [[0, 1, 2, 0]]
    """
    if is_torch_file(path):
        held = torch_file(path, "physical_to_logical_map")
        entries, layers, slots = map_of(f"physical_to_logical_map of {os.fspath(path)}", held)
        return Map(ints(bytearray(entries), layers, slots), format="sglang")
    data, slots, ids, gpus, found = _core.read_map(os.fspath(path), format)
    return Map(ints(data, -1, slots), ids, gpus, found)


def read_loads(path: str | PathLike[str], format: str | None = None) -> RecordedLoads:
    """Reads recorded loads: SGLang's recorder (.json; .pt with torch, of its mode ``stat``, or of a rank and a window a pass),
    TensorRT-LLM's folder, Megatron's router trace, .npy, .npz, .csv, and .gz of each.

    Args:
        path: A file, or the folder of TensorRT-LLM's statistics.
        format: The format, where the name and content could be two things; the error lists them.

    Raises:
        InvalidError: A file that is not what it should be, with the place.
        OSError: A file that cannot be read.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/loads.npy", np.array([[[5, 3], [1, 7]]]))
    ...     recorded = read_loads(f"{folder}/loads.npy")
    >>> recorded.loads.shape, recorded.layer_ids
    ((1, 2, 2), [0, 1])
    """
    if is_torch_file(path):
        array = to_numpy(f"logical_count of {os.fspath(path)}", torch_file(path, "logical_count", counts_of_passes))
        if array.ndim == 2:
            array = array[None]
        if array.ndim != 3:
            raise InvalidError(
                f"logical_count of {os.fspath(path)}, of shape",
                list(array.shape),
                "is not [windows, layers, experts] or [layers, experts]",
            )
        wrong = ~np.isfinite(array) | (array < 0)
        if wrong.any():
            window, layer, expert = np.argwhere(wrong)[0]
            where = f"load of window {window}, layer {layer}, expert {expert} of {os.fspath(path)}"
            raise InvalidError(where, array[window, layer, expert], "is not a finite number of at least 0")
        return RecordedLoads(array, list(range(array.shape[1])))
    windows, layers, experts, data, ids = _core.read_loads(os.fspath(path), format)
    loads: NDArray[Any] = floats(data, windows, layers, experts)
    counts = loads.astype(np.int64) if loads.max(initial=0) < 2**53 else None
    return RecordedLoads(loads if counts is None or (counts != loads).any() else counts, ids)


def is_torch_file(path: str | PathLike[str]) -> bool:
    """Whether a file is torch's, by its ending."""
    return os.fspath(path).lower().endswith((".pt", ".pth"))


def counts_of_passes(held: dict[str, Any]) -> NDArray[Any] | None:
    """[passes, layers, experts] of what SGLang's recorder writes in its modes ``per_pass`` and ``per_token``: a record for
    each forward pass of a rank, with the counts of its slots, and the map that ran. None of anything else."""
    records, running = held.get("records"), held.get("last_physical_to_logical_map")
    if not isinstance(records, list) or not records or running is None:
        return None
    entries, layers, slots = map_of("last_physical_to_logical_map", running)
    expert = ints(bytearray(entries), layers, slots)
    # An empty slot has -1, and serves nothing.
    filled = np.nonzero(expert >= 0)
    passes = {number: at for at, number in enumerate(sorted({record["forward_pass_id"] for record in records}))}
    counts = np.zeros((len(passes), layers, int(expert.max()) + 1), dtype=np.int64)
    for record in records:
        of_slots = to_numpy("global_physical_count", record["global_physical_count"])
        if of_slots.shape != expert.shape:
            rule = f"is not that of last_physical_to_logical_map, {list(expert.shape)}"
            raise InvalidError("global_physical_count, of shape", list(of_slots.shape), rule)
        np.add.at(counts[passes[record["forward_pass_id"]]], (filled[0], expert[filled]), of_slots[filled])
    return counts


def torch_file(
    path: str | PathLike[str], field: str, other: Callable[[dict[str, Any]], NDArray[Any] | None] | None = None
) -> ArrayLike:
    """The array that a torch file holds under the name ``field``, or the tensor that the file is, or the array that
    ``other`` makes from the file. No code in the file is run."""
    try:
        import torch  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise InvalidError("file", os.fspath(path), "is read by torch, which is not installed here") from None
    with open(path, "rb") as file:
        try:
            held: Any = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # Whatever torch finds wrong in it; of a file that is cut off it says OSError.
            raise InvalidError("file", os.fspath(path), f"cannot be read by torch: {error}") from None
    if isinstance(held, dict):
        try:
            made = other(held) if other and field not in held else None
        except (KeyError, TypeError) as error:
            raise InvalidError("file", os.fspath(path), f"is not as a recorder writes it: {error}") from None
        if made is not None:
            return made
        if field not in held:
            raise InvalidError("file", os.fspath(path), f"holds {sorted(map(str, held))}, not {field}")
        held = held[field]
    return held  # type: ignore[no-any-return]


def layer_numbers(ids: Sequence[int]) -> list[int]:
    """The numbers of layers, each below 2^32."""
    numbers = [whole("layer id", number) for number in ids]
    for number in numbers:
        if number >= 2**32:
            raise InvalidError("layer id", number, "is not below 2^32")
    return numbers


def warn(losses: list[str]) -> None:
    """Tells what a file says otherwise than the map."""
    for loss in losses:
        warnings.warn(loss, UserWarning, stacklevel=3)
