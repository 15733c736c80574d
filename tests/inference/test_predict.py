"""``nnUNetv2_eccam predict`` beside ``nnUNetv2_predict``: equal files, batches across cases, damaged cases named."""

import contextlib
import gzip
import json
import multiprocessing
import subprocess
import sys
import threading
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from benchmarks.model_folder import unet_architecture, write_model
from nnunetv2_eccam import cli
from nnunetv2_eccam.inference import case_predictor, command
from nnunetv2_eccam.inference.batched_predictor import BatchedPredictor
from nnunetv2_eccam.inference.case_predictor import CasePredictor
from nnunetv2_eccam.inference.cases import CasesFailed
from nnunetv2_eccam.inference.work_ahead import WorkAhead

SIZES = [(20, 24, 3), (16, 16, 1), (30, 21, 2), (20, 24, 3), (16, 40, 2)]
STRIDES = [[1, 1], [2, 2]]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """What nnU-Net gives torch on the CPU, here and in the tests that follow."""
    monkeypatch.setattr(multiprocessing, "cpu_count", lambda: 1)


def write_image(path: Path, size=(20, 24, 3), seed: int = 0, voxels=None) -> None:
    if voxels is None:
        voxels = np.random.default_rng(seed).normal(5, 2, size).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 3.0, 1.0])), path)


@pytest.fixture(scope="module")
def model(nnunet_base) -> Path:
    """A 2D model of two folds with random weights, in nnU-Net's folder of results."""
    (nnunet_base / "raw" / "Dataset998_MadeUp").mkdir(exist_ok=True)
    folder = nnunet_base / "results" / "Dataset998_MadeUp" / "nnUNetTrainer__nnUNetPlans__2d"
    return write_model(folder, unet_architecture([4, 6], STRIDES), [16, 16], [1.0, 1.0], folds=(0, 1))


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, size in enumerate(SIZES):
        write_image(folder / f"c{number}_0000.nii.gz", size, number)
    return folder


def words_for(images: Path, output: Path, *more: str) -> list[str]:
    words = ["-i", str(images), "-o", str(output), "-d", "998", "-c", "2d", "-device", "cpu", "-f", "0", "1"]
    return [*words, "-npp", "2", "-nps", "2", "--disable_progress_bar", *more]


def predicted(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix(".nii.gz") for path in folder.glob("*.nii.gz"))


