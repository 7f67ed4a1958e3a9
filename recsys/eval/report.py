"""The report page: one HTML file that says how good the model is, and on what data.

`render_report` takes what report.json, the training log and the quality counts hold. The page
loads nothing from elsewhere and runs no script.
"""

from __future__ import annotations

from recsys.eval.item_map import ItemMap
from recsys.eval.report_examples import examples, item_map, mistakes
from recsys.eval.report_metrics import beyond_accuracy, metrics
from recsys.eval.report_models import read_models
from recsys.eval.report_numbers import count
from recsys.eval.report_predictions import predictions
from recsys.eval.report_quality import quality
from recsys.eval.report_result import result
from recsys.eval.report_segments import groups, segments
from recsys.eval.report_training import training
from recsys.page import facts, page, section


def render_report(
    report: dict, training_log: list[dict], quality_json: dict, items: ItemMap | None = None
) -> str:
    """The page for one evaluation, as HTML text.

    Args:
        report: the content of report.json. Only `models` is needed, and in it the segment `all`.
        training_log: rows of training and of validation, mixed; may be empty.
        quality_json: the content of quality.json. Only `tables` is shown; may be empty.
        items: the map of the items, left out where there is none.

    Raises:
        ValueError: there is no model, or one of them has no segment `all`.
    """
    models = read_models(report.get("models") or {})
    parts = [
        result(models, report.get("confidence") or {}),
        _facts(report),
        metrics(models),
        beyond_accuracy(models),
        segments(models),
        groups(models, report.get("fairness") or {}),
        predictions(report.get("heads") or {}),
        training(training_log),
        item_map(items) if items is not None else "",
        quality(quality_json.get("tables") or {}),
        mistakes(report.get("mistakes") or []),
        examples(report.get("examples") or []),
    ]
    return page("Recommender evaluation", "\n".join(part for part in parts if part))


def _facts(report: dict) -> str:
    known = {f"split {name}": value for name, value in (report.get("split") or {}).items()}
    known |= report.get("data") or {}
    cells = {name: count(value) for name, value in known.items()}
    return section("Evaluated on", facts(cells)) if cells else ""
