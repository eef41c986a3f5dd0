"""Text and data inside HTML."""

from __future__ import annotations

import json
import re
from typing import Any

from markupsafe import Markup


def json_in_html(data: dict[str, Any]) -> Markup:
    r"""Return data as JSON that is safe inside an HTML element: no character of it can end the element.

    >>> json_in_html({"name": "</script>"})
    Markup('{"name":"\\u003c/script\\u003e"}')
    """
    text = json.dumps(data, separators=(",", ":"))
    for character in "<>&'":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def breakable(name: str) -> Markup:
    """Return a name, escaped, that may break into lines after each dot, slash or underscore.

    >>> breakable("features.3.<b>")
    Markup('features.<wbr>3.<wbr>&lt;b&gt;')
    """
    return Markup("<wbr>").join(part for part in re.split(r"(?<=[._/])", name) if part)
