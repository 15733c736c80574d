"""The benchmark's jobs from beginning to end, with stubs of nnU-Net's commands."""

from __future__ import annotations

import json

import pytest
from benchmark_stubs import NAME, FakeBase

from nnunetv2_eccam.benchmark import engine
from nnunetv2_eccam.cli import main

WORDS = ("-d", "1", "-c", "2d", "-tr", "A", "B", "-f", "0", "1", "--device", "cpu")


class InlineEngine:
    """Runs each call where it is submitted, so that a test is over in no time."""

    def __init__(self, run, timing):
        self.names: set[str] = set()

    def submit(self, call):
        call()
        self.names.add(call.job.name)

    def adopt(self, job, attempt):
        return None

    def ended(self):
        over, self.names = sorted(self.names), set()
        return over

    def forget(self, name):
        pass

    def stop(self):
        pass


@pytest.fixture
def base(tmp_path, monkeypatch) -> FakeBase:
    made = FakeBase(tmp_path).make()
    made.use(monkeypatch.setattr, poll=0.001)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(engine, "Engine", InlineEngine)
    return made


def run(base: FakeBase, *words: str) -> int:
    base.forget_calls()
    return main(["benchmark", *WORDS, "--work-dir", str(base.work), *words])


def commands(base: FakeBase) -> list[str]:
    """Give the calls as ``train A 0``, ``predict A`` and ``evaluate``."""
    names = []
    for call in base.calls():
        words = call["words"]
        trainer = words[words.index("-tr") + 1] if "-tr" in words else ""
        fold = words[3] if words[0] == "nnUNetv2_train" else ""
        more = next((word for word in ("--c", "--val") if word in words), "")
        kind = words[1] if words[0] == "nnUNetv2_eccam" else words[0].removeprefix("nnUNetv2_")
        names.append(" ".join(filter(None, (kind, trainer, fold, more))))
    return names


def test_everything_is_trained_predicted_scored_and_recorded(base, capsys):
    assert run(base) == 0
    ran = commands(base)
    assert sorted(ran) == sorted(
        ["train A 0", "train B 0", "train A 1", "train B 1", "predict A", "predict B", *["evaluate"] * 6]
    )
    assert ran[:2] == ["train A 0", "evaluate"], "scores come as soon as they can"
    for trainer in ("A", "B"):
        for part in ("fold_0", "fold_1", "test"):
            for unit in ("volume", "slice"):
                assert (base.scores(trainer) / f"{part}_{unit}.csv").is_file()
            record = json.loads(
                (base.work / "records" / "repeat_0" / NAME / "2d" / trainer / f"{part}.json").read_text()
            )
            assert record["device"] == "cpu"
            assert record["versions"]["nnunetv2"]
            assert record["started"] <= record["finished"]
            assert record["energy_joules"] is None
            assert record["commands"][0].startswith("nnUNetv2_")
            if part != "test":
                assert record["epochs"] == 2
                assert record["train_seconds"] == 3.0, "the epochs of the stub's log are longer than the stub ran"
    predicted = base.work / "predictions" / "repeat_0" / NAME / "2d" / "A" / "test"
    assert sorted(path.name for path in predicted.iterdir()) == ["test_0.nii.gz", "test_1.nii.gz"]
    spec = json.loads((base.work / "spec.json").read_text())
    assert spec["datasets"] == [NAME]
    out = capsys.readouterr().out
    assert "12 jobs: 12 done" in out
    assert "Report: written" in out


def test_what_is_done_is_not_done_again(base, capsys):
    assert run(base) == 0
    assert run(base) == 0
    assert commands(base) == []
    assert main(["benchmark", "--work-dir", str(base.work)]) == 0, "spec.json is enough to go on from"
    assert commands(base) == []


