"""What an integration test gave: its table, and the bars that its Dice must reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean

from integration_steps import SCENARIOS, IntegrationTest, best_of, mean_dice, training_name, validation_dice

from nnunetv2_eccam.demo.progress import duration
from nnunetv2_eccam.files import written_whole

TITLES = {999: "labels", 998: "ignore label", 997: "regions", 996: "regions with ignore label"}

BAR = 0.3
"""What the mean Dice of every scenario, configuration and test set must reach.

A network that has learnt nothing calls everything background, which is a Dice of 0, or the like. This bar says that
a training has learnt, not how well; it need not see every mistake that lowers a Dice.
"""


def table(test: IntegrationTest, seconds: Mapping[str, float]) -> str:
    """Write the tables as Markdown; what is not there yet is left empty.

    Args:
        test: the test.
        seconds: of each finished step.
    """
    rows = [["scenario", *test.configurations, "best", "best, cross-validated", "test cases", "minutes"]]
    for scenario in test.scenarios:
        cells = [_mean_of_folds(test, scenario, configuration, seconds) for configuration in test.configurations]
        took = sum(value for name, value in seconds.items() if name.startswith(str(scenario)))
        rows.append([f"{scenario}, {TITLES[scenario]}", *cells, *_best(test, scenario, seconds), f"{took / 60:.1f}"])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join(["---"] * len(rows[0])) + " |")
    total = duration(sum(seconds.values()))
    n_steps = len(test.scenarios) * len(test.configurations) * len(test.folds)
    facts = (
        f"Mean foreground Dice of nnU-Net's validations, mean of the folds (lowest to highest). `{test.trainer}`, "
        f"{n_steps} trainings, {test.training_cases} training cases, {test.test_cases} test cases, seed {test.seed}; "
        f"{total} for all commands together."
    )
    return "\n".join([*lines, "", facts, ""])


def write_table(test: IntegrationTest, seconds: Mapping[str, float], target: Path) -> None:
    """Write the tables into a file, whole or not at all."""
    with written_whole(target) as partial:
        partial.write_text(table(test, seconds), encoding="utf-8")


def failures(test: IntegrationTest) -> Iterator[str]:
    """Name every Dice below the bar.

    Args:
        test: the test, all of whose steps are done.
    """
    for scenario in test.scenarios:
        found = {
            configuration: mean(validation_dice(test.model(scenario, configuration) / f"fold_{f}") for f in test.folds)
            for configuration in test.configurations
        }
        found["the test cases"] = mean_dice(test.predictions(scenario) / "OUTPUT_FOLDER_PP" / "summary.json")
        for what, dice in found.items():
            if dice < BAR:
                yield f"{SCENARIOS[scenario]}: Dice of {what} is {dice:.3f}, below {BAR}"
        best = best_of(test, scenario)["best_model_or_ensemble"]
        if best["result_on_crossval_pre_pp"] < BAR:
            yield f"{SCENARIOS[scenario]}: the best model's Dice is {best['result_on_crossval_pre_pp']:.3f}"


def _mean_of_folds(test: IntegrationTest, scenario: int, configuration: str, seconds: Mapping[str, float]) -> str:
    names = {fold: training_name(scenario, configuration, fold) for fold in test.folds}
    if not all(name in seconds for name in names.values()):
        return ""
    dice = [validation_dice(test.model(scenario, configuration) / f"fold_{fold}") for fold in names]
    return f"{mean(dice):.3f} ({min(dice):.3f} to {max(dice):.3f})"


def _best(test: IntegrationTest, scenario: int, seconds: Mapping[str, float]) -> tuple[str, str, str]:
    """Give the chosen models, their cross-validated Dice before and after postprocessing, and the test cases' Dice."""
    if f"{scenario} find best" not in seconds:
        return "", "", ""
    best = best_of(test, scenario)["best_model_or_ensemble"]
    models = " + ".join(model["configuration"] for model in best["selected_model_or_models"])
    validated = f"{best['result_on_crossval_pre_pp']:.3f}, postprocessed {best['result_on_crossval_post_pp']:.3f}"
    if f"{scenario} predict" not in seconds:
        return models, validated, ""
    return models, validated, f"{mean_dice(test.predictions(scenario) / 'OUTPUT_FOLDER_PP' / 'summary.json'):.3f}"
