"""Answers of a language model, a JSON object a line."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from scipy.special import softmax

pytest.importorskip("typer")

from skcalib.cli._answers import read_answers
from skcalib.metrics import calibration_report

QUICK = ("--n-bootstrap", 50)


@pytest.fixture
def lines():
    """Two types of question, the second with options of its own, and pairs."""
    rng = np.random.default_rng(0)
    told = []
    for k in range(300):
        z = rng.normal(0, 2, 2 + k % 3)
        answer = int(rng.choice(len(z), p=softmax(z / 2)))
        logprobs = np.log(softmax(z)).tolist()
        if k % 2:
            told.append({"type": "law", "logprobs": logprobs, "answer": answer})
        else:
            names = list("ABCD")[: len(z)]
            told.append(
                {
                    "id": k,
                    "type": "physics",
                    "options": names,
                    "logprobs": dict(zip(names, logprobs, strict=True)),
                    "answer": names[answer],
                }
            )
    pairs = rng.uniform(0.5, 1, 100)
    told += [
        {"type": "stated", "confidence": float(c), "correct": bool(rng.random() < c)}
        for c in pairs
    ]
    return told


@pytest.fixture
def answers_file(tmp_path, lines):
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return path


def pairs_of(lines):
    confidence, right = [], []
    for line in lines:
        if "confidence" in line:
            confidence.append(line["confidence"])
            right.append(line["correct"])
            continue
        logprobs, answer = line["logprobs"], line["answer"]
        if isinstance(logprobs, dict):
            answer = list(logprobs).index(answer)
            logprobs = list(logprobs.values())
        confidence.append(np.exp(max(logprobs)))
        right.append(int(np.argmax(logprobs)) == answer)
    return np.array(confidence), np.array(right)


def test_each_type_has_the_figures_of_its_pairs(skcalib, answers_file, lines):
    run = skcalib("evaluate", "--jsonl", answers_file, "--json", *QUICK)
    assert run.code == 0, run.err
    told = run.json["types"]
    assert list(told) == ["physics", "law", "stated", "all"]
    for kind, found in told.items():
        own = lines if kind == "all" else [x for x in lines if x["type"] == kind]
        confidence, right = pairs_of(own)
        report = calibration_report(
            right,
            confidence,
            pos_label="event",
            metrics=["ece", "brier"],
            n_bootstrap=50,
            random_state=0,
        )
        for name in ("ece", "brier"):
            assert found["metrics"][name] == pytest.approx(report[name]._asdict())
        assert found["accuracy"] == pytest.approx(right.mean())
        assert found["mean_confidence"] == pytest.approx(confidence.mean())
        assert found["more_to_halve"] == 3 * len(own)


def test_the_interval_is_half_as_wide_with_so_many_more(skcalib, tmp_path):
    rng = np.random.default_rng(1)
    widths = []
    for n in (500, 2000):
        path = tmp_path / f"{n}.jsonl"
        confidence = rng.uniform(0.5, 1, n)
        right = rng.random(n) < confidence - 0.2
        path.write_text(
            "\n".join(
                json.dumps({"confidence": float(c), "correct": bool(r)})
                for c, r in zip(confidence, right, strict=True)
            )
        )
        run = skcalib("evaluate", "--jsonl", path, "--json", "--n-bootstrap", 300)
        found = run.json["types"]["all"]
        widths.append(found["metrics"]["ece"]["high"] - found["metrics"]["ece"]["low"])
        if n == 500:
            assert n + found["more_to_halve"] == 2000
    assert widths[1] / widths[0] == pytest.approx(0.5, rel=0.25)


def test_a_table_has_a_line_a_type(skcalib, answers_file):
    out = skcalib("evaluate", "--jsonl", answers_file, *QUICK).out.splitlines()
    assert out[0].split()[:3] == ["Type", "answers", "right"]
    assert [line.split()[0] for line in out[1:5]] == ["physics", "law", "stated", "all"]
    assert out[1].split()[-1] == "450"
    bare = skcalib("evaluate", "--jsonl", answers_file, "--n-bootstrap", 0).out
    assert "interval" not in bare
    assert "[" not in bare


def test_answers_without_a_type_are_called_so_beside_others(skcalib, tmp_path):
    path = tmp_path / "answers.jsonl"
    bare = '{"confidence": 0.9, "correct": true}\n'
    typed, null = (bare.replace("}", f', "type": {t}}}') for t in ('"law"', "null"))
    kinds = {bare + null: ["all"], bare + typed + null: ["no type", "law", "all"]}
    for text, expected in kinds.items():
        path.write_text(text)
        run = skcalib("evaluate", "--jsonl", path, "--json", "--n-bootstrap", 0)
        assert list(run.json["types"]) == expected


@pytest.mark.slow
def test_answers_come_from_standard_input_too(answers_file):
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "skcalib", "evaluate", "--jsonl", "-", *map(str, QUICK)],
        input=answers_file.read_text(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "physics" in run.stdout


def test_answers_from_standard_input_may_begin_with_a_byte_order_mark(skcalib):
    lines = '{"confidence": 0.9, "correct": true}\n' * 20
    run = skcalib("evaluate", "--jsonl", "-", "--json", stdin=f"\ufeff{lines}")
    assert run.code == 0, run.err
    assert run.json["types"]["all"]["accuracy"] == 1


def test_options_that_are_not_told_have_a_share_of_the_rest(skcalib, tmp_path):
    path = tmp_path / "top.jsonl"
    top = {"A": np.log(0.7), "x": np.log(0.2)}
    line = {"options": ["A", "B"], "logprobs": top, "answer": "B"}
    path.write_text(json.dumps(line))
    run = skcalib("evaluate", "--jsonl", path, "--json", "--n-bootstrap", 0)
    assert run.json["types"]["all"]["mean_confidence"] == pytest.approx(0.7 / 0.8)
    assert run.json["types"]["all"]["accuracy"] == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: this is no JSON"),
        ("[1]", r"line 2: a JSON object is needed, not \[1\]"),
        ('{"id": 3}', "line 2: it has id; needed are logprobs and answer"),
        (
            '{"options": ["A", "A"], "logprobs": [-1, -2], "answer": "A"}',
            r"line 2: options is \['A', 'A'\], which names one twice",
        ),
        ('{"confidence": 70, "correct": 1}', "line 2: confidence is 70; .* 0 to 1"),
        ('{"confidence": 0.7, "correct": "yes"}', "line 2: correct is 'yes'"),
        ('{"logprobs": [-1], "answer": 0}', "line 2: there are 1 logprobs"),
        ('{"logprobs": [-1, NaN], "answer": 0}', "line 2: logprobs is .* finite"),
        ('{"logprobs": [-1, -2], "answer": 2}', "line 2: the answer 2 is none .* 0, 1"),
        ('{"logprobs": {"A": -1, "B": -2}, "answer": "C"}', "'C' is none .* A, B"),
        ('{"logprobs": {"A": 1, "B": -2}, "answer": "A"}', "line 2: The token 'A'"),
        (
            '{"logprobs": [-1, -2], "options": ["A"], "answer": "A"}',
            "line 2: there are 2 logprobs beside 1 options",
        ),
        ('{"logprobs": [-1, -2], "options": "AB", "answer": 0}', "options is 'AB'"),
        ('{"type": "all", "confidence": 1, "correct": 1}', 'a type is called "all"'),
    ],
)
def test_a_bad_line_is_named_by_its_number(refused, tmp_path, line, message):
    path = tmp_path / "answers.jsonl"
    path.write_text(
        '{"type": "law", "confidence": 0.5, "correct": true}\n' + line + "\n"
    )
    told = refused(1, "evaluate", "--jsonl", path)
    assert re.search(message, told)


def test_an_empty_file_and_another_source_are_refused(refused, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text("\n")
    assert "holds no answers" in refused(1, "evaluate", "--jsonl", path)
    logits = tmp_path / "logits.npy"
    told = refused(2, "evaluate", "--jsonl", path, "--logits", logits)
    assert "pass no other file" in told


@pytest.mark.parametrize("options", [["1", "2", "3"], [1, 2, 3]])
def test_an_answer_that_is_the_name_of_an_option_is_no_position(
    skcalib, tmp_path, options
):
    line = {"options": options, "logprobs": [-0.1, -3, -4], "answer": 1}
    (tmp_path / "a.jsonl").write_text((json.dumps(line) + "\n") * 20)
    run = skcalib("evaluate", "--jsonl", "a.jsonl", "--json")
    assert run.json["types"]["all"]["accuracy"] == 1


@pytest.mark.parametrize("answer", [1, "B", " B", ["B", " B"]])
def test_tokens_that_share_an_option_are_added(skcalib, tmp_path, answer):
    line = {
        "options": [["A", " A"], ["B", " B"]],
        "logprobs": {" B": -0.1, "B": -4.0, " A": -3.0},
        "answer": answer,
    }
    (tmp_path / "a.jsonl").write_text((json.dumps(line) + "\n") * 20)
    told = skcalib("evaluate", "--jsonl", "a.jsonl", "--json").json["types"]["all"]
    b, a = np.exp(-0.1) + np.exp(-4), np.exp(-3)
    assert told["accuracy"] == 1
    assert told["mean_confidence"] == pytest.approx(b / (a + b))


def test_options_none_of_which_is_told_are_warned_of():
    missed = '{"options": ["A", "B"], "logprobs": {" A": -0.1, " B": -3}, "answer": 0}'
    told = missed.replace('" A"', '"A"')
    with pytest.warns(UserWarning, match="the first tells ' A', ' B'"):
        read_answers([missed, missed], "a.jsonl")
    assert len(read_answers([missed, told], "a.jsonl")) == 2


def test_a_confidence_beyond_all_numbers_is_refused(skcalib, tmp_path):
    line = '{"confidence": 1' + "0" * 400 + ', "correct": true}'
    (tmp_path / "a.jsonl").write_text(line)
    run = skcalib("evaluate", "--jsonl", "a.jsonl")
    assert run.code == 1
    assert "Traceback" not in run.err