def contents(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            found[path.name] = path.read_text().replace(str(folder), "OUT")
        elif path.suffix == ".npz":
            found[path.name] = np.load(path)["probabilities"]
        elif path.suffix == ".gz":
            found[path.name] = nibabel.load(path).get_fdata()
        else:
            found[path.name] = path.stat().st_size
    return found


def assert_same_files(found: dict[str, object], expected: dict[str, object]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name.endswith(".npz"):
            np.testing.assert_allclose(found[name].astype(float), value.astype(float), atol=5e-3)
        elif isinstance(value, np.ndarray):
            assert np.mean(found[name] != value) < 1e-3
        else:
            assert found[name] == value


def test_predict_writes_the_files_that_nnunetv2_predict_writes(model, images, tmp_path, monkeypatch):
    """With its options: probabilities, step size; nnU-Net's own command in its own process."""
    more = ("--save_probabilities", "-step_size", "0.7")
    theirs, mine, alone = tmp_path / "theirs", tmp_path / "mine", tmp_path / "alone"
    no_processes = ("-npp", "0", "-nps", "0")
    nnunet = [str(Path(sys.executable).parent / "nnUNetv2_predict"), *words_for(images, theirs, *more, *no_processes)]
    subprocess.run(nnunet, check=True, capture_output=True)
    batches = []
    call = BatchedPredictor._call_network
    monkeypatch.setattr(BatchedPredictor, "_call_network", lambda self, x: batches.append(len(x)) or call(self, x))
    assert command.main(["--batch-size", "16", *words_for(images, mine, *more)]) == 0
    assert batches.count(16) >= len(batches) - 2  # all are full but the last of each fold
    assert command.main(words_for(images, alone, *more, *no_processes)) == 0
    expected = contents(theirs)
    asked = json.loads(expected.pop("predict_from_raw_data_args.json"))
    for found in map(contents, (mine, alone)):
        assert asked.items() <= json.loads(found.pop("predict_from_raw_data_args.json")).items()
        assert_same_files(found, expected)
    assert len(predicted(mine)) == len(SIZES)
    assert predict_from_raw_data.nnUNetPredictor is nnUNetPredictor


def test_parts_and_going_on_are_nnunets(model, images, tmp_path):
    output = tmp_path / "out"
    assert command.main(words_for(images, output, "-num_parts", "2", "-part_id", "1")) == 0
    assert predicted(output) == ["c1", "c3"]
    done = (output / "c1.nii.gz").stat().st_mtime_ns
    assert command.main(words_for(images, output, "--continue_prediction")) == 0
    assert predicted(output) == ["c0", "c1", "c2", "c3", "c4"]
    assert (output / "c1.nii.gz").stat().st_mtime_ns == done


def test_a_cascades_second_model_takes_the_firsts_segmentations(images, tmp_path):
    architecture = unet_architecture([4, 6], [[1] * 3, [2] * 3])
    folder = write_model(tmp_path / "model", architecture, [4, 16, 16], [3.0, 1.0, 1.0], previous_stage="3d_lowres")
    for name in ("previous", "theirs", "mine"):
        (tmp_path / name).mkdir()
    for number, size in enumerate(SIZES[:-1]):
        labels = np.random.default_rng(number).integers(0, 3, size).astype(np.uint8)
        write_image(tmp_path / "previous" / f"c{number}.nii.gz", voxels=labels)
    missing = pytest.raises(CasesFailed, match=r"c4: .*c4.nii.gz is missing, the segmentation of the cascade")
    for kind, where, count in ((nnUNetPredictor, "theirs", 4), (CasePredictor, "mine", 5)):
        predictor = loaded(folder, kind, (0,))
        files = [[str(images / f"c{n}_0000.nii.gz")] for n in range(count)]
        outputs = [str(tmp_path / where / f"c{n}") for n in range(count)]
        with missing if count == 5 else contextlib.nullcontext():
            predictor.predict_from_files_sequential(files, outputs, False, True, str(tmp_path / "previous"))
    theirs, mine = (contents(tmp_path / where) for where in ("theirs", "mine"))
    segmentations = [name for name in theirs if name.endswith(".gz")]
    assert len(segmentations) == 4
    assert_same_files({name: mine[name] for name in segmentations}, {name: theirs[name] for name in segmentations})


def spoil(images: Path) -> dict[str, str]:
    """Damage a folder's cases, each in another way; give what is to be said of each."""
    packed = (images / "c1_0000.nii.gz").read_bytes()
    (images / "c1_0000.nii.gz").write_bytes(packed[: len(packed) // 2])
    voxels = np.ones(SIZES[2], np.float32)
    voxels[3:5, 2, 1] = np.nan
    write_image(images / "c2_0000.nii.gz", voxels=voxels)
    write_image(images / "c3_0001.nii.gz", SIZES[3])
    write_image(images / "c5_0000.nii.gz", (5, 5, 1))
    write_image(images / "c5_0001.nii.gz", (6, 5, 1))
    (images / "c6_0000.nii.gz").write_bytes(b"")
    write_image(images / "c7_0002.nii.gz")
    write_image(images / "c8.nii.gz")
    (images / "._c0_0000.nii.gz").write_bytes(gzip.compress(b"of macOS"))
    return {
        "c1": "c1_0000.nii.gz is truncated",
        "c2": "c2_0000.nii.gz: 2 of its",
        "c3": "it has 2 channels (c3_0000.nii.gz, c3_0001.nii.gz), the model takes 1 (channel 0)",
        "c5": "its files differ in size or spacing: c5_0000.nii.gz 1 x 5 x 5, c5_0001.nii.gz 1 x 5 x 6",
        "c6": "c6_0000.nii.gz is empty",
        "c7": "c7_0002.nii.gz stands where the file of channel _0000 should",
        "c8.nii.gz": "its name has no number of a channel, as case_0000.nii.gz has",
    }


def test_damaged_cases_are_named_and_do_not_stop_the_others(model, images, tmp_path, capsys):
    expected = spoil(images)
    assert cli.main(["predict", *words_for(images, tmp_path / "out")]) == 1
    assert predicted(tmp_path / "out") == ["c0", "c4"]
    told = capsys.readouterr().err
    assert "1 hidden file(s) passed over, such as ._c0_0000.nii.gz" in told
    first, *lines = told[told.rindex("nnUNetv2_eccam predict: error: ") :].splitlines()
    assert first.endswith("7 could not be predicted, all others are done:")
    assert len(lines) == len(expected)
    for case, reason in expected.items():
        assert any(line.startswith(f"  {case}: ") and reason in line for line in lines), (case, lines)


def test_a_file_that_cannot_be_written_is_named_and_leaves_no_part(model, images, tmp_path, monkeypatch):
    export = case_predictor.export_prediction_from_logits

    def full(logits, properties, configuration, plans, dataset, output, *more):
        export(logits, properties, configuration, plans, dataset, output, *more)
        if "c3" in output:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(case_predictor, "export_prediction_from_logits", full)
    with pytest.raises(CasesFailed, match=r"1 could not.*\n  c3: OSError: .*No space left"):
        command.main(words_for(images, tmp_path / "out", "--save_probabilities"))
    assert predicted(tmp_path / "out") == ["c0", "c1", "c2", "c4"]
    assert not any("c3" in path.name for path in (tmp_path / "out").iterdir())


def loaded(model: Path, kind=CasePredictor, folds=(0, 1)) -> nnUNetPredictor:
    with contextlib.redirect_stdout(None):
        predictor = kind(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(model), folds)
    return predictor


def test_arrays_from_python_are_predicted_in_order(model):
    sizes = [(1, *size[::-1]) for size in SIZES]
    arrays = [np.random.default_rng(n).normal(5, 2, size).astype(np.float32) for n, size in enumerate(sizes)]
    properties = [{"spacing": [3.0, 1.0, 1.0]} for _ in arrays]
    reference = loaded(model, nnUNetPredictor)
    found = loaded(model).predict_from_list_of_npy_arrays(arrays, None, properties, None)
    assert [one.shape for one in found] == [array.shape[1:] for array in arrays]
    for number in (0, 4):
        expected = reference.predict_single_npy_array(arrays[number], dict(properties[number]))
        assert np.mean(found[number] != expected) < 1e-3
    broken = [arrays[0], np.full_like(arrays[1], np.inf), np.ones((2, 1, 9, 9), np.float32), arrays[3]]
    with pytest.raises(CasesFailed) as error:
        loaded(model).predict_from_list_of_npy_arrays(broken, None, properties[:4], None)
    assert list(error.value.failed) == ["image 1", "image 2"]
    assert "256 voxels of channel 0 are NaN or infinite" in error.value.failed["image 1"]
    assert [result is None for result in error.value.results] == [False, True, True, False]
    np.testing.assert_array_equal(error.value.results[3], found[3])


def test_logits_that_are_not_finite_are_named(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr(BatchedPredictor, "_call_network", lambda self, x: torch.full((len(x), 3, 16, 16), 1e6))
    with pytest.raises(CasesFailed, match=r"c0: the network's logits are not finite"):
        command.main(words_for(images, tmp_path / "out"))
    assert predicted(tmp_path / "out") == []


@given(
    costs=st.lists(st.integers(0, 9), max_size=25), workers=st.integers(0, 4), memory=st.integers(1, 20),
    slow=st.integers(0, 24),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_work_ahead_is_in_order_and_within_its_memory(costs, workers, memory, slow):
    lock, waiting, most = threading.Lock(), 0, 0

    def work(index: int) -> int:
        nonlocal waiting, most
        time.sleep(0.002 if index == slow else 0)
        with lock:
            waiting += costs[index]
            most = max(most, waiting)
        return index

    found = []
    for index in WorkAhead(work, range(len(costs)), workers, memory, lambda index: costs[index]):
        with lock:
            waiting -= costs[index]
        found.append(index)
    assert found == list(range(len(costs)))
    assert most <= memory + (max(1, workers) + 1) * 9


def test_work_ahead_ends_with_the_one_who_takes_and_hands_errors_over():
    done = []
    for first in WorkAhead(lambda n: done.append(n) or n, range(1000), 2, 1, lambda n: 1):
        assert first == 0
        break
    assert len(done) < 10
    with pytest.raises(ZeroDivisionError):
        list(WorkAhead(lambda n: 1 // n, [1, 0], 1, 1, lambda n: 1))


@pytest.mark.parametrize("words", ["--batch-size many", "--nonsense -i a -o b -d 998 -c 2d"])
def test_options_that_are_wrong_are_refused_by_name(capsys, words):
    with pytest.raises(SystemExit) as stop:
        command.main(words.split())
    assert stop.value.code == 2
    assert words.split()[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"-d": "777"}, "777"),
        ({"-c": "3d_fullres"}, "there is no trained model at"),
        ({"-f": "3"}, "for fold 3; it has one for 0, 1: give -f 0 1"),
        ({"-f": "x"}, "'x'"),
        ({"-chk": "checkpoint_best.pth"}, "it has none"),
        ({"-i": "nowhere"}, "nowhere does not exist"),
        ({"-i": "EMPTY"}, "no images of this data set"),
        ({"-device": "tpu"}, "-device must be either"),
        ({"-part_id": "1"}, "documentation"),
        ({"--batch-size": "0"}, "batch_size must be at least 1, got 0"),
    ],
)
def test_predict_says_in_one_line_what_the_user_gave_wrong(model, images, tmp_path, changed, message, capsys):
    words = words_for(images, tmp_path / "out", "-chk", "checkpoint_final.pth", "-part_id", "0", "--batch-size", "9")
    words.remove("1")
    (tmp_path / "EMPTY").mkdir()
    for option, value in changed.items():
        words[words.index(option) + 1] = str(tmp_path / value) if value == "EMPTY" else value
    assert cli.main(["predict", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_bug_while_predicting_is_not_called_the_users_fault(model, images, tmp_path, monkeypatch):
    def broken(self, x):
        raise RuntimeError("a bug")

    monkeypatch.setattr(BatchedPredictor, "_internal_maybe_mirror_and_predict", broken)
    monkeypatch.setattr(case_predictor, "BATCHES_TOGETHER", 1)
    monkeypatch.setattr(case_predictor, "AHEAD_BYTES", 1)
    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="a bug") as error:
        command.main(["--batch-size", "1", *words_for(images, tmp_path / "out")])
    # While the traceback is kept, too: Python waits for threads when it ends.
    assert not [thread for thread in set(threading.enumerate()) - before if thread.is_alive()], error
