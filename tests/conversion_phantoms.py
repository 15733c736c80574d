"""Small downloads of each data set, made up, with anatomy that no flip or transposition leaves as it is."""

import gzip
from pathlib import Path

import nibabel
import numpy as np

from nnunetv2_eccam.files import write_json

AXIAL = np.diag([-0.8, -0.8, 2.5, 1.0])
"""An affine as scanners make it: x to the left, y to the back, z to the head, 0.8 x 0.8 x 2.5 mm."""

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def convert(data_set: str, source: Path, **options):
    """Convert without a progress bar, one case at a time if not asked otherwise."""
    from nnunetv2_eccam.dataset_conversion.command import convert_download
    from nnunetv2_eccam.dataset_conversion.model import Options

    return convert_download(data_set, source, Options(**{"processes": 1, "progress": False, **options}))


def abdomen(size=(40, 36, 20), seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Give a CT (HU, int16) and its label (0, 1 organ, 2 lesion; uint8), both ``(x, y, z)``.

    A body of fat in air, with an organ that has an arm along x, a shorter one along y and a thickness that
    grows along z, near one corner of the body; a spine at the back.
    """
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, length) for length in size), indexing="ij")
    image = np.full(size, -1000.0)
    image[(x / 0.9) ** 2 + (y / 0.8) ** 2 < 1] = -90
    image[(x - 0.05) ** 2 + (y - 0.6) ** 2 < 0.02] = 600
    wide = 0.06 + 0.06 * (z + 1)
    organ = (np.abs(z - 0.1) < 0.6) & (
        ((x > -0.55) & (x < 0.15) & (np.abs(y + 0.25) < wide)) | ((np.abs(x + 0.45) < wide) & (y > -0.25) & (y < 0.2))
    )
    image[organ] = 105
    lesion = organ & (x < -0.35) & (z > 0.2)
    image[lesion] = 70
    image += rng.normal(0, 8, size)
    return image.round().astype(np.int16), organ.astype(np.uint8) + lesion.astype(np.uint8)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AXIAL) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def load(path: Path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj)


def patched(path: Path, offset: int, value: np.ndarray) -> Path:
    """Put bytes of one's own into the header of a file."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[offset : offset + value.nbytes] = value.tobytes()
    path.write_bytes(gzip.compress(raw))
    return path


def write_task(folder: Path, cases=4, tests=2, labels=("pancreas", "cancer"), modality=("CT",), prefix="p") -> Path:
    """Write a Decathlon task as its download is: names, dataset.json, and a stray ``._`` file."""

    def entry(subset: str, case: str) -> str:
        return f"./{subset}/{case}.nii.gz"

    names = [f"{prefix}_{index:03d}" for index in range(1, cases + tests + 1)]
    for index, case in enumerate(names):
        image, label = abdomen(seed=index)
        label = np.minimum(label, len(labels)).astype(np.uint8)
        if len(modality) > 1:
            image = np.stack([image + 10 * channel for channel in range(len(modality))], axis=-1)
        if index < cases:
            save(folder / entry("imagesTr", case), image)
            save(folder / entry("labelsTr", case), label)
        else:
            save(folder / entry("imagesTs", case), image)
    (folder / "imagesTs").mkdir(exist_ok=True)
    (folder / "imagesTr" / f"._{names[0]}.nii.gz").write_bytes(b"Mac OS X")
    write_json(
        folder / "dataset.json",
        {
            "name": folder.name,
            "modality": {str(index): name for index, name in enumerate(modality)},
            "labels": {"0": "background", **{str(value): name for value, name in enumerate(labels, start=1)}},
            "numTraining": cases,
            "numTest": tests,
            "training": [
                {"image": entry("imagesTr", case), "label": entry("labelsTr", case)} for case in names[:cases]
            ],
            "test": [entry("imagesTs", case) for case in names[cases:]],
        },
    )
    return folder


def every_byte(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_kits(folder: Path, cases=3, unlabelled=1) -> Path:
    """Write KiTS19 as its clone is: slices first, an antidiagonal affine with negative entries, no offset."""
    for index in range(cases + unlabelled):
        image, label = abdomen(seed=index)
        case = folder / "data" / f"case_{index:05d}"
        # (x to the left, y to the back, z to the head) becomes (slice to the feet, row, column).
        save(case / "imaging.nii.gz", slices_first(image).astype(np.float64), kits_affine())
        if index < cases:
            dtype = np.uint16 if index == 1 else np.uint8
            save(case / "segmentation.nii.gz", slices_first(label).astype(dtype), kits_affine())
    return folder


def slices_first(voxels: np.ndarray) -> np.ndarray:
    """Turn ``(x left, y back, z head)`` to KiTS19's ``(slice feet, row back, column left)``."""
    return np.ascontiguousarray(voxels[:, :, ::-1].transpose(2, 1, 0))


def kits_affine(slice_spacing=2.5) -> np.ndarray:
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = -slice_spacing, -0.8, -0.8, 1
    return affine


def write_series(
    folder: Path,
    image: np.ndarray,
    *,
    patient: str,
    name="{:04d}.bin",
    positions=None,
    shift_per_slice=(0.0, 0.0),
    descending=False,
    series="1",
    slope=1,
    intercept=-1024,
) -> list[Path]:
    """Write a CT, HU ``(x left, y back, z head)``, as a DICOM series; give its files from feet to head.

    Args:
        name: of a file, by its instance number.
        positions: mm along z of each slice; None for even spacing.
        shift_per_slice: mm in x and y, as by a tilted gantry.
        descending: instance 1 is at the head.
    """
    import SimpleITK as sitk

    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    count = image.shape[2]
    positions = [index * 2.5 - 100.0 for index in range(count)] if positions is None else positions
    files = []
    for index in range(count):
        number = count - index if descending else index + 1
        plane = sitk.GetImageFromArray(np.ascontiguousarray(image[:, :, index].T))
        plane.SetSpacing((0.8, 0.8))
        x, y = (-150.0 + index * shift for shift in shift_per_slice)
        for tag, value in {
            "0008|0060": "CT",
            "0010|0020": patient,
            "0020|000d": "1.2.826.1",
            "0008|0018": f"1.2.826.{series}.{index + 1}",
            "0020|000e": f"1.2.826.{series}",
            "0020|0013": str(number),
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0032": f"{x}\\{y}\\{positions[index]}",
            "0028|1052": str(intercept),
            "0028|1053": str(slope),
        }.items():
            plane.SetMetaData(tag, value)
        files.append(folder / name.format(number))
        writer.SetFileName(str(files[-1]) + ".dcm")  # GDCM insists on the ending when it writes
        writer.Execute(plane)
        Path(str(files[-1]) + ".dcm").rename(files[-1])
    return files


def write_tcia(folder: Path, cases=3, descending=lambda number: True, anatomy=abdomen) -> Path:
    """Write TCIA Pancreas-CT: nested DICOM folders, and labels whose headers say nothing true.

    ``descending`` tells of a patient whether its instance 1 is at the head.
    """
    for number in range(1, cases + 1):
        image, label = anatomy((36, 36, 20), seed=number)
        patient = f"PANCREAS_{number:04d}"
        write_series(
            folder / "Pancreas-CT" / patient / "11-24-2015" / "Pancreas-1",
            image,
            patient=patient,
            name=f"x{number}-{{:d}}",
            descending=descending(number),
            series=str(number),
        )
        file = folder / "TCIA_pancreas_labels-02-05-2017" / f"label{number:04d}.nii.gz"
        save(file, np.minimum(label, 1), np.diag([1, 1, 1, 1]))
    (folder / "Pancreas-CT/LICENSE").write_text("CC BY 3.0")
    return folder
