"""Answers of a language model, a JSON object a line, judged by type of question."""

import io
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from skcalib._tables import aligned
from skcalib._validation import (
    logits_of_options,
    names_twice,
    tokens_instead,
    warn_of_untold,
)
from skcalib.cli._errors import DataError
from skcalib.cli._options import Judging
from skcalib.cli._outcome import as_text
from skcalib.cli._rows import STANDARD_INPUT
from skcalib.metrics import CalibrationReport, calibration_report

# What is measured of (confidence, right) pairs, and what it is called.
MEASURED = {"ece": "ECE %", "brier": "Brier"}
WHOLE = "all"
# What answers without a type are called beside others.
NO_TYPE = "no type"


class Answer(NamedTuple):
    """What was answered: its type of question, its probability, and if it is right."""

    kind: str
    confidence: float
    is_right: bool
    # A few of the tokens told where none is of an option; None if none are asked for.
    missed: list[str] | None = None


@dataclass(frozen=True)
class JudgedAnswers:
    """Reports of all answers and of each type of question."""

    reports: dict[str, CalibrationReport]
    # Of each type, the share of right answers and the mean confidence.
    shares: dict[str, tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return numbers and texts, ready for JSON."""
        return {
            "types": {
                kind: {
                    **report.to_dict(),
                    "accuracy": self.shares[kind][0],
                    "mean_confidence": self.shares[kind][1],
                    "more_to_halve": more_to_halve(report),
                }
                for kind, report in self.reports.items()
            }
        }

    def __str__(self) -> str:
        whole = self.reports[WHOLE]
        rows = [["Type", "answers", "right %", "confidence %"]]
        for title in MEASURED.values():
            rows[0] += [title, "95 % interval"] if whole.n_bootstrap else [title]
        rows[0] += ["more to halve"] if whole.n_bootstrap else []
        for kind, report in self.reports.items():
            shares = [f"{100 * share:.1f}" for share in self.shares[kind]]
            row = [kind, f"{report.n_samples:,}", *shares]
            for metric in MEASURED:
                told = as_text(report, metric)
                row += told if whole.n_bootstrap else told[:1]
            row += [f"{more_to_halve(report):,}"] if whole.n_bootstrap else []
            rows.append(row)
        lines = aligned(rows)
        if whole.n_bootstrap:
            lines += [
                "",
                "An interval narrows with the root of the answers: the last column "
                "says how many",
                "more labelled ones of the type would make its intervals about half as "
                "wide.",
            ]
        return "\n".join(lines)


def more_to_halve(report: CalibrationReport) -> int:
    """Return how many answers more make the intervals about half as wide."""
    return 3 * report.n_samples


def judge_answers(path: Path, judging: Judging) -> JudgedAnswers:
    """Read and judge answers; the path - is standard input."""
    if path == STANDARD_INPUT:
        text = sys.stdin.buffer.read().decode("utf-8-sig", errors="replace")
        answers = read_answers(io.StringIO(text), "standard input")
    else:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            answers = read_answers(lines, str(path))
    kinds = list(dict.fromkeys(answer.kind for answer in answers))
    if kinds == [NO_TYPE]:
        kinds = []
    if WHOLE in kinds and kinds != [WHOLE]:
        raise DataError(
            f'{path}: a type is called "{WHOLE}", as the whole is. Rename it.'
        )
    groups = {kind: [a for a in answers if a.kind == kind] for kind in kinds}
    reports, shares = {}, {}
    for kind, group in {**groups, WHOLE: answers}.items():
        confidence = np.array([answer.confidence for answer in group])
        is_right = np.array([answer.is_right for answer in group])
        reports[kind] = calibration_report(
            is_right,
            confidence,
            pos_label="event",
            metrics=list(MEASURED),
            n_bins=judging.n_bins,
            n_bootstrap=judging.n_bootstrap,
            random_state=judging.seed,
        )
        shares[kind] = float(is_right.mean()), float(confidence.mean())
    return JudgedAnswers(reports, shares)


def read_answers(lines: Iterable[str], name: str) -> list[Answer]:
    """Read an answer from each line that is not blank; errors name the line."""
    answers = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                answers.append(_answer_of(line))
        except ValueError as error:
            raise DataError(f"{name}, line {number}: {error}") from error
    if not answers:
        raise DataError(f"{name} holds no answers, which are a JSON object a line.")
    warn_of_untold([a.missed for a in answers if a.missed is not None])
    return answers


def _answer_of(line: str) -> Answer:
    try:
        given = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is no JSON: {error}.") from error
    if not isinstance(given, dict):
        raise ValueError(f"a JSON object is needed, not {line.strip():.60}.")
    kind = given.get("type")
    kind = NO_TYPE if kind is None else str(kind)
    if {"logprobs", "answer"} <= given.keys():
        return Answer(kind, *_of_options(given))
    if {"confidence", "correct"} <= given.keys():
        return Answer(kind, *_of_pair(given["confidence"], given["correct"]))
    raise ValueError(
        f"it has {', '.join(given) or 'no fields'}; needed are logprobs and answer, or "
        "confidence and correct."
    )


def _of_pair(confidence: Any, correct: Any) -> tuple[float, bool]:
    if not _is_number(confidence) or not 0 <= confidence <= 1:
        raise ValueError(
            f"confidence is {confidence!r}; a number from 0 to 1 is needed."
        )
    if correct not in (0, 1):
        raise ValueError(f"correct is {correct!r}; true or false is needed.")
    return float(confidence), bool(correct)


def _of_options(given: dict[str, Any]) -> tuple[float, bool, list[str] | None]:
    """Return the largest probability of an option, if it is the answer's, and `missed`.

    An option that is a list is called by each of its tokens.
    """
    logprobs, answer = given["logprobs"], given["answer"]
    options = given.get("options")
    if options is None and isinstance(logprobs, Mapping):
        options = list(logprobs)
    if options is not None and not isinstance(options, list):
        raise ValueError(f"options is {options!r:.60}; a list is needed.")
    names = [
        tuple(map(str, option)) if isinstance(option, list) else (str(option),)
        for option in options or []
    ]
    if names_twice(name for tokens in names for name in tokens):
        raise ValueError(f"options is {options!r:.60}, which names one twice.")
    missed = None
    if isinstance(logprobs, Mapping):
        logits, missed = (
            logits_of_options(logprobs, names),
            tokens_instead(logprobs, names),
        )
    else:
        logits = _listed(logprobs, options)
    called = [k for k, tokens in enumerate(names) if str(answer) in tokens]
    if options is not None and answer in options:
        right = options.index(answer)
    elif called:
        right = called[0]
    elif type(answer) is int and 0 <= answer < len(logits):
        right = answer
    else:
        among = range(len(logits)) if options is None else options
        raise ValueError(
            f"the answer {answer!r} is none of the options, "
            f"{', '.join(map(str, among))}."
        )
    proba = softmax(logits)
    top = int(proba.argmax())
    return float(proba[top]), top == right, missed


def _listed(logprobs: Any, options: Any) -> Any:
    """Return the logits of a list, one for each option."""
    if not isinstance(logprobs, list) or not all(map(_is_number, logprobs)):
        raise ValueError(
            f"logprobs is {logprobs!r:.60}; a list of finite numbers, or an object of "
            "tokens and numbers, is needed."
        )
    if len(logprobs) < 2 or (options is not None and len(options) != len(logprobs)):
        n_options = "" if options is None else f" beside {len(options)} options"
        raise ValueError(
            f"there are {len(logprobs)} logprobs{n_options}; one for each of at least "
            "two options is needed."
        )
    return np.array(logprobs, dtype=float)


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Python's integers may exceed any float.
    return is_real and abs(value) <= sys.float_info.max
