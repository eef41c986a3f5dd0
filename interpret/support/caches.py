"""The folder of what this program keeps between runs to save time, and can make again."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path | None:
    """Return the folder, which need not exist; None where the user has no home.

    It is `interpret-cnn` in the system's folder for caches, or in that of the environment variable `XDG_CACHE_HOME`.

    >>> cache_folder().name
    'interpret-cnn'
    """
    folder = user_cache_path("interpret-cnn", appauthor=False, opinion=False)
    return folder if folder.is_absolute() else None
