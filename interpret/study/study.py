"""A study: one model on one data set, with every result computed so far, in one folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from interpret.analyses.mining.result import Subject
from interpret.execution.ranks import ranks
from interpret.results.result import Result
from interpret.results.study_file import is_study, read_study_file, write_study_file
from interpret.study.damage import set_damage_aside
from interpret.study.reader import StudyReader
from interpret.study.timings import timed
from interpret.support.errors import InterpretError, warn
from interpret.support.files import discard, sweep_tree
from interpret.support.locks import locked

if TYPE_CHECKING:
    from types import ModuleType

    import torch
    from torch import nn

    from interpret.backprop.composite import RuleName
    from interpret.backprop.rules import Overlap
    from interpret.images.sources import Images
    from interpret.network.model import Model
    from interpret.tracing.tracing import Trace


logger = logging.getLogger(__name__)


class Study(StudyReader):
    """A folder that holds a model's results on a data set, computes what is missing and skips what is done.

    >>> import tempfile, torch
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> study = Study(tempfile.mkdtemp() + "/study", network, torch.rand(12, 1, 10, 10))
    >>> study.mine(k=4)
    >>> study.project()
    >>> study.mined("2").values.shape
    (2, 4)
    >>> Study.open(study.path).rules("2")
    ['deconvnet']
    >>> study  # doctest: +ELLIPSIS
    <Study: Sequential on tensor in ...study, 2 mined layers, 2 of them projected, 0 other results>

    What it holds is read by the methods of `StudyReader`.

    Args:
        path: the folder; made when it does not exist.
        model: the network; in an existing study, with the weights of its results.
        data: the images; in an existing study, those of its results.
        batch_size, workers, device, dtype: how the network runs; see `interpret.mine`.
        made_from: how to get the model and the data again, kept in the study as it is.

    Raises:
        InterpretError: the folder holds something else, or results of other weights or data.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: Model | nn.Module,
        data: Any,
        *,
        batch_size: int | None = None,
        workers: int = 0,
        device: str | torch.device | None = None,
        dtype: str = "float32",
        made_from: Mapping[str, Any] | None = None,
    ) -> None:
        computing = _computing()
        self.path = Path(path)
        self.model: Model | None = computing.as_model(model)
        self.data: Images | None = computing.open_images(data, self.model)
        self.batch_size, self.workers, self.device = batch_size, workers, device
        self.dtype: torch.dtype | None = computing.autocast_type(dtype)
        shape = tuple(computing.first_images(self.data).shape[1:])
        logger.info("tracing %s", self.model.name)  # minutes for a large detector
        self.traced: Trace = computing.trace(self.model, shape)
        self._described = computing.describe(self.model, self.data, dtype, self.traced, shape)
        self._described |= {"made_from": dict(made_from or {})}
        self._checked = False
        self._dry_runs: list[Any] = []
        self._read_info()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Study:
        """Open a study to read, and to keep results in; needs neither torch, nor the model, nor the data."""
        study = cls.__new__(cls)
        StudyReader.__init__(study, path)
        study.model, study.data, study._described, study._checked = None, None, None, False
        study._known = _version(study.path / "study.json")
        return study

    def _read_info(self) -> None:
        """Read study.json, and check that it is of this model and data; without one, begin a study."""
        self._known = _version(self.path / "study.json")
        if is_study(self.path):
            self.info = read_study_file(self.path)
            if self._described is not None:
                _computing().check_is_of(self, self._described)
                logger.info("continuing the study %s, %d layers of which are mined", self.path, len(self.mined_layers))
        elif self._described is not None:
            _computing().check_is_new(self.path)
            self.info = deepcopy(self._described)  # written with the first result
            self.refuse_among_images(self.path, "the study")

    @contextmanager
    def working(self, part: str | None = None) -> Iterator[None]:
        """Hold the study's lock, so that no other process writes into it; wait for one that does.

        Every method that computes holds it. Hold it around several of them, or around an analysis whose result is kept,
        to leave no other process between them. How long a `part` of the work took is recorded.
        """
        with locked(self.path) as newly:
            if newly:
                sweep_tree(self.path)
                discard(self.path / "unfinished", [])  # folders that a kill left empty
                if _version(self.path / "study.json") != self._known:  # another process has worked meanwhile
                    self._read_info()
                if not self._checked and self.model is not None and is_study(self.path):
                    set_damage_aside(self)
                    self._checked = True
            with nullcontext() if part is None else timed(self.path, part), self._network_held():
                yield

    @contextmanager
    def _network_held(self) -> Iterator[None]:
        """Return a context in which the network is not traced again, nor runs dry again on the same images."""
        if self.model is None:
            yield
            return
        computing, module = _computing(), self.model.module
        with computing.trace_held(module, self.traced), computing.dry_runs_held(module, self._dry_runs):
            yield

    @property
    def _subject(self) -> Subject:
        return Subject(self.model, self.data, self.info["data"]["fingerprint"])

    def keep(self, result: Result, name: str = "") -> None:
        """Keep another analysis's result, in the place of an earlier one of the same kind and name.

        The name tells results of one kind apart: the transform of an invariance probe, the layer of an evolution.
        """
        if not ranks().first:
            return
        with self.working():
            self.note_skipped()
            self.write_info()
            result.save(self.result_file(result.kind, name))
        logger.info("kept %s in %s", f"{result.kind} {name}".strip(), self.path)

    def mine(
        self,
        layers: str | Iterable[str] | None = None,
        k: int = 9,
        seed: int = 0,
        *,
        part: tuple[int, int] | None = None,
    ) -> None:
        """Mine the layers that have not been mined; interrupted mining continues where it stopped.

        With `part=(2, 8)`, mine the second of eight parts of the data, and keep its state for `merge_studies`.
        """
        with self.working("mining"):
            _computing().mine_layers(self, layers, k, seed, part)

    def project(
        self,
        layers: str | Iterable[str] | None = None,
        rule: RuleName | Iterable[RuleName] = "deconvnet",
        *,
        units: int | Literal["auto"] | None = None,
        overlap: Overlap = "add",
        dtype: str = "float32",
    ) -> None:
        """Project all hits of the mined layers, by one rule or by several, and cut their patches.

        Units that have both are skipped, and an interrupted projection continues where it stopped. Projections with
        `overlap="overwrite"` are kept beside the others, as "deconvnet-overwrite", and those with `dtype="bfloat16"`,
        however the study was mined, as "deconvnet-bfloat16".

        Args:
            layers: names or globs of mined layers; None: all.
            rule: as in `interpret.project`.
            units: a number of the liveliest units of each layer; None: all; "auto": all if their multiply–adds take an
                hour at most on two cores, otherwise as many of the liveliest as take five minutes, and at least one of
                each layer, and a warning says so.
            overlap: as in `interpret.project`.
            dtype: "float32" or "bfloat16"; see `interpret.project` for what they differ by.
        """
        with self.working("projection"):
            _computing().project_layers(self, layers, rule, overlap, units, dtype)

    def draw_filters(self, every: bool = False) -> None:
        """Draw the filters of the first convolution, or of every mined one whose kernels are larger than 1 × 1."""
        with self.working("filters"):
            _computing().draw_filter_sheets(self, every)

    def connect(self) -> None:
        """Find which layers feed which, and the strongest weights between the units of mined layers."""
        with self.working("connections"):
            _computing().connect_layers(self)

    def measure_effective_fields(self) -> None:
        """Measure the effective receptive fields of the mined layers, on some images, as "effective-fields".

        On as many images, at most 16, as take ten seconds on two cores by their multiply–adds. Layers that have theirs
        are skipped, and so are those without positions over an image, and very large networks;
        `interpret.effective_receptive_field` measures the latter too.

        Warns:
            UserWarning: a layer cannot be differentiated; then none is measured.
        """
        with self.working("effective receptive fields"):
            _computing().measure_effective_fields(self)

    def find_activation_range_examples(self) -> None:
        """Keep examples from each mined unit's whole range of activations, and the sample's inputs as pictures.

        Mining keeps the maxima on the sample. This runs the sample once more, to find their positions and the
        likeliest classes of each image. Layers that have their examples are skipped.
        """
        with self.working("activation range"):
            _computing().find_range_examples(self)

    def spread(self) -> None:
        """Call `find_activation_range_examples`, by its old name."""
        warn("Study.spread is now Study.find_activation_range_examples: call it by that name", DeprecationWarning)
        self.find_activation_range_examples()

    def predict(self, every_image: bool = True) -> None:
        """Keep a small picture and the network's prediction of the central part of source images, as "images".

        Interrupted work continues where it stopped, and what is known is not computed again. Where the network is no
        classifier, or its classes have no names, the study keeps the reason instead of predictions.

        Args:
            every_image: whether to predict all images, or those alone that have hits or are in the sample.
        """
        with self.working("predictions"):
            _computing().predict_sources(self, every_image)

    def synthesise(
        self,
        layers: str | Iterable[str] | None = None,
        units: int | Sequence[int] | Literal["auto"] | None = 16,
        kind: Literal["neuron", "unit", "class"] = "neuron",
        *,
        parametrisation: Literal["auto", "fourier", "components", "pixels", "maco"] | None = None,
        steps: int | None = None,
        seed: int | None = None,
        again: bool = False,
    ) -> None:
        """Optimise images of units of the mined layers, or of classes, beside the strongest natural ones.

        Units that have their image are skipped, and interrupted work continues where it stopped. `synthesised` returns
        the images of a layer. Images of other units stay, whatever their settings, which pages and figures then tell.

        Args:
            layers: names or globs of mined layers; None: all, or no layer for classes.
            units: a number of the liveliest units of each layer; or units by number; None: all; "auto": as many of the
                liveliest of each layer, at most 16, as take a minute at most on two cores, by their multiply–adds. A
                layer that cannot be differentiated is then left out with a warning, and one whose images were made
                with other settings stays as it is.
            kind: "neuron" (an image of the receptive field's size), "unit" (the mean of its map), or "class".
            parametrisation, steps, seed: as in `interpret.synthesise`. Units whose image has others are made again.
                None: those of the images that the layer has, or the defaults of `interpret.synthesise`.
            again: make units again that have their image, as by an older version with other defaults.

        Warns:
            UserWarning: other units of the layer keep images that were made with other settings.
        """
        with self.working("synthesis"):
            _computing().synthesise_layers(
                self, layers, units, kind, again, parametrisation=parametrisation, steps=steps, seed=seed
            )

    # for what computes

    def to_compute(self) -> tuple[Model, Images]:
        """Return the model and the data.

        Raises:
            InterpretError: the study was opened to read.
        """
        if self.model is None or self.data is None:
            raise InterpretError(f"{self.path} was opened to read: use Study(path, model, data) to compute")
        return self.model, self.data

    def write_info(self) -> None:
        """Write study.json."""
        if ranks().first:
            write_study_file(self.path, self.info)
            self._known = _version(self.path / "study.json")

    def note_skipped(self) -> None:
        """Note which images did not decode: study.json lists them, and does not count them."""
        if self.data is not None and self.data.skipped:
            self.info["data"]["skipped"] |= self.data.skipped
            self.data.skipped.update(self.info["data"]["skipped"])  # some were found before an interrupt
            items, sources = self.data.count_readable()
            self.info["data"] |= {"items": items, "sources": sources}


def _version(file: Path) -> tuple[int, int, int] | None:
    """Return what changes whenever a file is replaced; None without one."""
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _computing() -> ModuleType:
    """Import what computes, and torch with it, at the first call: a study is read without torch."""
    from interpret.study import computing

    return computing
