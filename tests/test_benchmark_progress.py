"""How far a benchmark is: forecasts, what a terminal shows, what a log shows."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from nnunetv2_eccam.benchmark.attempts import Attempt, utc
from nnunetv2_eccam.benchmark.datasets import Dataset
from nnunetv2_eccam.benchmark.jobs import make_jobs
from nnunetv2_eccam.benchmark.places import Folders
from nnunetv2_eccam.benchmark.progress import Board, Forecast
from nnunetv2_eccam.benchmark.spec import read_spec
from nnunetv2_eccam.benchmark.state import State, Status, last_lines


@pytest.fixture
def jobs(tmp_path):
    spec = read_spec(
        {"datasets": ["D"], "configurations": ["2d"], "trainers": ["A_5epochs", "B"], "folds": [0, 1], "device": "cpu"},
        "x",
    )
    dataset = Dataset("Dataset001_D", ".nii.gz", None, tmp_path, ("test_0",))
    return make_jobs(spec, {dataset.name: dataset}, Folders(*(tmp_path / name for name in "wrps")))


def names(jobs, kind: str) -> list[str]:
    return [name for name, job in jobs.items() if job.kind == kind]


def end(job, seconds: float) -> None:
    latest = job.attempts.latest()
    job.attempts.begin(latest.number + 1 if latest else 1).update(outcome="done", seconds=seconds)


def test_jobs_come_behind_those_that_they_need_and_fold_by_fold(jobs):
    seen: set[str] = set()
    for name, job in jobs.items():
        assert set(job.needs) <= seen
        seen.add(name)
    assert [(job.fold, job.place.trainer) for job in jobs.values() if job.kind == "train"] == [
        (0, "A_5epochs"), (0, "B"), (1, "A_5epochs"), (1, "B"),
    ]  # fmt: skip
    assert len(jobs) == 4 + 4 + 2 + 2


def test_a_job_is_expected_to_take_what_its_system_took_or_else_what_others_took(jobs):
    forecast = Forecast(jobs)
    a0, b0, a1, b1 = names(jobs, "train")
    assert forecast.expected(jobs[a1]) is None
    end(jobs[a0], 100)
    assert forecast.learn(a0) == 100
    assert forecast.expected(jobs[a1]) == forecast.expected(jobs[b1]) == 100
    end(jobs[b0], 300)
    forecast.learn(b0)
    assert (forecast.expected(jobs[a1]), forecast.expected(jobs[b1])) == (100, 300)


def test_the_time_left_is_shared_by_jobs_at_once_but_not_less_than_the_longest(jobs):
    forecast = Forecast(jobs)
    trains = names(jobs, "train")
    for name in trains[:2]:
        end(jobs[name], 100)
        forecast.learn(name)
    statuses = {name: Status(State.READY if name in trains[2:] else State.DONE) for name in jobs}
    assert forecast.left(statuses, {}, 1) == 200
    assert forecast.left(statuses, {}, 2) == 100
    assert forecast.left(statuses, {}, 9) == 100
    statuses[trains[2]] = Status(State.RUNNING)
    assert forecast.left(statuses, {trains[2]: 30.0}, 1) == 130
    statuses[names(jobs, "predict")[0]] = Status(State.WAITING)
    assert forecast.left(statuses, {}, 1) is None, "no prediction has told yet how long one takes"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def running(job, text: str) -> Status:
    job.folder.mkdir(parents=True, exist_ok=True)
    job.log.write_text("of an earlier attempt: 2026: Epoch 9\n" + text)
    attempt = job.attempts.begin(1, log=str(job.log), started=utc())
    return Status(State.RUNNING, attempt.update(log_offset=len("of an earlier attempt: 2026: Epoch 9\n")))


def test_a_terminal_shows_epochs_and_events_and_redraws_its_lines(jobs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(Attempt, "elapsed", 10.0)
    terminal = Terminal()
    board = Board(jobs, 1, terminal)
    statuses = {name: Status(State.WAITING) for name in jobs}
    first = names(jobs, "train")[0]
    statuses[first] = running(jobs[first], "2026: Epoch 1\n2026: Pseudo dice [np.float32(0.81)]\n")
    board.show(statuses)
    shown = terminal.getvalue()
    assert "begun    train Dataset001_D 2d A_5epochs fold 0 on " in shown
    assert "12 jobs: 0 done, 1 running, 11 waiting, time left not known yet" in shown
    assert "epoch 2/5, pseudo Dice 0.81, 0:10 elapsed" in shown
    terminal.seek(0)
    terminal.truncate()
    with jobs[first].log.open("a") as log:
        log.write("2026: Epoch time: 7.0 s\n2026: Epoch 2\n")
    board.show(statuses)
    assert terminal.getvalue().startswith("\r\x1b[2A\x1b[J12 jobs"), "over the two lines from before"
    assert "epoch 3/5, pseudo Dice 0.81, 0:10 elapsed, about 0:21 of training left" in terminal.getvalue()


def test_a_log_gets_a_line_for_each_event_and_nothing_else(jobs):
    stream = io.StringIO()
    board = Board(jobs, 1, stream)
    statuses = {name: Status(State.READY) for name in jobs}
    board.show(statuses)
    assert stream.getvalue() == ""
    first, second = names(jobs, "train")[:2]
    end(jobs[first], 62)
    statuses[first] = Status(State.DONE)
    statuses[second] = Status(State.FAILED, None, "nnUNetv2_train failed (exit code 1)")
    board.show(statuses)
    board.show(statuses)
    assert stream.getvalue() == (
        "done     train Dataset001_D 2d A_5epochs fold 0 in 1:02\n"
        f"failed   train Dataset001_D 2d B fold 0: nnUNetv2_train failed (exit code 1); log: {jobs[second].log}\n"
        "[12 jobs: 1 done, 10 ready, 1 failed, time left not known yet]\n"
    )


def test_last_lines_are_without_a_bars_earlier_states(tmp_path):
    (tmp_path / "log").write_text("a\n\n 1%|\r 2%|\r100%|\nb\n")
    assert last_lines(tmp_path / "log", 2) == ["100%|", "b"]
    assert last_lines(Path("nowhere")) == []
