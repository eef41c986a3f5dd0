"""Odd invocations of the command, drawn over the options that every verb declares."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import typer

from interpret.cli.app import app

NUMBERS = ["0", "-1", "1", "2", "7", "1.5", "1e309", "nan", "inf", "-inf", "2147483648", "9223372036854775808",
           "1_0", "-99999999999999999999", "1000000000000", "9" * 5000, "0x10", "²", "٣", "½", "+1", " 2 "]  # fmt: skip
WORDS = ["", " ", "-", "--", ",", ",,", ":", "::", "*", "[", "{}", "%s", "$x^", "é", "\u202e", "a\tb", "a\nb",
         "\x1b[31m", "\udcff", "all", "random", "predicted", "cuda:99", "meta", "mps", "xla", "cpu:7", "nonsense",
         "none", "conv", "relu", "fc", "con", "*v*", "a" * 300, "1:2:0", "1:2", "0:1e9:1e-9", "-1,-2", "1,2", "0,1",
         "1,1.5", "3,12,12", "1,999999999,999999999", "0,0,0", "3,12", "softmax", "sigmoid", "center", "tiles",
         "scale", "translation", "guided", "gradient,deconvnet", "cosine", "mean", "json", "bfloat16", "no-head",
         "m.py:build", "m.py", "m.py:Net", "data", "kept", "./kept/", "digits", "auto", "pixels", "maco", "class",
         "unit", "invariance", "synthesised", "first", "one", "1/2", "3/2", "0/0", "timm:nothing",
         "https://example.org/x"]  # fmt: skip
PATHS = ["afile", "afile/x.png", "/dev/full", "/dev/full/x.png", "/dev/null", "loop", "loop/x.png", "dangling",
         "dangling/x.svg", "pipe", "pipe.png", "pipe.safetensors", "folder.png", "no/such/folder/f.png",
         "no/such/f.svg", ".", "..", "x.png", "x.svg", "x.pdf", "x.html", "x.bmp", "x.png/", ".png", "~nobody/x.png",
         "n" * 300 + ".png", "a/" * 2500 + "x.png", "/proc/x.png", "/proc/self/mem", "/sys/x.png",
         "data/x.png", "out", "out/st", "é.png", "weights.pt", "weights.safetensors",
         "weights.pt:key", "notes.txt"]  # fmt: skip
GOOD = {
    "MODEL": "m.py:build",
    "DATA": "data",
    "IMAGES": "data",
    "STUDY": "kept",
    "MODEL_FOLDER": "folder",
    "PART...": "one",
}


def verbs() -> dict[str, list[Any]]:
    """Return the declared parameters of every verb."""
    command: Any = typer.main.get_command(app)
    return {name: list(verb.params) for name, verb in command.commands.items()}


def invocations(seed: int) -> Iterator[list[str]]:
    """Yield odd invocations for ever: mostly a plain one of a verb, with one to three odd values among its options."""
    draw = random.Random(seed)
    declared = verbs()
    pool = NUMBERS + WORDS + PATHS
    while True:
        verb = draw.choice(sorted(declared))
        arguments: list[str] = []
        options: list[str] = []
        for parameter in declared[verb]:
            if parameter.param_type_name == "argument":
                if parameter.required or draw.random() < 0.95:
                    plain = GOOD.get(parameter.make_metavar_name() if hasattr(parameter, "make_metavar_name") else
                                     str(parameter.metavar or ""), "data")  # fmt: skip
                    arguments.append(draw.choice(pool) if draw.random() < 0.15 else plain)
            elif parameter.required:
                options += [parameter.opts[0], "out/st"]
        some = [one for one in declared[verb] if one.param_type_name == "option" and "--help" not in one.opts]
        for parameter in draw.sample(some, min(len(some), draw.choice((1, 1, 2, 3)))):
            name = draw.choice([*parameter.opts, *parameter.secondary_opts])
            if parameter.is_flag or getattr(parameter, "count", False):
                options.append(name)
                continue
            kind = PATHS if "out" in parameter.name or parameter.name == "study" else pool
            value = draw.choice(kind if draw.random() < 0.7 else pool)
            options += [f"{name}={value}"] if name.startswith("--") and draw.random() < 0.7 else [name, value]
        if draw.random() < 0.05:
            options.append(draw.choice(["--nothing", "-z", "extra", "--", "-h", "--version", "-vv", "--log-json"]))
        order = [*arguments, *options] if draw.random() < 0.8 else [*options, *arguments]
        yield [verb, *order]
