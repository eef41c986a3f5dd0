"""How a network's outputs are read as probabilities, in words."""

from __future__ import annotations

READINGS = {
    "softmax": "the softmax of {outputs}",
    "sigmoid": "the sigmoid of {outputs}",
    "probabilities": "{outputs} as they are",
    "log-probabilities": "the exponential of {outputs}",
}
"""The ways in which outputs are read as probabilities."""


def in_words(reading: str, part: str = "") -> str:
    """Return a sentence on how probabilities were computed; an empty one for a result that has no reading.

    >>> in_words("softmax")
    "Probabilities are the softmax of the network's outputs."
    >>> in_words("sigmoid", "logits")
    "Probabilities are the sigmoid of the network's outputs 'logits'."
    """
    if not reading:
        return ""
    outputs = f"the network's outputs {part!r}" if part else "the network's outputs"
    return f"Probabilities are {READINGS[reading].format(outputs=outputs)}."
