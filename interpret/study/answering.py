"""Let a network answer for the images of which a study has no answer; an interrupt costs the last minute at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpret.execution.execution import Execution
from interpret.execution.ranks import State, ranks
from interpret.execution.reading import Reading, Spans, remaining_batches
from interpret.execution.resume import UnfinishedParts
from interpret.images.batches import of_one_shape
from interpret.images.selected_images import SelectedImages
from interpret.images.sources import Images
from interpret.support.errors import InterpretError
from interpret.support.files import discard

if TYPE_CHECKING:
    from interpret.study.study import Study


class ReadingFailed(InterpretError):  # noqa: N818 - as LostRank
    """The images cannot be read, which says nothing about the network's answers."""


def to_answer(study: Study, images: Images, known: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which images have an answer neither known by their source nor prevented, as they do not decode."""
    return ~(np.isin(images.sources, known) | _unreadable(study, images))


def answers_to_images(
    study: Study,
    run: Execution,
    images: SelectedImages,
    known: NDArray[np.int64],
    unfinished: UnfinishedParts,
    doing: str,
    answer: Callable[[NDArray[np.int64], Tensor], State],
) -> list[State]:
    """Return on rank 0 what a network answers for the images whose sources are not known, in parts.

    Each save keeps what was answered since the last, and what an interrupted call has kept is not answered again.
    Several ranks share the images.

    Args:
        study: the study, whose batch size and workers are used.
        run: the network.
        images: one for each source.
        known: the sources that have an answer.
        unfinished: where answers are kept until all are there; the caller forgets them.
        doing: what the progress says.
        answer: returns a state of the given items and their images, to which their sources are added.

    Raises:
        InterpretError: what `answer` raises; then nothing is kept.
    """
    found: list[State] = list(unfinished.load_parts()) if ranks().first else []
    before = ranks().agreed(np.concatenate([known, *(part["sources"].numpy() for part in found)]))
    size = run.batch_size(study.batch_size)
    done = _with_unreadable(np.isin(images.sources, before), _unreadable(study, images), size)
    to_read = Reading(images, size, _spans(done))
    new: list[State] = []
    failures: list[InterpretError] = []

    def answered() -> Iterator[State]:
        for batch in of_one_shape(_read(to_read, study.workers), run.input_shape):
            items = batch.items.numpy()
            try:
                columns = answer(items, batch.images)
            except InterpretError as error:  # of this rank, before which the others must not wait
                failures.append(error)
                return
            yield {"sources": torch.from_numpy(images.sources[items]), **columns}

    def state() -> State:
        arrived = list(ranks().arriving(new))
        together = _joined([*new, *arrived]) if ranks().first else {}
        new.clear()
        if together:
            found.append(together)
        return together

    with to_read.progress(doing) as bar:

        def update(part: State) -> None:
            new.append(part)
            bar.update(len(part["sources"]))

        unfinished.process(answered(), update, state)
    for skipped in ranks().concatenated([dict(images.skipped)]):
        images.skipped.update(skipped)
    try:
        ranks().concatenated(_raised(failures))
    except InterpretError:
        ranks().once(lambda: forget(study, unfinished))
        raise
    return found


def forget(study: Study, unfinished: UnfinishedParts) -> None:
    """Remove answers from unfinished work."""
    unfinished.forget()
    discard(study.path / "unfinished", [])


def _read(to_read: Reading, workers: int) -> Iterator[Any]:
    try:
        yield from to_read.batches(workers)
    except InterpretError as error:
        raise ReadingFailed(str(error)) from None


def _raised(failures: list[InterpretError]) -> Iterator[None]:
    for error in failures:
        raise error
    yield from ()


def _unreadable(study: Study, images: Images) -> NDArray[np.bool_]:
    """Return which images are known not to decode."""
    skipped = study.info["data"]["skipped"].keys() | images.skipped.keys()
    if not skipped:
        return np.zeros(len(images), bool)
    return images.are_named(images.sources, skipped)


def _with_unreadable(done: NDArray[np.bool_], unreadable: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Add batches of which nothing can be read to what is done.

    Others are read with what does not decode, so that they are the same batches before and after that is known.

    >>> done, torn = np.array([1, 0, 0, 0, 0, 0], bool), np.array([0, 1, 1, 0, 1, 0], bool)
    >>> _with_unreadable(done, torn, 3).astype(int)
    array([1, 1, 1, 0, 0, 0])
    """
    done = done.copy()
    for first, last in remaining_batches(len(done), size, _spans(done)).tolist():
        done[first:last] |= unreadable[first:last].all()
    return done


def _spans(chosen: NDArray[np.bool_]) -> Spans:
    """Return where a mask is true, as spans.

    >>> _spans(np.array([True, True, False, True])).tolist()
    [[0, 2], [3, 4]]
    """
    return np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)


def _joined(parts: list[State]) -> State:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}
