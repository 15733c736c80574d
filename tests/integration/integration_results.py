"""What an integration test gave: its table, and the bars that its Dice must reach."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean

from integration_steps import SCENARIOS, IntegrationTest, best_of, mean_dice, validation_dice

TITLES = {999: "labels", 998: "ignore label", 997: "regions", 996: "regions with ignore label"}

BAR = 0.3
"""What the mean Dice of every scenario, configuration and test set must reach.

A network that has learnt nothing calls everything background, which is a Dice of 0, or the like. This bar says that
a training has learnt, not how well; it need not see every mistake that lowers a Dice.
"""


def table(test: IntegrationTest) -> str:
    """Write the table as Markdown; what is not there yet is left empty."""
    rows = [["scenario", *test.configurations, "best", "best, cross-validated", "test cases"]]
    for scenario in test.scenarios:
        cells = [_mean_of_folds(test, scenario, configuration) for configuration in test.configurations]
        rows.append([f"{scenario}, {TITLES[scenario]}", *cells, *_best(test, scenario)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join(["---"] * len(rows[0])) + " |")
    n_trainings = len(test.scenarios) * len(test.configurations) * len(test.folds)
    facts = (
        f"Mean foreground Dice of nnU-Net's validations, mean of the folds (lowest to highest). `{test.trainer}`, "
        f"{n_trainings} trainings, "
        f"{test.training_cases} training cases, {test.test_cases} test cases, seed {test.seed}."
    )
    return "\n".join([*lines, "", facts, ""])


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


def _mean_of_folds(test: IntegrationTest, scenario: int, configuration: str) -> str:
    folds = [test.model(scenario, configuration) / f"fold_{fold}" for fold in test.folds]
    if not all((fold / "validation" / "summary.json").is_file() for fold in folds):
        return ""
    dice = [validation_dice(fold) for fold in folds]
    return f"{mean(dice):.3f} ({min(dice):.3f} to {max(dice):.3f})"


def _best(test: IntegrationTest, scenario: int) -> tuple[str, str, str]:
    """Give the chosen models, their cross-validated Dice before and after postprocessing, and the test cases' Dice."""
    if not (test.results(scenario) / "inference_information.json").is_file():
        return "", "", ""
    best = best_of(test, scenario)["best_model_or_ensemble"]
    models = " + ".join(model["configuration"] for model in best["selected_model_or_models"])
    validated = f"{best['result_on_crossval_pre_pp']:.3f}, postprocessed {best['result_on_crossval_post_pp']:.3f}"
    summary = test.predictions(scenario) / "OUTPUT_FOLDER_PP" / "summary.json"
    return models, validated, f"{mean_dice(summary):.3f}" if summary.is_file() else ""
