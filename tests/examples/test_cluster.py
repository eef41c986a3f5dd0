"""The files for clusters: they parse, and the commands in them exist and take these options."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from torch.distributed.run import get_args_parser

from helpers.files import contents, noise
from interpret.cli.app import app

CLUSTER = Path(__file__).parents[2] / "examples" / "cluster"
SCRIPTS = sorted(CLUSTER.glob("*.sh"))
MANIFESTS = sorted(CLUSTER.glob("*.yaml"))


def check_interpret(words: list[str]) -> None:
    """Parse the words of a command of interpret."""
    group: Any = typer.main.get_command(app)
    command = group.commands[words[0]]
    command.make_context(words[0], words[1:])  # raises for an unknown option or a missing argument


def check_torchrun(words: list[str]) -> None:
    assert words[0] == "torchrun" and shutil.which("torchrun", path=Path(sys.executable).parent)
    found = get_args_parser().parse_args(words[1:])
    assert found.module and found.training_script == "interpret"
    check_interpret(found.training_script_args)


def test_every_file_is_listed_and_checked() -> None:
    listed = (CLUSTER / "README.md").read_text()
    assert len(SCRIPTS) == 2 and len(MANIFESTS) == 2
    for file in (*SCRIPTS, *MANIFESTS):
        assert f"]({file.name})" in listed


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_manifests_parse_and_their_commands_exist(file: Path) -> None:
    documents: list[Any] = list(yaml.safe_load_all(file.read_text()))
    job = documents[-1]
    template = (
        job["spec"]["template"] if job["kind"] == "Job" else job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    )
    (container,) = template["spec"]["containers"]
    check_torchrun(container["command"])
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in template["spec"]["volumes"]}
    paths = {mount["mountPath"] for mount in container["volumeMounts"]}
    for word in container["command"]:
        path = word.partition("=")[2] if word.startswith("--") else word
        assert not path.startswith("/") or any(path.startswith(f"{mount}/") for mount in paths), word
    if job["kind"] == "Job":
        service = documents[0]
        name = job["metadata"]["name"]
        assert service["spec"]["selector"] == {"job-name": name}
        assert template["spec"]["subdomain"] == service["metadata"]["name"]
        assert f"--nnodes={job['spec']['completions']}" in container["command"]
        assert f"--rdzv-endpoint={name}-0.{service['metadata']['name']}:29500" in container["command"]
    else:
        assert container["name"] == "pytorch"


@pytest.mark.parametrize("file", [*SCRIPTS, CLUSTER / "README.md"], ids=lambda file: file.name)
def test_examples_in_comments_and_text_are_valid(file: Path) -> None:
    if file.suffix == ".sh":
        subprocess.run(["bash", "-n", str(file)], check=True)
    lines = [
        line.removeprefix("#").strip() for line in file.read_text().splitlines() if line.startswith(("#     ", "    "))
    ]
    checked = 0
    for words in (shlex.split(line) for line in lines if not line.endswith("\\")):
        if words[0] == "sbatch":
            script = next(word for word in words if word.endswith(".sh"))
            assert (CLUSTER / script).exists()
            given = words[words.index(script) + 1 :]
            if script == "slurm.sh":
                check_interpret(given)
        elif words[0] == "torchrun":
            check_torchrun(words)
        elif words[0] == "interpret":
            check_interpret(words[1:])
        else:
            continue
        checked += 1
    assert checked


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment in which Slurm's commands stand for themselves, on one node."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "srun").write_text('#!/bin/bash\nexec "$@"\n')
    (tools / "scontrol").write_text("#!/bin/bash\necho localhost\n")
    (tools / "interpret").write_text(f'#!/bin/bash\nexec {sys.executable} -m interpret "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    known = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return known | {"PATH": path, "SLURM_JOB_NODELIST": "localhost", "SLURM_NNODES": "1", "SLURM_JOB_ID": "7",
                    "PROCESSES_PER_NODE": "2", "PORT": "0", "OMP_NUM_THREADS": "1"}  # fmt: skip


@pytest.mark.slow
def test_the_scripts_of_slurm_write_the_same_study(tmp_path: Path, slurm: dict[str, str]) -> None:
    for number in range(40):
        (tmp_path / "data").mkdir(exist_ok=True)
        noise(28, 28, number).save(tmp_path / "data" / f"{number:02}.png")

    def run(*words: str, **more: str) -> None:
        done = subprocess.run(words, cwd=tmp_path, env=slurm | more, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr

    how = ("--batch-size", "8", "-k", "3")
    run(str(CLUSTER / "slurm.sh"), "mine", "lenet", "data", "--study", "together", *how)
    for task in ("1", "2"):
        array = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": "2"}
        run(str(CLUSTER / "slurm-parts.sh"), "lenet", "data", "apart", *how, **array)
    run("interpret", "merge", "apart.part1", "apart.part2", "--study", "merged")
    assert contents(tmp_path / "merged") == contents(tmp_path / "together")
