"""Where OpenCV's usual build cannot be loaded, a user reads how to have another."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_library_that_is_missing_is_one_sentence() -> None:
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'cv2':\n"
        "            raise ImportError('libGL.so.1: cannot open shared object file')\n"
        "sys.meta_path.insert(0, Missing())\n"
        "sys.argv = ['interpret', 'attribute', 'lenet', 'digits']\n"
        "from interpret.cli import main\n"
        "main()\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr
    assert "pip install opencv-python-headless" in finished.stderr.splitlines()[-1]
    assert "libGL.so.1" in finished.stderr.splitlines()[-1]
