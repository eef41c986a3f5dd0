"""OpenCV, or the sentence that tells how to have it: its usual build needs what machines without a screen lack.

>>> cv2.norm.__name__
'norm'
"""

from __future__ import annotations

from interpret.support.errors import InterpretError

try:
    import cv2
except ImportError as error:
    raise InterpretError(
        f"OpenCV cannot be loaded ({error}): where there is no screen, pip install opencv-python-headless in its place"
    ) from None

__all__ = ["cv2"]
