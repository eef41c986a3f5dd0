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

    The report shows the network, its provenance and its layers; the filters and the strongest units with their patches
    and projections, where the study has them; and every other result as a figure with an explanation. The HTML file
    contains its pictures and needs no network. Writing it needs neither torch nor the network, and the same study gives
    the same bytes.

    Args:
        study: a study or its folder.
        out: the file to write; an older report is replaced, and no other file.

    Returns:
        the path of the file.

    Raises:
        InterpretError: the study is empty, `out` ends neither in .html nor in .pdf, or interpret did not write the file
            that exists there.
    """
    if not isinstance(study, StudyReader):
        study = StudyReader(study)
    out = Path(out).resolve()
    if out.suffix.lower() not in (".html", ".pdf"):
        raise InterpretError(f"out must end in .html or .pdf, not {out.name!r}")
    report = Report(study)
    if report.is_empty:
        raise InterpretError(f"study {str(study.path)!r} is empty: mine it, draw its filters or keep a result first")
    with replacing(out, is_stamped) as new:
        (write_html if out.suffix.lower() == ".html" else write_pdf)(report, new)
        new.write_bytes(stamped(new.read_bytes(), out.suffix[1:].lower()))
    return out
