"""A study as a report: one file to read, print or send, HTML or PDF."""

from __future__ import annotations

import os
from pathlib import Path

from interpret.report.contents import Report
from interpret.report.html import write_html
from interpret.report.pdf import write_pdf
from interpret.study.reader import StudyReader
from interpret.support.errors import InterpretError
from interpret.support.files import replacing
from interpret.support.stamps import is_stamped, stamped


def write_report(study: StudyReader | str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write what a study holds as one file, .html or .pdf, and return its path.

    >>> import tempfile, torch
    >>> from interpret import Study
    >>> folder = Path(tempfile.mkdtemp())
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
    >>> study = Study(folder / "study", network, torch.rand(12, 1, 10, 10))
    >>> study.mine(k=4)
    >>> write_report(study, folder / "report.html").name
    'report.html'

    The report has the model and where all comes from, its layers, and of the following what the study holds: filters,
    the strongest units with their patches and projections, and every kept result, each as its figure with the sentence
    that tells how to read it. The HTML file needs no other file and no network. It is a function of the study alone,
    needs neither torch nor the model, and twice the same study gives twice the same bytes.

    Args:
        study: a study or its folder.
        out: the file to write; an older report is replaced, and no other file.

    Raises:
        InterpretError: a study that holds nothing yet, a file of another kind, a place where something else stands.
    """
    if not isinstance(study, StudyReader):
        study = StudyReader(study)
    out = Path(out).resolve()
    if out.suffix.lower() not in (".html", ".pdf"):
        raise InterpretError(f"out must end in .html or .pdf, not {out.name!r}")
    report = Report(study)
    if report.is_empty:
        raise InterpretError(
            f"study {str(study.path)!r} holds nothing to report yet: mine it, draw its filters or keep a result first"
        )
    with replacing(out, is_stamped) as new:
        (write_html if out.suffix.lower() == ".html" else write_pdf)(report, new)
        new.write_bytes(stamped(new.read_bytes(), out.suffix[1:].lower()))
    return out
