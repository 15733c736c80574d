"""Many cases at once: nothing lost, nothing left running, and a killed process is an error with advice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from conversion_phantoms import use_nnunet_folders, write_task
from nnunetv2_eccam.dataset_conversion import parallel
from nnunetv2_eccam.dataset_conversion.model import Case
from nnunetv2_eccam.dataset_conversion.msd import convert_msd
from nnunetv2_eccam.dataset_conversion.parallel import attempted, run_cases
from nnunetv2_eccam.dataset_conversion.target import Staging

from nnunetv2_eccam.errors import UserError

CASES = [Case(f"case_{number}", (Path(__file__),), None) for number in range(7)]


def where_it_ran(case: Case) -> dict[str, object]:
    return {"process": os.getpid(), "case": case.case}


def die_at_the_third(case: Case) -> dict[str, object]:
    if case.case == "case_2":
        os.kill(os.getpid(), signal.SIGKILL)
    return {}


def refuse_the_third(case: Case) -> dict[str, object]:
    if case.case == "case_2":
        raise UserError(f"{case.case} is bad")
    return {}


def fail_with(error: BaseException):
    def work(_: Case) -> dict[str, object]:
        raise error

    return work


@pytest.mark.parametrize("processes", [1, 2])
def test_every_case_is_done_once(processes, monkeypatch):
    monkeypatch.setattr(parallel, "WORTH_A_PROCESS", 0)
    results = list(run_cases(where_it_ran, CASES, processes, "", progress=False))

    assert sorted(case.case for case, _ in results) == sorted(case.case for case in CASES)
    assert all(result["case"] == case.case for case, result in results)
    assert {result["process"] == os.getpid() for _, result in results} == {processes == 1}


def test_little_data_is_not_worth_a_process(monkeypatch):
    results = list(run_cases(where_it_ran, CASES, 3, "", progress=False))
    assert sorted(case.case for case, _ in results) == sorted(case.case for case in CASES)
    assert {result["process"] for _, result in results} == {os.getpid()}

    size = Path(__file__).stat().st_size
    monkeypatch.setattr(parallel, "WORTH_A_PROCESS", len(CASES) * size // 2)  # now there is enough for two
    assert os.getpid() not in {result["process"] for _, result in run_cases(where_it_ran, CASES, 2, "", progress=False)}


def test_a_killed_process_is_an_error_with_advice(monkeypatch):
    monkeypatch.setattr(parallel, "WORTH_A_PROCESS", 0)
    with pytest.raises(UserError, match=r"process was killed.*-np"):
        list(run_cases(die_at_the_third, CASES, 2, "", progress=False))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_case_comes_back_beside_the_good_ones(workers):
    results = dict(run_cases(refuse_the_third, CASES, workers, "", progress=False))

    assert len(results) == len(CASES)
    assert [str(result) for result in results.values() if isinstance(result, UserError)] == ["case_2 is bad"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), r"case_0: not enough memory.*-np 1"),
        (OSError(28, "No space left on device", "/a/b"), r"case_0: No space left on device \(/a/b\).*make room"),
        (UserError("file x is bad"), "case_0: file x is bad"),
    ],
)
def test_what_the_user_can_mend_names_the_case(error, message):
    result = attempted(fail_with(error), CASES[0])
    assert isinstance(result, UserError)
    with pytest.raises(UserError, match=message):
        raise result


def test_a_fault_of_the_program_is_not_disguised():
    with pytest.raises(ZeroDivisionError):
        attempted(fail_with(ZeroDivisionError()), CASES[0])


def test_two_conversions_to_one_target_do_not_mix(tmp_path, monkeypatch):
    raw = use_nnunet_folders(tmp_path, monkeypatch)
    source = write_task(tmp_path / "Task07_Pancreas")

    with Staging(raw / "Dataset007_Pancreas").opened({}), pytest.raises(UserError, match="another conversion"):
        convert_msd(source, processes=1, progress=False)


def test_the_old_data_set_comes_back_after_a_kill_between_two_renames(tmp_path, monkeypatch):
    raw = use_nnunet_folders(tmp_path, monkeypatch)
    source = write_task(tmp_path / "Task07_Pancreas")
    folder = convert_msd(source, processes=1, progress=False).folder
    folder.rename(raw / ".replaced_Dataset007_Pancreas")

    assert convert_msd(source, processes=1, progress=False).status == "already converted"
