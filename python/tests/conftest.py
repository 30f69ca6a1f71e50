"""Parts that the tests share: loads that are drawn from a seed, judges of maps, and stand-ins of the engines' modules, written
from their contracts."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator

import numpy as np
import pytest


def loads(layers: int, experts: int, seed: int = 0) -> np.ndarray:
    """Skewed counts [layers, experts]."""
    return (np.random.default_rng(seed).lognormal(0, 1, (layers, experts)) * 1000).astype(np.int64)


def drifted(weight: np.ndarray, seed: int, spread: float = 0.2) -> np.ndarray:
    """The same loads, each times a factor near 1."""
    return (weight * np.random.default_rng(seed).lognormal(0, spread, weight.shape)).astype(np.int64)


def start_map(layers: int, experts: int, slots: int) -> np.ndarray:
    """The map that a server starts with: all experts in order, then as many again as there is room for."""
    return np.tile(np.arange(slots) % experts, (layers, 1))


def heaviest(weight: np.ndarray, new: np.ndarray, gpus: int) -> np.ndarray:
    """[layers]: the load of the heaviest GPU, each replica carrying an equal part."""
    layers, experts = weight.shape
    counts = np.stack([np.bincount(row, minlength=experts) for row in new])
    shares = np.take_along_axis(weight / counts, new, axis=1)
    return shares.reshape(layers, gpus, -1).sum(axis=2).max(axis=1)


def received(old: np.ndarray, new: np.ndarray, gpus: int) -> int:
    """Slots whose GPU receives an expert that it did not hold; `old` may have other columns than `new`."""
    per_gpu = new.shape[1] // gpus
    moved = 0
    for before, after in zip(old, new, strict=True):
        for gpu in range(gpus):
            held = list(before[gpu * per_gpu : (gpu + 1) * per_gpu])
            for expert in after[gpu * per_gpu : (gpu + 1) * per_gpu]:
                if expert in held:
                    held.remove(expert)
                else:
                    moved += 1
    return moved


def keeps_slots(old: np.ndarray, new: np.ndarray, gpus: int) -> bool:
    """Whether every replica that stays on its GPU stays in its slot."""
    per_gpu = new.shape[1] // gpus
    for before, after in zip(old, new, strict=True):
        for gpu in range(gpus):
            here = slice(gpu * per_gpu, (gpu + 1) * per_gpu)
            left = sorted(before[here][before[here] != after[here]])
            came = sorted(after[here][before[here] != after[here]])
            if set(left) & set(came):
                return False
    return True


def module(monkeypatch: pytest.MonkeyPatch, name: str, **contents: object) -> types.ModuleType:
    """A module that can be imported by this name, and all packages that it is in."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        if path not in sys.modules or end == len(parts):
            made = types.ModuleType(path)
            made.__path__ = []
            monkeypatch.setitem(sys.modules, path, made)
            if end > 1:
                monkeypatch.setattr(sys.modules[".".join(parts[: end - 1])], parts[end - 1], made, raising=False)
    for field, value in contents.items():
        setattr(sys.modules[name], field, value)
    return sys.modules[name]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of the caller's chooses device, threads or limits."""
    for name in ("DEVICE", "THREADS", "MAX_MOVES", "PRESET"):
        monkeypatch.delenv(f"EPLB_WGPU_{name}", raising=False)
    yield
