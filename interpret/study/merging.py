"""Merge the mining of parts of a data set, or of several, in studies of their own, into a study of the whole."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from interpret.analyses.mining import miner
from interpret.analyses.mining.compute import merge_mined, mine_remaining
from interpret.analyses.mining.miner import Miner, mined_in_whole, sample_in
from interpret.execution.reading import done_in, overlap, read_in_whole, remaining_batches
from interpret.execution.resume import Unfinished, read_unfinished
from interpret.images.joined_images import JoinedImages
from interpret.images.sources import Images
from interpret.study.mining import unfinished_mining
from interpret.study.provenance import check_is_of
from interpret.study.reader import UNFINISHED_MINING, StudyReader
from interpret.support.errors import InterpretError

if TYPE_CHECKING:
    from interpret.study.study import Study


def merge_studies(parts: Iterable[str | os.PathLike[str]], study: Study) -> None:
    """Merge studies of parts of a data set into a study of the whole, with the same bytes as one pass over it.

    >>> import tempfile, torch
    >>> from interpret import Study
    >>> from torch import nn
    >>> network, images = nn.Sequential(nn.Conv2d(1, 4, 3)), torch.rand(12, 1, 8, 8)
    >>> folder = Path(tempfile.mkdtemp())
    >>> for number in (1, 2):  # on different days or machines
    ...     Study(folder / str(number), network, images, batch_size=4).mine(k=2, part=(number, 2))
    >>> whole = Study(folder / "whole", network, images)
    >>> merge_studies([folder / "1", folder / "2"], whole)
    >>> whole.mined("0").values.shape
    (4, 2)

    Each part was mined with `Study.mine(part=…)`, or `interpret mine --part`: a part reads only its images. Hits,
    histograms and samples merge without regard to the order of the parts, and sums are exact.

    The parts may also be of several data sets, such as folders of different days, each mined with `part=(1, 1)` or in
    parts of its own. The data of the whole is then all of them: `open_images([MONDAY, TUESDAY], model)`. Which images
    belong to the samples depends on how many there are, so their batches are mined once more.

    Args:
        parts: the folders of the parts' studies, in any order.
        study: the study of the whole, with the model and the data. It may be new.

    Raises:
        InterpretError: a folder that holds no part; parts of other weights, data or precision, or mined with other
            layers, k, seed or batch size; images that are in two parts, or in none.
    """
    model, data = study.to_compute()
    folders = [Path(part) for part in parts]
    if not folders:
        raise InterpretError("there are no parts to merge: name their folders")
    merged: dict[str, Tensor] = {}
    asked: dict[str, Any] = {}
    for folder in folders:
        number = _data_of(StudyReader(folder), study.info, data)
        settings, state = _part_in(folder)
        for what, value in settings.items():
            if asked and asked[what] != value:
                raise InterpretError(
                    f"{folders[0]} was mined with {what}={asked[what]} and {folder} with {what}={value}: mine one of "
                    "them again"
                )
        asked = settings
        if isinstance(data, JoinedImages):
            state = _in_whole(state, data, number)
        twice = overlap(done_in(merged), done_in(state))
        if twice is not None:
            raise InterpretError(
                f"{folder} holds items {twice[0]} to {twice[1] - 1}, as another part does: leave it out"
            )
        merged = merge_mined(merged, state)
    missing = remaining_batches(len(data), asked["batch_size"], done_in(merged), starts=data.starts)
    if len(missing):
        first, last = missing[0].tolist()
        raise InterpretError(
            f"no part holds items {first} to {last - 1} of data {data.name!r}: mine the part that is missing"
        )
    how = {key: asked[key] for key in ("layers", "k", "seed")}
    study.batch_size = asked["batch_size"]
    with study.working():
        if not all(study.is_mined(name) for name in how["layers"]):
            if isinstance(data, JoinedImages):
                whole = Miner(model, data, **how)
                run = (study.batch_size, study.workers, study.device, study.dtype)
                merged |= sample_in(mine_remaining(whole, Unfinished(None, {}), *run, holding=whole.sample))
            unfinished_mining(study, **how).save(merged)
        study.mine(**how)


def _data_of(part: StudyReader, whole: Mapping[str, Any], data: Images) -> int:
    """Return which of joined data sets a part is of, 0 where there is one, and refuse a part of anything else."""
    among = data.parts if isinstance(data, JoinedImages) else [data]
    fingerprints = [one.fingerprint for one in among]
    own = part.info["data"]["fingerprint"]
    number = fingerprints.index(own) if own in fingerprints else 0
    check_is_of(part, {**whole, "data": {**whole["data"], "fingerprint": fingerprints[number]}})
    return number


def _in_whole(state: dict[str, Tensor], data: JoinedImages, number: int) -> dict[str, Tensor]:
    """Return the state of a part of one of joined data sets as one of the whole."""
    item, source = data.starts[number], data.first_sources[number]
    sample = min(miner.SAMPLE_SIZE, len(data))
    return mined_in_whole(state, item, source, sample) | read_in_whole(state, item, partial(data.name_in, number))


def _part_in(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return with which settings a part was mined, and the state."""
    found = read_unfinished(folder / UNFINISHED_MINING)
    if found is None:
        raise InterpretError(
            f"{folder} holds no part of a data set, which interpret mine --part keeps: mine it with --part 1/2, or "
            "with --part 1/1 if it is all of a folder"
        )
    settings, state = found
    sizes = state["read/batch_sizes"].tolist()
    if len(sizes) > 1:
        raise InterpretError(f"{folder} was mined in batches of {sizes[0]} and of {sizes[1]}: mine it again")
    return {**settings, "batch_size": sizes[0]}, state
