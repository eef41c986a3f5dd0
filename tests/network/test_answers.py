"""How a network's outputs are read as probabilities: each kind against its definition, in every analysis alike."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

import interpret
from interpret import InterpretError, Study, attribute, load, occlude, predict, probe
from interpret.cli.app import app
from interpret.network.answers import NoScores, Reading, find_reading, main_output, scores_of
from interpret.network.model import as_model
from interpret.support.locks import LOCK


class Answering(nn.Module):
    """A small network whose outputs are what a function makes of its scores."""

    def __init__(self, answer: Callable[[Tensor], Any], classes: int = 4, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.pool = nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(2)
        self.linear = nn.Linear(20, classes)
        self.answer = answer
        self.double().eval()

    def scores(self, x: Tensor) -> Tensor:
        return 3 * self.linear(self.pool(self.conv(x).relu()).flatten(1))

    def forward(self, x: Tensor) -> Any:
        return self.answer(self.scores(x))


@dataclass
class Output:
    loss: Tensor | None
    logits: Tensor


Named = namedtuple("Named", "features out")


def softmax(scores: Tensor) -> Tensor:
    return scores.exp() / scores.exp().sum(1, keepdim=True)


def each(scores: Tensor) -> Tensor:
    return 1 / (1 + (-scores).exp())


def two(scores: Tensor) -> Tensor:
    """One score: of the second of two classes."""
    return torch.cat([1 - each(scores), each(scores)], 1)


# the answer, how many outputs, the reading and the part, and the probabilities by their definition
READ: dict[str, tuple[Callable[[Tensor], Any], int, str, str, Callable[[Tensor], Tensor]]] = {
    "scores": (lambda z: z, 4, "softmax", "", softmax),
    "scores, not negative": (lambda z: z.relu(), 4, "softmax", "", lambda z: softmax(z.relu())),
    "scores of 1 × 1": (lambda z: z[..., None, None], 4, "softmax", "", softmax),
    "softmax": (lambda z: z.softmax(1), 4, "probabilities", "", softmax),
    "softmax by hand": (lambda z: z.exp() / z.exp().sum(1, keepdim=True), 4, "probabilities", "", softmax),
    "log-softmax": (lambda z: F.log_softmax(z, 1), 4, "log-probabilities", "", softmax),
    "log of the softmax": (lambda z: z.softmax(1).log(), 4, "log-probabilities", "", softmax),
    "one sigmoid a label": (lambda z: z.sigmoid(), 4, "probabilities", "", each),
    "sigmoid module": (nn.Sigmoid(), 4, "probabilities", "", each),
    "sigmoids side by side": (
        lambda z: torch.cat([torch.sigmoid(z[:, :1]), z[:, 1:].sigmoid()], 1), 4, "probabilities", "", each,
    ),
    "sigmoid, reshaped": (lambda z: z[..., None].sigmoid_().squeeze(-1).float(), 4, "probabilities", "", each),
    "log-sigmoid": (F.logsigmoid, 4, "log-probabilities", "", each),
    "hard sigmoid": (F.hardsigmoid, 4, "probabilities", "", lambda z: (z / 6 + 0.5).clamp(0, 1)),
    "one score": (lambda z: z, 1, "sigmoid", "", two),
    "one score, squeezed": (lambda z: z.squeeze(1), 1, "sigmoid", "", two),
    "one score, no dimension of its own": (lambda z: z.squeeze(), 1, "sigmoid", "", two),
    "one probability": (lambda z: z.sigmoid(), 1, "probabilities", "", two),
    "one log-probability": (F.logsigmoid, 1, "log-probabilities", "", two),
    "two scores": (lambda z: z, 2, "softmax", "", softmax),
    "logits of a dictionary": (lambda z: {"loss": None, "hidden": z + 1, "logits": z}, 4, "softmax", "logits", softmax),
    "out of an ordered dictionary": (lambda z: OrderedDict(aux=z + 1, out=z), 4, "softmax", "out", softmax),
    "the only tensor of a dictionary": (lambda z: {"y": z}, 4, "softmax", "y", softmax),
    "a tuple": (lambda z: (z, z + 1), 4, "softmax", "0", softmax),
    "a list": (lambda z: ["scores", z.sigmoid()], 4, "probabilities", "1", each),
    "a named tuple": (lambda z: Named(z[:, None, :, None], z), 4, "softmax", "out", softmax),
    "a data class": (lambda z: Output(None, z.log_softmax(1)), 4, "log-probabilities", "logits", softmax),
    "one score in a tuple": (lambda z: (z, None), 1, "sigmoid", "0", two),
}  # fmt: skip
EVERY_READING = pytest.mark.parametrize("name", READ)


def network(name: str) -> tuple[Answering, str, str, Callable[[Tensor], Tensor]]:
    answer, classes, reading, part, expected = READ[name]
    return Answering(answer, classes), reading, part, expected


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 12, 14, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@EVERY_READING
def test_predictions_are_by_definition(name: str) -> None:
    module, reading, part, expected = network(name)
    images = pictures(5)
    found = predict(module, images, labels=[0, 1, 1, 0, -1], batch_size=2)  # the last batch is of one image
    with torch.no_grad():
        right = expected(module.scores(images)).numpy()
    assert (found.outputs, found.part) == (reading, part)
    np.testing.assert_allclose(found.probabilities, -np.sort(-right, 1), rtol=1e-6)
    np.testing.assert_array_equal(found.top, np.argsort(-right, 1, kind="stable"))
    np.testing.assert_allclose(found.true_probabilities[:4], right[range(4), [0, 1, 1, 0]], rtol=1e-6)
    assert "Probabilities are" in found.reading and (not part or f"outputs '{part}'" in found.reading)


@EVERY_READING
def test_occlusion_reads_clean_and_occluded_images_alike(name: str) -> None:
    module, reading, part, expected = network(name)
    images = pictures(2)
    found = occlude(module, images, size=6, stride=5, fill=0.5, batch_size=4)
    assert (found.outputs, found.part) == (reading, part) and "Probabilities are" in found.reading
    with torch.no_grad():
        clean = expected(module.scores(images)).numpy()
        np.testing.assert_array_equal(found.labels, clean.argmax(1))
        np.testing.assert_allclose(found.clean_probabilities, clean.max(1), rtol=1e-6)
        for row, label in enumerate(found.labels.tolist()):
            for y, top in enumerate(found.tops.tolist()):
                for x, left in enumerate(found.lefts.tolist()):
                    hidden = images[row : row + 1].clone()
                    hidden[:, :, top : top + 6, left : left + 6] = 0.5
                    right = expected(module.scores(hidden))[0].numpy()
                    np.testing.assert_allclose(found.probabilities[row, y, x], right[label], rtol=1e-6)
                    assert found.predictions[row, y, x] == right.argmax()


@EVERY_READING
def test_the_probe_reads_every_value_alike(name: str) -> None:
    module, reading, part, expected = network(name)
    images = pictures(3)
    found = probe(module, images, "translation", [-2, 0, 3], labels=[1, 0, 1], fill="black")
    assert (found.outputs, found.part) == (reading, part) and "Probabilities are" in found.reading
    for column, shift in enumerate((-2, 0, 3)):
        moved = torch.zeros_like(images)
        moved[:, :, max(shift, 0) : 12 + min(shift, 0)] = images[:, :, max(-shift, 0) : 12 - max(shift, 0)]
        with torch.no_grad():
            right = expected(module.scores(moved)).numpy()
        np.testing.assert_allclose(found.probabilities[:, column], right[range(3), [1, 0, 1]], rtol=1e-6)
        np.testing.assert_array_equal(found.top[:, column], right.argmax(1))


@EVERY_READING
def test_attribution_explains_the_answer_among_the_outputs(name: str) -> None:
    module, _, part, _ = network(name)
    found = attribute(module, pictures(2), "gradient", target=0)
    images = pictures(2).requires_grad_()
    output = module(images)
    for step in [part] if part else []:
        output = (
            output[int(step)]
            if step.isdecimal()
            else output[step]
            if isinstance(output, dict)
            else getattr(output, step)
        )
    (expected,) = torch.autograd.grad(output.reshape(2, -1)[:, 0].sum(), images)
    torch.testing.assert_close(found.maps, expected.to(found.maps))


def test_the_reading_does_not_change_from_image_to_image() -> None:
    """Scores that happen to look like probabilities on a later image stay scores."""

    class Sometimes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :2]

    images = torch.zeros(3, 1, 2, 2)
    images[0, 0, 0] = torch.tensor([3.0, -1.0])
    images[1, 0, 0] = torch.tensor([0.25, 0.75])
    found = predict(Sometimes(), images, batch_size=1)
    np.testing.assert_allclose(found.probabilities, -np.sort(-softmax(images[:, 0, 0].double()).numpy(), 1))


def test_the_user_says_otherwise() -> None:
    module = Answering(lambda z: z)
    images = pictures(2)
    scores = module.scores(images).detach()
    labels = load(module, outputs="sigmoid")
    found = predict(labels, images)
    np.testing.assert_allclose(found.probabilities, -np.sort(-each(scores).numpy(), 1), rtol=1e-12)
    assert found.outputs == "sigmoid" and "the sigmoid of the network's outputs" in found.reading
    occluded = occlude(labels, images, size=6, stride=6)
    np.testing.assert_allclose(occluded.clean_probabilities, each(scores).amax(1).numpy(), rtol=1e-12)
    curves = probe(labels, images, "rotation", [0.0], labels=[2, 3])
    np.testing.assert_allclose(curves.probabilities[:, 0], each(scores)[[0, 1], [2, 3]].numpy(), rtol=1e-12)
    # a sigmoid's outputs that are scores all the same
    again = predict(load(Answering(lambda z: z.sigmoid()), outputs="softmax"), images)
    np.testing.assert_allclose(again.probabilities, -np.sort(-softmax(each(scores)).numpy(), 1), rtol=1e-12)
    with pytest.raises(InterpretError, match="unknown reading of outputs 'sigmod': did you mean 'sigmoid'"):
        load(module, outputs="sigmod")
    with pytest.raises(InterpretError, match="unknown reading of outputs"):
        predict(interpret.network.model.Model(module, "mine", outputs="logit"), images)


def test_one_score_tells_the_two_classes_of_the_model_apart() -> None:
    model = load(Answering(lambda z: z, 1), classes=["cat", "dog"])
    found = predict(model, pictures(4), labels=[1, 0, 1, 0])
    assert found.probabilities.shape == (4, 2) and {found.class_name(label) for label in found.top[0]} == {"cat", "dog"}
    np.testing.assert_allclose(found.probabilities.sum(1), 1)
    with pytest.raises(InterpretError, match="label 2 is no class of the network, whose classes are 0 to 1"):
        occlude(model, pictures(1), [2], size=6, stride=6)


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (lambda z: None, "NoneType"),
        (lambda z: {"boxes": z, "masks": z}, "dict"),
        (lambda z: z[:, :, None].expand(-1, -1, 3), r"shape \[2, 4, 3\]"),
        (lambda z: (z.new_zeros(1, 4, 2, 2), z), r"shape \[1, 4, 2, 2\]"),
        (lambda z: z.sum(), r"shape \[\]"),
        (lambda z: [{"boxes": one, "scores": one} for one in z], "a dictionary for each image, .* of boxes, scores"),
        (lambda z: [{} for _ in z], "a dictionary for each image, .* of nothing: wrap"),
    ],
)
def test_what_is_no_row_of_classes_is_refused_in_one_sentence(answer: Any, what: str) -> None:
    module = Answering(answer)
    for analysis in (predict, lambda *arguments: occlude(*arguments, size=6, stride=6)):
        with pytest.raises(InterpretError, match="must return one score for each class") as refusal:
            analysis(module, pictures(2))
        assert str(refusal.value).count(".") == 0
    with pytest.raises(NoScores, match=what):
        find_reading(as_model(module), pictures(1))
    assert probe(module, pictures(2), "rotation", [0.0]).top is None  # which needs no classes


def test_nothing_of_a_reading_is_left_in_the_network() -> None:
    module = Answering(lambda z: z.sigmoid_())
    before = [value.clone() for value in module.state_dict().values()]
    images = pictures(1)
    assert find_reading(as_model(module), images) == Reading("probabilities", 4)
    assert all(torch.equal(*pair) for pair in zip(before, module.state_dict().values(), strict=True))
    assert torch.equal(images, pictures(1))


def test_scores_among_nested_outputs() -> None:
    scores = torch.rand(2, 3)
    for outputs in ({"a": {"b": (scores,)}}, (None, [scores]), Output(None, scores), {"x": "y", "logits": (scores, 1)}):
        assert main_output(outputs)[1] is scores and torch.equal(scores_of(outputs, 2), scores)
    assert main_output({"a": scores, "b": scores})[1] == {"a": scores, "b": scores}


def test_the_command_takes_a_reading_and_a_study_keeps_it(tmp_path: Path) -> None:
    out, folder = tmp_path / "occlusion.png", tmp_path / "study"
    options = ["--size", "14", "--stride", "14", "--images", "1", "--no-others", "--out", str(out)]
    asked = CliRunner().invoke(
        app, ["occlude", "lenet", "digits", *options, "--outputs", "sigmoid", "--study", str(folder)]
    )
    assert asked.exit_code == 0, asked.output
    assert not (folder / LOCK).exists()  # the subcommand has released it, without the rest of the command
    (name,) = [name for kind, name in Study.open(folder).results if kind == "occlusion"]
    found = Study.open(folder).result("occlusion", name)
    assert found.outputs == "sigmoid"
    again = CliRunner().invoke(app, ["occlude", str(folder), *options])
    assert again.exit_code == 0, again.output
    assert Study.open(folder).result("occlusion", name).outputs == "sigmoid"
    wrong = CliRunner().invoke(app, ["occlude", "lenet", "digits", *options, "--outputs", "logit"])
    assert wrong.exit_code == 2 and "'--outputs': unknown value 'logit'" in wrong.output