def test_folds_trained_before_count_and_their_record_is_read_from_their_files(base):
    assert run(base) == 0
    for name in ("eccam_benchmark", "validation"):
        import shutil

        shutil.rmtree(base.fold("A", 0) / name)
    (base.fold("A", 0) / "debug.json").write_text(
        json.dumps({"hostname": "elsewhere", "device": "cuda:0", "gpu_name": "NVIDIA X", "torch_version": "2.0"})
    )
    assert run(base) == 0
    assert commands(base) == ["train A 0 --val", "evaluate"], "a validation that is missing is run alone"
    record = json.loads((base.work / "records" / "repeat_0" / NAME / "2d" / "A" / "fold_0.json").read_text())
    assert record["train_seconds"] == 3.0
    assert record["train_seconds_from"] == "the epochs in nnU-Net's logs"
    assert record["gpu"] == "NVIDIA X"


def test_a_changed_option_reruns_what_it_affects(base, tmp_path):
    assert run(base) == 0
    spec = tmp_path / "spec.yaml"
    text = "datasets: [1]\nconfigurations: [2d]\ntrainers: [A, B]\nfolds: [0, 1]\ndevice: cpu\nwork_dir: work\n"
    spec.write_text(text + "evaluation: {nsd_tolerance_mm: 1}\n")
    base.forget_calls()
    assert main(["benchmark", str(spec)]) == 0
    assert commands(base) == ["evaluate"] * 6
    assert base.calls()[0]["words"][base.calls()[0]["words"].index("--nsd-tolerance") + 1] == "1"
    spec.write_text(text.replace("[0, 1]", "[0]") + "evaluation: {nsd_tolerance_mm: 1}\n")
    base.forget_calls()
    assert main(["benchmark", str(spec)]) == 0
    assert sorted(commands(base)) == ["evaluate"] * 2 + ["predict A", "predict B"], "the ensemble is of other folds"
    base.forget_calls()
    spec.write_text(text.replace("[0, 1]", "[0]") + "evaluation: {nsd_tolerance_mm: 1}\nstatistics: {bootstrap: 100}\n")
    assert main(["benchmark", str(spec)]) == 0
    assert commands(base) == []
    base.forget_calls()
    spec.write_text(text.replace("[0, 1]", "[0]") + "evaluation: {nsd_tolerance_mm: 1, ignore_geometry: true}\n")
    assert main(["benchmark", str(spec)]) == 0
    assert commands(base) == ["evaluate"] * 4
    assert all("--ignore-geometry" in call["words"] for call in base.calls())


def test_a_fold_that_is_trained_anew_is_scored_anew(base):
    assert run(base) == 0
    import os

    summary = base.fold("A", 1) / "validation" / "summary.json"
    os.utime(summary, (1, 1))
    assert run(base) == 0
    assert commands(base) == ["evaluate"]
    os.utime(base.fold("A", 1) / "checkpoint_final.pth", (1, 1))
    assert run(base) == 0
    assert commands(base) == ["predict A", "evaluate"]


def test_a_failed_job_stops_nothing_else_and_is_rerun_on_request(base, capsys):
    base.control(fail=["A 1"])
    assert run(base) == 1
    assert sorted(commands(base)) == sorted(
        ["train A 0", "train A 1", "train B 0", "train B 1", "predict B", *["evaluate"] * 4]
    )
    err = capsys.readouterr().err
    assert "failed: train Dataset001_Fake 2d A fold 1: nnUNetv2_train failed (exit code 1)" in err
    assert "| RuntimeError: CUDA out of memory" in err
    assert "blocked: predict Dataset001_Fake 2d A test: needs train Dataset001_Fake 2d A fold 1" in err
    assert "of 12 jobs, 1 failed, 3 blocked" in err
    base.control()
    assert run(base) == 1, "it is not tried again unasked"
    assert commands(base) == []
    assert run(base, "--status") == 0
    out = capsys.readouterr().out
    assert "12 jobs: 8 done, 1 failed, 3 blocked" in out
    assert "| RuntimeError: CUDA out of memory" in out
    assert run(base, "--retry-failed") == 0
    assert commands(base) == ["train A 1 --c", "evaluate", "predict A", "evaluate"], "from its checkpoint"
    record = json.loads((base.fold("A", 1) / "eccam_benchmark" / "record.json").read_text())
    assert record["attempts"] == 2
    assert len(record["commands"]) == 2


def test_a_retried_job_that_fails_again_is_not_retried_for_ever(base, capsys):
    base.control(fail=["A 1"])
    assert run(base) == 1
    assert run(base, "--retry-failed") == 1
    assert commands(base) == ["train A 1 --c"]


