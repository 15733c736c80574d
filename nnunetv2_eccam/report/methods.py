"""What was done, in words, with the numbers of this benchmark."""

from __future__ import annotations

from nnunetv2_eccam.report.read_spec import Benchmark


def method_paragraphs(benchmark: Benchmark) -> list[tuple[str, str]]:
    """Give the paragraphs of the methods, each with a heading."""
    percent = f"{100 * benchmark.confidence:g}"
    return [
        ("Trainings and predictions", _trainings(benchmark)),
        ("Metrics", _metrics(benchmark)),
        ("Empty masks", _empties(benchmark)),
        ("Cases are the unit", _units(benchmark)),
        (
            "Intervals",
            f"SD is the sample standard deviation (n - 1). Intervals are {percent}% confidence intervals of the mean "
            f"by the bias-corrected and accelerated bootstrap with {benchmark.bootstrap} resamples of cases (seed "
            f"{benchmark.seed}), or the percentile bootstrap where that is undefined. Of few cases the bootstrap's "
            f"intervals are too narrow: with five, nominal 95% cover some 80 to 90%.",
        ),
        ("Tests", _tests(benchmark)),
    ]


def _trainings(benchmark: Benchmark) -> str:
    folds = ", ".join(map(str, benchmark.folds))
    word = "fold" if len(benchmark.folds) == 1 else "folds"
    repeats = (
        "once" if benchmark.repeats == 1
        else f"{benchmark.repeats} times (repeats; nnU-Net does not seed its trainings, so each is another draw)"
    )  # fmt: skip
    test = (
        " Test sets, where there is one, are predicted by nnU-Net's ensemble of these folds."
        if benchmark.predict_test else ""
    )  # fmt: skip
    return (
        f"Each system was trained by nnU-Net's own command on {word} {folds} of nnU-Net's splits (plans "
        f"{benchmark.plans}), {repeats}, and every validation case was predicted by the training that had not seen "
        f"it: nnU-Net's own validation predictions of its final checkpoint.{test}"
    )


def _metrics(benchmark: Benchmark) -> str:
    tolerance = "a tolerance" if benchmark.nsd_tolerance_mm is None else f"{benchmark.nsd_tolerance_mm:g} mm"
    slices = (
        " Per slice: DSC, sensitivity and precision of each slice along nnU-Net's slicing axis that holds the "
        "structure in the reference." if benchmark.slices else " Slices were not scored."
    )  # fmt: skip
    headers = (
        " Predictions and references were compared voxel by voxel, whatever their headers say."
        if benchmark.ignore_geometry else ""
    )  # fmt: skip
    return (
        "DSC = 2 TP / (2 TP + FP + FN), sensitivity = TP / (TP + FN), precision = TP / (TP + FP) over the voxels of a "
        "whole volume, for each label or region of dataset.json. HD95: the 95% Hausdorff distance in mm. NSD: the "
        f"normalised surface Dice, which counts surfaces at most {tolerance} apart as the same; both by surface area "
        f"(Nikolov et al., JMIR 2021).{slices}{headers} Fractions are "
        "shown in percent."
    )


def _empties(benchmark: Benchmark) -> str:
    diagonal = benchmark.empty == "diagonal"
    distance = "and HD95 is the image's diagonal" if diagonal else "and HD95 is undefined"
    caution = "" if diagonal else (
        " A system that misses a structure altogether has no HD95 there, which flatters its mean: read it with its n."
    )  # fmt: skip
    return (
        "Reference and prediction both empty: all is undefined, as nnU-Net has it. Only the reference empty: DSC, "
        "precision and NSD are 0, sensitivity and HD95 undefined. Only the prediction empty: DSC, sensitivity and NSD "
        f"are 0, precision is undefined, {distance}. Means are over defined values, and each says over how many of how "
        f"many; what is undefined is counted and listed below.{caution}"
    )


def _units(benchmark: Benchmark) -> str:
    averaged = (
        f"The {benchmark.repeats} repeats of a case are averaged first, since two trainings that predict one patient "
        "are not two patients. " if benchmark.repeats > 1 else ""
    )  # fmt: skip
    slices = (
        " Means and SDs per slice are over slices, but their intervals come from resampling whole cases, and their "
        "tests from each case's mean over its slices." if benchmark.slices else ""
    )  # fmt: skip
    return (
        f"{averaged}Statistics are over cases, with the validation cases of all folds taken together: folds are not "
        f"independent of each other, as their training sets overlap.{slices}"
    )


def _tests(benchmark: Benchmark) -> str:
    reference = (
        f"with {benchmark.reference}, the reference system" if benchmark.reference
        else "with the one that has the best mean (chosen on the same data, which favours it)"
    )  # fmt: skip
    return (
        f"Systems are compared {reference}, and with each other, on the cases that both have: Wilcoxon's signed-rank "
        "test on the paired values of cases, two-sided, zero differences by Pratt's method; exact for up to 50 pairs "
        "(with ties or zeros up to 13), else by the normal approximation. p-values are adjusted by Holm's procedure "
        "within a table's label and metric. Effect sizes: matched-pairs rank-biserial correlation r, from -1 to 1, and "
        "d_z, the mean difference over the SD of the differences. Fewer than six pairs cannot give p at most 0.05, "
        "however large the difference. The metric by which systems are ranked is "
        f"{benchmark.metric.title} per volume."
    )
