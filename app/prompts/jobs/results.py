"""What a job that improved prompts tells of them."""

from dataclasses import asdict
from typing import Any

from app.prompts.evaluation.gate import Evaluation, Trial
from app.prompts.jobs.improving import Improvement
from app.prompts.jobs.storing import Stored

NOT_STORED = "the prompt came with the request, so nothing is stored"


def result_of(new: Improvement, stored: Stored | None) -> dict[str, Any]:
    """Return what came of one prompt; `stored` is None where nothing was to be stored."""
    return {
        "name": new.prompt.name,
        "outcome": new.outcome,
        "changed": new.text != new.prompt.text,
        "text": new.text,
        "analysis": new.analysis,
        "reason": stored.reason if stored and stored.reason else new.reason,
        "diff": new.diff,
        "based_on": new.prompt.version,
        "version": stored and stored.version,
        "labels": list(stored.labels) if stored else [],
        "evaluation": new.evaluation
        and {
            **_evaluation(new.evaluation),
            "promoted": bool(stored and stored.promoted),
            "not_promoted_reason": stored.not_promoted_reason if stored else NOT_STORED,
        },
    }


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "cases_won": evaluation.count("win"),
        "cases_lost": evaluation.count("loss"),
        "cases_tied": evaluation.count("tie"),
        "net_win_rate": evaluation.net_win_rate,
        "margin": evaluation.margin,
        "passed": evaluation.passed,
        "cases": [_trial(trial) for trial in evaluation.trials],
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "outcome": trial.outcome,
        "answers": {side: asdict(answer) for side, answer in trial.answers.items()},
        "verdicts": [asdict(verdict) for verdict in trial.verdicts],
    }