def test_a_killed_command_is_told_from_a_failed_one(base, capsys):
    base.control(kill=["B 0"])
    assert run(base) == 1
    assert "failed (killed by SIGKILL, perhaps for want of memory)" in capsys.readouterr().err


def test_a_command_that_leaves_out_its_result_has_failed(base, capsys):
    base.control(no_validation=["A 0"])
    assert run(base) == 1
    assert "nnUNetv2_train ended without an error, but" in capsys.readouterr().err
    base.control()
    assert run(base, "--retry-failed") == 0
    assert commands(base)[0] == "train A 0 --val"


def test_repeats_have_results_of_their_own(base):
    assert run(base, "--repeats", "2", "-f", "0", "-tr", "A", "--no-test") == 0
    assert commands(base) == ["train A 0", "evaluate"] * 2
    results = [call["environment"]["nnUNet_results"] for call in base.calls() if "nnUNetv2_train" in call["words"]]
    assert results == [str(base.folder / "results"), str(base.work / "repeat_1" / "nnUNet_results")]
    assert (base.scores("A", repeat=1) / "fold_0_volume.csv").is_file()


def test_cpu_settings_reach_the_commands(base):
    assert run(base, "-f", "0", "-tr", "A", "--jobs", "1000") == 0
    train, score, predict, _ = base.calls()
    assert train["environment"]["nnUNet_n_proc_DA"] == "0"
    assert train["environment"]["OMP_NUM_THREADS"] == train["environment"]["PYTHON_CPU_COUNT"] == "1"
    assert "OMP_THREAD_LIMIT" not in train["environment"], "with it, a training on a CPU hangs"
    assert predict["environment"].get("nnUNet_n_proc_DA") == score["environment"].get("nnUNet_n_proc_DA")


def test_cut_off_predictions_are_made_again_and_whole_ones_kept(base):
    assert run(base) == 0
    predicted = base.work / "predictions" / "repeat_0" / NAME / "2d" / "A" / "test"
    (predicted / "test_0.nii.gz").write_bytes((predicted / "test_0.nii.gz").read_bytes()[:-4])
    (base.work / "jobs" / f"predict.{NAME}.2d.A.repeat_0.test" / "done.json").unlink()
    assert run(base) == 0
    assert [call["what"] for call in base.calls("predicts test_0_0000.nii.gz")] == ["predicts test_0_0000.nii.gz"]
    assert base.calls("predicts test_1_0000.nii.gz") == []


def test_dry_run_prints_a_script_that_does_it(base, capsys):
    import os
    import subprocess

    assert run(base, "--dry-run") == 0
    assert not base.work.exists()
    script = capsys.readouterr().out
    assert script.startswith("# 12 jobs: 0 done, 4 ready, 8 waiting\n")
    assert "nnUNet_n_proc_DA=0 nnUNetv2_train Dataset001_Fake 2d 0 -tr A -p nnUNetPlans -device cpu\n" in script
    path = f"{base.folder / 'stubs'}:{os.environ['PATH']}"
    subprocess.run(["bash", "-e"], input=script, text=True, env={"PATH": path}, check=True)
    assert len(base.calls("end")) == 12
    capsys.readouterr()
    assert run(base) == 0
    assert "train" not in " ".join(commands(base)), "the trainings count"


def test_slots_go_round_the_gpus(tmp_path):
    from nnunetv2_eccam.benchmark.conductor import Surroundings
    from nnunetv2_eccam.benchmark.places import Folders
    from nnunetv2_eccam.benchmark.spec import Run

    folders = Folders(*[tmp_path] * 4)
    one = Surroundings(folders, {}, Run(jobs=4, gpus=1), ("2", "5"))
    assert [one.settings(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == ["2", "5", "2", "5"]
    two = Surroundings(folders, {}, Run(jobs=2, gpus=2), ("0", "1", "2", "3"))
    assert [two.settings(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(2)] == ["0,1", "2,3"]
    assert "CUDA_VISIBLE_DEVICES" not in Surroundings(folders, {}, Run()).settings(0)
