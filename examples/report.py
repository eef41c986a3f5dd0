"""A report of a small network as HTML and PDF: units, attribution methods side by side, and their sanity check.

    python examples/report.py

The network is the shipped LeNet, the data 5,000 digits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import interpret
from interpret.cli.answers import in_one_sentence

METHODS = ("gradient", "smoothgrad", "gradcam", "guided", "deconvnet")
"""Methods of the sanity check."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="lenet-report", help="a folder for the study and the two files")
    folder = Path(parser.parse_args().out)

    model = interpret.load("lenet")
    digits = interpret.open_images("digits", model)
    study = interpret.Study(folder / "study", model, digits)
    study.mine()
    study.project()
    study.draw_filters()

    images = torch.stack([digits[item][0] for item in (600, 1100, 1700, 3600)])  # one, two, three and seven
    effort = {"points": 20, "samples": 10, "passes": 100}  # less than by default; enough for 28 × 28 pixels
    study.keep(interpret.compare_methods(model, images, **effort))
    study.keep(interpret.compare_methods(model, images, layer="conv2", target=9, **effort), "conv2")
    study.keep(interpret.sanity_check(model, images, METHODS, **effort))
    for name in ("report.html", "report.pdf"):
        print(f"Open {interpret.write_report(study, folder / name)}")


if __name__ == "__main__":
    with in_one_sentence():
        main()
