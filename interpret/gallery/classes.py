"""Which classes have pages: those of the labels, and those that the network answers."""

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
    """What the data calls it, counted from 0; None where it has no such label."""
    answer: int | None = None
    """Which of the network's answers it is, counted from 0; None where it has no such answer."""

    @property
    def href(self) -> str:
        """The address of its page, relative to the gallery's root."""
        return f"classes/{self.number}.html"

    @property
    def said(self) -> str:
        """Where it is counted, in words.

        >>> ClassEntry(1, "cat", 1, 1).said
        'Class 1'
        >>> ClassEntry(1, "cat", label=1, answer=281).said
        'Label 1 of the data, class 281 of the network'
        """
        if self.label == self.answer or self.label is None:
            return f"Class {self.answer}" if self.label is not None else f"Class {self.answer} of the network"
        label = f"Label {self.label} of the data"
        return label if self.answer is None else f"{label}, class {self.answer} of the network"


class Classes:
    """The classes that have pages, in order, and which one a label or an answer is.

    A label and an answer of one name are one class.

    >>> classes = Classes(["cat", "ship"], ["ship", "goldfish", "crane", "crane"], answered={0, 1, 3})
    >>> [(entry.number, entry.name, entry.label, entry.answer) for entry in classes.entries]
    [(0, 'cat', 0, None), (1, 'ship', 1, 0), (3, 'goldfish', None, 1), (5, 'crane', None, 3)]
    >>> classes.of_answer(0).href, classes.of_answer(2), classes.of_name("ship").href
    ('classes/1.html', None, 'classes/1.html')
    """

    def __init__(self, labels: Sequence[str], answers: Sequence[str], answered: Collection[int]) -> None:
        """Take the names of the data's classes and of the network's, and which of the network's have pages."""
        entries = [ClassEntry(label, name, label) for label, name in enumerate(labels)]
        # where the names are the same lists, numbers decide: a name may stand there twice
        place = {name: label for label, name in reversed(list(enumerate(labels)))}
        same = list(labels) == list(answers)
        self._of_answer: dict[int, int] = {}
        for answer in sorted(answered):
            label = answer if same else place.get(answers[answer])
            if label is None or entries[label].answer is not None:
                self._of_answer[answer] = len(entries)
                entries.append(ClassEntry(len(labels) + answer, answers[answer], None, answer))
            else:
                self._of_answer[answer] = label
                entries[label] = replace(entries[label], answer=answer)
        self.entries = entries
        self._of_name = {entry.name: entry for entry in reversed(entries)}

    def of_label(self, label: int) -> ClassEntry | None:
        """Return the class of one of the data's labels."""
        return self.entries[label] if 0 <= label < len(self.entries) and self.entries[label].label == label else None

    def of_answer(self, answer: int) -> ClassEntry | None:
        """Return the class of one of the network's answers."""
        place = self._of_answer.get(answer)
        return None if place is None else self.entries[place]

    def of_name(self, name: str) -> ClassEntry | None:
        """Return the first class of a name."""
        return self._of_name.get(name)
