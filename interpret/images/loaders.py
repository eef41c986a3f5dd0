"""Data loaders: read a `DataLoader`'s data set item by item."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
    default_convert,
)

from interpret.support.errors import InterpretError


def loaded_by(loader: DataLoader[Any]) -> tuple[Any, list[str]]:
    """Return the data set behind a loader, and notes on which of the loader's settings are ignored.

    >>> from torch.utils.data import TensorDataset
    >>> import torch
    >>> loaded_by(DataLoader(TensorDataset(torch.zeros(4, 3)), batch_size=2, shuffle=True))[1]
    ["the DataLoader's RandomSampler is not used: items come in the order of its data set"]

    A `SubsetRandomSampler` still selects its items, now in ascending order. A custom `collate_fn` is applied to each
    item as a batch of one.

    Of an iterable data set, the items come one by one, too.

    Raises:
        InterpretError: the loader's data set is iterable, and it has a custom `collate_fn`.
    """
    dataset: Any = loader.dataset
    if isinstance(dataset, IterableDataset):
        if loader.collate_fn not in (default_collate, default_convert):
            raise InterpretError(
                "data is a DataLoader of an iterable data set with its own collate_fn: give its data set, data.dataset"
            )
        return dataset, []
    if loader.collate_fn not in (default_collate, default_convert):
        dataset = _Collated(dataset, loader.collate_fn)
    sampler: Any = loader.sampler
    plain = type(loader.batch_sampler) is BatchSampler or loader.batch_sampler is None
    if not plain and loader.batch_sampler is not None:
        sampler = loader.batch_sampler
    if isinstance(sampler, SubsetRandomSampler):
        return Subset(dataset, np.sort(np.asarray(sampler.indices)).tolist()), []
    if isinstance(sampler, SequentialSampler):
        return dataset, []
    name = type(sampler).__name__
    return dataset, [f"the DataLoader's {name} is not used: items come in the order of its data set"]


class _Collated(Dataset[Any]):
    """A data set whose items have passed through a `collate_fn`, each as a batch of one."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any]) -> None:
        self.dataset, self.collate = dataset, collate

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: int) -> Any:
        return _only(self.collate([self.dataset[item]]))


def _only(batch: Any) -> Any:
    """Return the only item of a batch of one."""
    if isinstance(batch, Mapping):
        return {key: _only(value) for key, value in batch.items()}
    if hasattr(batch, "_asdict"):
        return {key: _only(value) for key, value in batch._asdict().items()}
    if isinstance(batch, tuple) or (isinstance(batch, list) and len(batch) > 1):
        return tuple(map(_only, batch))
    if isinstance(batch, list | Tensor | np.ndarray) and len(batch) == 1:
        return batch[0]
    return batch
