"""Which classes have pages: the data's labels, and the network's output classes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ClassEntry:
    """A class that has a page."""

    number: int
    """That of its page, which stays the same each time the gallery is written."""
    name: str
    label: int | None = None
    """Which of the data's labels it is, counted from 0; None where it is none."""
    output: int | None = None
    """Which of the network's outputs is its, counted from 0; None where none is."""

    @property
    def href(self) -> str:
        """The address of its page, relative to the gallery's root."""
        return f"classes/{self.number}.html"

    @property
    def described(self) -> str:
        """Which label and which output it is, as a sentence without its full stop.

        >>> ClassEntry(1, "cat", 1, 1).described
        'Class 1'
        >>> ClassEntry(1, "cat", label=1, output=281).described
        'Label 1 of the data, class 281 of the network'
        """
        if self.label == self.output or self.label is None:
            return f"Class {self.output}" if self.label is not None else f"Class {self.output} of the network"
        label = f"Label {self.label} of the data"
        return label if self.output is None else f"{label}, class {self.output} of the network"


class Classes:
    """The classes that have pages, in order, and which one a label or an output is.

    A label and an output of one name are one class.

    >>> classes = Classes(["cat", "ship"], ["ship", "goldfish", "crane", "crane"], predicted={0, 1, 3})
    >>> [(entry.number, entry.name, entry.label, entry.output) for entry in classes.entries]
    [(0, 'cat', 0, None), (1, 'ship', 1, 0), (3, 'goldfish', None, 1), (5, 'crane', None, 3)]
    >>> classes.of_output(0).href, classes.of_output(2), classes.of_name("ship").href
    ('classes/1.html', None, 'classes/1.html')
    """

    def __init__(self, labels: Sequence[str], outputs: Sequence[str], predicted: Collection[int]) -> None:
        """Take the names of the data's classes and of the network's, and which of the network's have pages."""
        entries = [ClassEntry(label, name, label) for label, name in enumerate(labels)]
        # where the names are the same lists, numbers decide: a name may stand there twice
        label_of = {name: label for label, name in reversed(list(enumerate(labels)))}
        same = list(labels) == list(outputs)
        self._of_output: dict[int, int] = {}
        for output in sorted(predicted):
            label = output if same else label_of.get(outputs[output])
            if label is None or entries[label].output is not None:
                self._of_output[output] = len(entries)
                entries.append(ClassEntry(len(labels) + output, outputs[output], None, output))
            else:
                self._of_output[output] = label
                entries[label] = replace(entries[label], output=output)
        self.entries = entries
        self._of_name = {entry.name: entry for entry in reversed(entries)}

    def of_label(self, label: int) -> ClassEntry | None:
        """Return the class of one of the data's labels."""
        return self.entries[label] if 0 <= label < len(self.entries) and self.entries[label].label == label else None

    def of_output(self, output: int) -> ClassEntry | None:
        """Return the class of one of the network's outputs."""
        place = self._of_output.get(output)
        return None if place is None else self.entries[place]

    def of_name(self, name: str) -> ClassEntry | None:
        """Return the first class of a name."""
        return self._of_name.get(name)
