"""Every verb on model files that fail, lie or leave the process other than they found it: one sentence, no traceback.

INTERPRET_LONG=1 runs every verb on every model, about 900 runs in 5 minutes on one core; otherwise each model meets
two verbs, and each verb a fifth of the models.
"""

from __future__ import annotations

import os
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from helpers.hostile_models import HEAD, MODELS, VERBS
from interpret.cli import main

LONG = "INTERPRET_LONG" in os.environ
ALL = [(model, verb) for model in MODELS for verb in VERBS]
SOME = [
    (model, verb)
    for place, model in enumerate(MODELS)
    for verb in random.Random(place).sample([verb for verb in VERBS if verb not in ("summary", "filters")], 2)
]
MADE = {"mine": "st", "gallery": "g", "probe": "p.png", "occlude": "o.png", "neighbours": "n.png", "sanity": "s.png",
        "attribute": "a.png", "evolve": "e.png", "filters": "f.png"}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with four pictures of two classes, and two epochs of the network."""
    made = tmp_path_factory.mktemp("hostile")
    numbers = np.random.default_rng(0)
    for name in "ab":
        (made / "data" / name).mkdir(parents=True)
        for place in range(2):
            Image.fromarray(numbers.integers(0, 256, (14, 16, 3), np.uint8)).save(made / f"data/{name}/{place}.png")
    (made / "epochs").mkdir()
    code: dict[str, object] = {}
    exec(HEAD, code)
    for epoch in (1, 2):
        save_file(code["Net"]().state_dict(), made / f"epochs/{epoch}.safetensors")  # type: ignore[operator]
    return made


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # what a user's network warns of is not an error of the command
@pytest.mark.parametrize(("model", "verb"), ALL if LONG else SOME)
def test_a_hostile_model_ends_in_a_sentence(
    model: str,
    verb: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    code, said = MODELS[model]
    (tmp_path / "m.py").write_text(HEAD + code)
    for name in ("data", "epochs"):
        (tmp_path / name).symlink_to(folder / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["interpret", *(part.replace("MODEL", "m.py:build") for part in VERBS[verb])])
    streams = sys.stdout, sys.stderr
    kinds, gradients, threads = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    torch.set_num_threads(1)
    status: object = 0
    try:
        main()
    except SystemExit as ending:
        status = ending.code
    finally:
        sys.stdout, sys.stderr = streams
        torch.set_default_dtype(kinds)
        torch.set_grad_enabled(gradients)
        torch.set_num_threads(threads)
    errors = capfd.readouterr().err
    assert status in (0, 2) and "Traceback" not in errors
    if status == 2:
        # evolve loads the weights of the epochs first, which are those of the plain network
        expected = f"{said}|of epoch 1 in '1.safetensors' do not fit the network" if verb == "evolve" else said
        assert re.search(expected, errors.strip().splitlines()[-1])
    else:  # what the command says that it has done is there
        assert verb == "summary" or (tmp_path / MADE[verb]).exists()
    assert Path.cwd() == tmp_path
