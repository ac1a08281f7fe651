"""The code blocks of the documentation that need other packages, run as written."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import log_loss
from streams import draw_stream

DOCS = Path(__file__).parents[2] / "docs"
# Of other packages, which are not at the newest of everything.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def tell_nobody(monkeypatch):
    """Switch off the counting of users by NannyML and evidently."""
    monkeypatch.setenv("NML_DISABLE_USAGE_LOGGING", "1")
    monkeypatch.setenv("DO_NOT_TRACK", "1")


def recipe(package, page="monitoring.rst"):
    """Run the code block that imports a package; return its names."""
    pytest.importorskip(package, exc_type=ImportError)
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)", text)
    (block,) = (
        b for b in blocks if re.search(rf"^   (from|import) {package}", b, re.M)
    )
    names = {}
    exec(textwrap.dedent(block), names)  # noqa: S102 - a page of ours
    return names


def test_a_model_of_river_is_watched_as_it_learns():
    watched_by = recipe("river")["Watched"]
    from river import linear_model, optim

    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 2))
    y = rng.random(2000) < 1 / (1 + np.exp(-X.sum(axis=1)))
    rows = list(zip(map(dict, map(enumerate, X.tolist())), y.tolist(), strict=True))
    # A rate this high leaves the weights too large, and the model too sure of itself.
    found = {}
    for rate in (0.02, 2.0):
        model = linear_model.LogisticRegression(optim.SGD(rate))
        for row, label in rows[:1500]:
            model.learn_one(row, label)
        watched = watched_by(model, [False, True])
        for row, label in rows[1500:]:
            watched.learn_one(row, label)
        found[rate] = watched.monitor.alarm_
    assert found == {0.02: False, 2.0: True}


def test_nannyml_estimates_by_a_calibrator_of_skcalib():
    estimator_of = recipe("nannyml")["estimator_of"]
    import pandas

    rng = np.random.default_rng(0)
    y, proba = draw_stream(rng, 6000, 2, factor=2.0)
    frame = pandas.DataFrame({"p": proba[:, 1], "told": proba.argmax(1), "y": y})
    reference, served = frame[:3000], frame[3000:].reset_index(drop=True)
    estimator = estimator_of(
        y_true="y",
        y_pred="told",
        y_pred_proba="p",
        problem_type="classification_binary",
        metrics=["accuracy"],
        chunk_size=1000,
    )
    found = estimator.fit(reference).estimate(served).filter(period="analysis")
    estimated = found.to_df()["accuracy", "value"].mean()
    assert estimated == pytest.approx((served.told == served.y).mean(), abs=0.02)
    assert proba.max(axis=1).mean() - estimated > 0.05


def test_evidence_is_a_metric_of_evidently():
    evidence = recipe("evidently")["CalibrationEvidence"]
    import pandas
    from evidently import Dataset, Report

    names = ["a", "b", "c"]
    report = Report([evidence(target="y", columns=names)], include_tests=True)
    for factor, outcome in ((1.0, "SUCCESS"), (1.6, "FAIL")):
        y, proba = draw_stream(np.random.default_rng(0), 1000, 3, factor=factor)
        frame = pandas.DataFrame(proba, columns=names).assign(y=y)
        run = report.run(Dataset.from_pandas(frame)).dict()
        assert (run["metrics"][0]["value"] > np.log(20)) == (outcome == "FAIL")
        assert run["tests"][0]["status"].name == outcome


def test_what_imbalanced_learn_has_sampled_is_corrected():
    found = recipe("imblearn", "prior_shift.rst")
    y, scores = found["y_test"], found["model"].decision_function(found["X_test"])
    as_sampled = found["model"].predict_proba(found["X_test"])
    assert as_sampled[:, 1].mean() > 3 * y.mean()
    assert found["proba"][:, 1].mean() == pytest.approx(y.mean(), abs=0.01)
    counted = found["shift"].set_params(sampling_priors=None)
    counted.fit(found["model"].decision_function(found["X_even"]), found["y_even"])
    assert_allclose(counted.predict_proba(scores), found["proba"], atol=1e-9)
    losses = [log_loss(y, proba) for proba in (as_sampled, found["proba"])]
    assert losses[1] < losses[0] / 2
