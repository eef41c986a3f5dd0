"""Import OpenCV, or explain what to install: its usual build needs libraries that machines without a screen lack.

>>> cv2.norm.__name__
'norm'
"""

from __future__ import annotations

from interpret.support.errors import InterpretError

try:
    import cv2
except ImportError as error:
    raise InterpretError(
        f"OpenCV cannot be loaded ({error}): on a machine without a screen, pip install opencv-python-headless instead"
    ) from None

__all__ = ["cv2"]
