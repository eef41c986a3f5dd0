"""Progress: silent without a terminal but for one line a minute, and recorded."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from interpret.support import progress as progress_module
from interpret.support.progress import Progress, progress
from interpret.support.recording import Step, current_recording, recording


class Clock:
    """Stands for the module `time`: each step takes as long as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(3, "counting") as bar:
        for _ in range(3):
            bar.update()
    assert capsys.readouterr() == ("", "")


def test_one_line_a_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """150 seconds of work, resumed at image 100: two lines, whose speed counts only what was done now."""
    caplog.set_level(logging.INFO, "interpret.progress")
    with progress(1000, "mining", "img", initial=100) as bar:
        for _ in range(30):
            clock.now += 5
            bar.update(20)
    lines = [record for record in caplog.records if record.name == "interpret.progress"]
    assert [record.getMessage().replace("\u202f", " ") for record in lines] == [
        "mining: 340 of 1,000 img, 4.00 img/s, 2 min 45 s left",
        "mining: 580 of 1,000 img, 4.00 img/s, 1 min 45 s left",
    ]
    assert lines[0].fields == {  # type: ignore[attr-defined]
        "step": "mining", "unit": "img", "done": 340, "total": 1000, "per_second": 4.0, "seconds_left": 165.0,
    }  # fmt: skip


def test_an_unknown_total_is_not_invented(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "interpret.progress")
    with progress(0, "finding images", "file") as bar:
        clock.now += 61
        bar.update(122)
    assert caplog.records[0].getMessage() == "finding images: 122 file, 2.00 file/s"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = progress(100, "mining", "img")
    bar._bar.start_t -= 10
    bar.update(50)
    bar._bar.refresh()
    shown = sys.stderr.getvalue().rpartition("\r")[2]  # type: ignore[attr-defined]
    bar.close()
    assert "50%" in shown and "img/s" in shown and "[00:10<" in shown


def test_of_the_processes_of_torchrun_the_first_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    for rank, hidden in (("0", False), ("1", True)):
        monkeypatch.setenv("RANK", rank)
        bar = progress(2, "mining")
        assert bool(bar._bar.disable) is hidden
        bar.close()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(Progress, "bars", False)
    assert progress(2, "mining")._bar.disable


def test_of_the_processes_of_torchrun_the_first_logs_lines(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As JSON, all of them do."""
    caplog.set_level(logging.INFO, "interpret.progress")
    said = {}
    for rank, bars in (("0", True), ("1", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setattr(Progress, "bars", bars)
        caplog.clear()
        with progress(100, "mining", "img") as bar:
            clock.now += 61
            bar.update(10)
        said[rank, bars] = sum(record.name == "interpret.progress" for record in caplog.records)
    assert said == {("0", True): 1, ("1", True): 0, ("1", False): 1}


def test_steps_are_recorded_without_what_was_done_before(clock: Clock) -> None:
    with recording() as work:
        with progress(10, "mining", "img", initial=4) as bar:
            clock.now += 3
            bar.update(6)
        with pytest.raises(KeyboardInterrupt), progress(10, "mining", "img") as bar:
            clock.now += 2
            bar.update(1)
            raise KeyboardInterrupt
        with recording() as inner, progress(1, "connecting", "layer") as bar:
            bar.update()
    assert work.steps == [Step("mining", "img", 7, 5.0)]
    assert inner.steps == [Step("connecting", "layer", 1, 0.0)]
    assert current_recording() is None
