"""The measuring scripts: peaks of known allocations, the tables, made-up sources."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import conversion, spatial_correlation, speed
from benchmarks.measuring import peak_bytes
from nnunetv2_eccam.systems import SYSTEMS

CPU = torch.device("cpu")


def test_the_peak_is_the_most_at_once():
    def job() -> None:
        first = torch.empty(3 * 2**20, dtype=torch.uint8)
        del first
        second = torch.empty(2 * 2**20, dtype=torch.uint8)
        third = torch.empty(2 * 2**20, dtype=torch.uint8)
        del second, third
        torch.empty(2**20, dtype=torch.uint8)

    before = torch.empty(2**24, dtype=torch.uint8)
    assert peak_bytes(job, CPU) == 4 * 2**20
    del before


@pytest.mark.parametrize(("channels", "precision"), [(3, "fp32"), (24, "fp16"), (24, "bf16")])
def test_the_peak_of_spatial_correlation_grows_with_the_positions(channels, precision):
    """In the forward pass and with the backward pass, beside blocks, of one size from 768 positions on."""
    sizes = [(32, 32), (32, 64), (64, 64)]
    found = [
        spatial_correlation.measure(size, channels, spatial_correlation.DTYPES[precision], CPU, repeats=1)
        for size in sizes
    ]
    for passes in ("forward", "forward and backward"):
        half, whole, twice = (each[f"{passes}, MiB"] for each in found)
        assert twice - whole == pytest.approx(2 * (whole - half), rel=0.1)
    assert [each["S alone, MiB"] * 2**20 for each in found] == [
        torch.finfo(spatial_correlation.DTYPES[precision]).bits // 8 * n**2 for n in (1024, 2048, 4096)
    ]


def words(line: str) -> list[str]:
    return line.split()


def test_the_tables_have_a_row_for_each_network_and_each_map(capsys):
    assert speed.main(words("--patch 32 32 --widths 4 6 8 --batch 2 --repeats 1 --device cpu")) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    expected = []
    for name in ("plain", "residual", "choices"):
        expected += ["network", "---", *(name for name, _, _ in speed.TABLES[name]([4, 6, 8], [32, 32]))]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == expected
    assert len({line.count("|") for line in lines}) == 1
    assert spatial_correlation.main(words("--sizes 4x4 2x3x4 --channels 3 --repeats 1 --device cpu")) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + 2 * 3
    assert len({line.count("|") for line in lines}) == 1


def test_every_system_stands_in_one_row_beside_the_plain_unet():
    names, references, _ = zip(*speed.systems([4, 6, 8], [32, 32]), strict=True)
    assert sorted(title for name in names for title in name.split("; ")) == sorted(each.title for each in SYSTEMS)
    assert names[0].startswith("U-Net; ")
    assert references == ("", *[names[0]] * (len(names) - 1))


def test_the_made_up_sources_convert_everywhere(tmp_path, monkeypatch):
    from nnunetv2_eccam import cli

    conversion.write_sources(tmp_path, 2, (40, 36, 16))
    (tmp_path / "raw").mkdir()
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    for words_of in ("msd Task09_Spleen --id 10", "kits19 kits19", "tcia-pancreas tcia"):
        kind, source, *more = words(words_of)
        assert cli.main(["convert", kind, str(tmp_path / source), *more, "-np", "1", "--no-progress"]) == 0
    assert len(list((tmp_path / "raw").glob("Dataset*/imagesTr/*.nii.gz"))) == 6


def test_a_commands_time_and_peak_are_its_own(tmp_path):
    # In a process of its own, since a command's peak memory is never less than that of the process that starts it.
    code = (
        "import sys; from pathlib import Path; from benchmarks.conversion import timed; "
        "print(*timed([sys.executable, '-c', 'pass'], Path(sys.argv[1])))"
    )
    root = Path(conversion.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=root, capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, done.stdout.split())
    assert 0 < seconds < 60
    assert 1 < megabytes < 2000
