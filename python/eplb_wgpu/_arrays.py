"""Arrays of any kind in, numpy out; torch is used where the caller uses it, and never imported."""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from ._errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

MAX_WINDOWS = 16


def is_tensor(value: object) -> bool:
    """Whether a value is a torch tensor; where torch was not imported, nothing is."""
    torch = sys.modules.get("torch")
    return torch is not None and hasattr(torch, "Tensor") and isinstance(value, torch.Tensor)


def to_tensor(array: NDArray[Any]) -> Any:
    """A tensor on the CPU that owns the array's memory."""
    return sys.modules["torch"].from_numpy(array)


def to_numpy(field: str, value: ArrayLike) -> NDArray[Any]:
    """A value as an array of numbers: bool, whole or float."""
    if is_tensor(value):
        torch = sys.modules["torch"]
        tensor: Any = value
        try:
            tensor = tensor.detach()
            if tensor.layout != torch.strided:
                tensor = tensor.to_dense()
            # numpy has neither bfloat16 nor the floats of 8 bits.
            if tensor.is_floating_point():
                tensor = tensor.to(device="cpu", dtype=torch.float64)
            value = tensor.to("cpu").resolve_neg().numpy()
        except (NotImplementedError, RuntimeError, TypeError) as error:  # A tensor without data, quantized, of 4 bits.
            rule = f"is not of numbers that can be read: {error}"
            raise InvalidError(f"{field} of dtype", tensor.dtype, rule) from None
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidError(field, "", f"is not an array: {error}") from None
    if array.dtype.kind not in "buif":
        raise InvalidError(f"{field} of dtype", array.dtype, "is not of numbers")
    return array


def whole(field: str, value: object) -> int:
    """A value as a whole number that fits a machine word."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidError(field, value, "is not a whole number") from None
    if not 0 <= number < 2**63:
        raise InvalidError(field, number, "is not at least 0 and below 2^63")
    return number


def _window(array: NDArray[Any]) -> _core.Loads:
    layers, experts = array.shape
    kind = "u64"
    if array.dtype.kind == "f" or (array.dtype.kind == "i" and array.size and array.min() < 0):
        kind = "f64"
    data = np.ascontiguousarray(array, dtype=np.float64 if kind == "f64" else np.uint64)
    return _core.Loads.window(layers, experts, kind, data.tobytes())


def windows_of(weight: ArrayLike, field: str = "weight") -> list[_core.Loads]:
    """Each window of [windows, layers, experts]."""
    array = to_numpy(field, weight)
    if array.ndim != 3:
        first = "windows" if field == "weight" else "num_gpus"
        raise InvalidError(f"{field} of shape", list(array.shape), f"is not [{first}, layers, experts]")
    return [_window(window) for window in array]


def loads_of(weight: ArrayLike, window_weights: Sequence[float] | None = None) -> _core.Loads:
    """Loads of [layers, experts], or of [windows, layers, experts]."""
    array = to_numpy("weight", weight)
    if array.ndim == 2 and window_weights is None:
        return _window(array)
    if array.ndim != 3:
        shapes = "[layers, experts] or [windows, layers, experts]"
        rule = f"is not {shapes if window_weights is None else '[windows, layers, experts]'}"
        raise InvalidError("weight of shape", list(array.shape), rule)
    if len(array) > MAX_WINDOWS:
        raise InvalidError("number of windows", len(array), f"is not between 1 and {MAX_WINDOWS}")
    weights = [1.0] * len(array) if window_weights is None else [float(w) for w in window_weights]
    return _core.Loads.windows([_window(window) for window in array], weights)


def map_of(field: str, value: ArrayLike, layers: int | None = None) -> tuple[bytes, int, int]:
    """A map [layers, slots] of whole numbers as bytes, with its layers and slots."""
    array = to_numpy(field, value)
    if array.dtype.kind == "f":
        raise InvalidError(f"{field} of dtype", array.dtype, "is not of whole numbers")
    if array.ndim != 2 or not array.shape[1]:
        raise InvalidError(f"{field} of shape", list(array.shape), "is not [layers, slots]")
    if layers is not None and array.shape[0] != layers:
        raise InvalidError(f"layers of {field}", array.shape[0], f"is not that of the loads, {layers}")
    return np.ascontiguousarray(array, dtype=np.int64).tobytes(), array.shape[0], array.shape[1]


def ints(data: bytearray, *shape: int) -> NDArray[np.int64]:
    """The array that the core wrote, to be written to by its owner."""
    return np.frombuffer(data, dtype=np.int64).reshape(shape)


def floats(data: bytearray, *shape: int) -> NDArray[np.float64]:
    """The array that the core wrote."""
    return np.frombuffer(data, dtype=np.float64).reshape(shape)
