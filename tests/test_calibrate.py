import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import DataConversionWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, GroupKFold, RandomizedSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

import skcalib
from skcalib import (
    CalibratedClassifier,
    DenseCalibration,
    GroupCalibration,
    IsotonicCalibration,
    MultiLabelCalibration,
    OptionCalibration,
    PlattScaling,
    TemperatureScaling,
    VectorScaling,
    as_rows,
    calibrate,
    logits_from_proba,
)
from skcalib.datasets import load_demo, make_logits
from skcalib.exceptions import AbsentClassWarning, ProbabilitiesAsLogitsWarning
from skcalib.metrics import calibration_report
from skcalib.model_selection import CalibratorSearch, compare_calibrators

LOGITS, Y = make_logits(600, 4, random_state=0)
QUICK = {"calibrator": TemperatureScaling(), "n_bootstrap": 0}


def test_logits_give_a_calibrator_fitted_on_all_of_them():
    result = calibrate(logits=LOGITS, y=Y, **QUICK)
    alone = TemperatureScaling().fit(LOGITS, Y)
    assert_allclose(result.predict_proba(LOGITS), alone.predict_proba(LOGITS))
    assert_array_equal(result.predict(LOGITS), alone.predict(LOGITS))


def test_the_figures_are_those_of_samples_that_were_not_fitted_on():
    # Strict isotonic regression knows by heart what it was fitted on.
    strict = IsotonicCalibration(method="strict")
    result = calibrate(logits=LOGITS, y=Y, calibrator=strict, n_bootstrap=0)
    held_out = result.held_out
    assert held_out.how == "600 samples, cross-fitted in 5 folds"
    assert_allclose(held_out.before, softmax(LOGITS, axis=1))
    seen = calibration_report(Y, result.predict_proba(LOGITS), n_bootstrap=0)
    assert result.report["after"]["nll"].value > seen["nll"].value + 0.01
    again = calibration_report(held_out.labels, held_out.after, n_bootstrap=0)
    assert again["ece"] == result.report["after"]["ece"]


def test_shares_of_classes_that_are_learned_by_chance_are_no_gain():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (300, 50))
    true = softmax(logits, axis=1)
    y = (true.cumsum(axis=1) > rng.random((300, 1))).argmax(axis=1)
    # Of six rows a class it learns how many there happen to be.
    offsets = VectorScaling()
    report = calibrate(logits=logits, y=y, calibrator=offsets, n_bootstrap=0).report
    assert report["after"]["nll"].value > report["before"]["nll"].value + 0.01


def test_probabilities_are_told_by_their_name():
    proba = softmax(LOGITS, axis=1)
    result = calibrate(proba=proba, y=Y, **QUICK)
    alone = TemperatureScaling().fit(logits_from_proba(proba), Y)
    expected = alone.predict_proba(logits_from_proba(proba))
    assert_allclose(result.predict_proba(proba), expected)
    assert_allclose(result.held_out.before, proba, atol=1e-11)
    with pytest.warns(ProbabilitiesAsLogitsWarning) as told:
        calibrate(logits=proba, y=Y, **QUICK)
    assert len(told) == 1


def test_what_was_fitted_to_probabilities_takes_any_logits_of_them():
    proba = softmax(LOGITS, axis=1)
    result = calibrate(proba=proba, y=Y, calibrator=VectorScaling(), n_bootstrap=0)
    expected = result.predict_proba(proba)
    assert_allclose(result.calibrator.predict_proba(LOGITS + 5), expected, atol=1e-5)


def test_a_single_column_stays_one_and_labels_are_any():
    logits, y = make_logits(300, 2, random_state=0)
    log_odds = logits[:, 1] - logits[:, 0]
    labels = np.array(["no", "yes"])[y]
    platt = PlattScaling()
    result = calibrate(logits=log_odds, y=labels, calibrator=platt, n_bootstrap=0)
    assert result.classes_.tolist() == ["no", "yes"]
    assert result.predict([5.0, -5.0]).tolist() == ["yes", "no"]


def test_columns_of_a_data_frame_name_the_classes():
    pandas = pytest.importorskip("pandas")
    names = ["d", "a", "c", "b"]
    frame = pandas.DataFrame(LOGITS, columns=names)
    labels = np.array(names)[Y]
    result = calibrate(logits=frame, y=labels, **QUICK)
    assert result.classes_.tolist() == names
    assert result.predict(frame)[0] == names[LOGITS[0].argmax()]


def test_a_classifier_is_cross_fitted_and_judged_by_a_part_held_out():
    X, y = load_digits(return_X_y=True)
    result = calibrate(GaussianNB(), X, y, **QUICK)
    alone = CalibratedClassifier(GaussianNB(), TemperatureScaling(), cv=5).fit(X, y)
    assert isinstance(result.model, CalibratedClassifier)
    assert_allclose(result.predict_proba(X), alone.predict_proba(X))
    assert result.held_out.how.startswith("360 samples that a first fit to the other")
    before, after = (result.report[when]["nll"].value for when in ("before", "after"))
    assert after < before


@pytest.mark.parametrize("freeze", [False, True])
def test_a_fitted_classifier_is_left_as_it_is(freeze):
    X, y = load_digits(return_X_y=True)
    forest = RandomForestClassifier(20, random_state=0).fit(X[:900], y[:900])
    given = FrozenEstimator(forest) if freeze else forest
    result = calibrate(given, X[900:], y[900:], **QUICK)
    assert result.held_out.how == "897 samples, cross-fitted in 5 folds"
    assert_allclose(result.held_out.before, forest.predict_proba(X[900:]))
    own = result.model.estimators_[0]
    assert_array_equal(own.predict(X), forest.predict(X))


def test_a_classifier_without_probabilities_is_judged_by_its_scores_before():
    X, y = load_iris(return_X_y=True)
    result = calibrate(LinearSVC(), X, y, **QUICK)
    assert_allclose(result.held_out.before.sum(axis=1), 1)
    assert result.predict_proba(X).shape == (150, 3)


def test_a_classifier_takes_data_frames_and_texts_as_labels():
    pandas = pytest.importorskip("pandas")
    data = load_iris(as_frame=True)
    names = pandas.Series(data.target_names[data.target])
    result = calibrate(LogisticRegression(max_iter=500), data.data, names, **QUICK)
    assert result.predict(data.data.iloc[:1]).tolist() == ["setosa"]


def test_a_torch_module_is_run_on_a_loader_that_holds_the_labels():
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    module = torch.nn.Linear(4, 4)
    with torch.no_grad():
        module.weight.copy_(torch.eye(4))
        module.bias.zero_()
    X = LOGITS.astype(np.float32)
    pairs = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    of_loader = calibrate(module, DataLoader(pairs, batch_size=64), **QUICK)
    of_array = calibrate(module, X, Y, **QUICK)
    assert_allclose(of_loader.predict_proba(X), of_array.predict_proba(X))
    needed = r'Linear, which is no ONNX file.*torch\.onnx\.export.*model="model.onnx"\)'
    with pytest.raises(ValueError, match=needed):
        of_loader.save("calibrated.onnx")
    with pytest.raises(TypeError, match=needed):
        of_loader.save("calibrated.onnx", model=module)
    with pytest.raises(ValueError, match="requires y"):
        calibrate(module, X, **QUICK)


def test_an_onnx_model_is_written_with_its_calibration(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    demo = load_demo()
    result = calibrate(demo.model, demo.X_calibration, demo.y_calibration, **QUICK)
    result.save(tmp_path / "calibrated.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "calibrated.onnx")
    proba = session.run(None, {session.get_inputs()[0].name: demo.X_test[:20]})[0]
    assert_allclose(proba, result.predict_proba(demo.X_test[:20]), atol=1e-5)
    with pytest.raises(FileExistsError):
        result.save(tmp_path / "calibrated.onnx")


@pytest.mark.parametrize("link", [False, True])
def test_a_model_is_not_written_over(tmp_path, link):
    pytest.importorskip("onnxruntime")
    demo = load_demo()
    path = tmp_path / "network.onnx"
    path.write_bytes(Path(demo.model).read_bytes())
    (tmp_path / "link.onnx").symlink_to(path)
    result = calibrate(path, demo.X_calibration, demo.y_calibration, **QUICK)
    with pytest.raises(ValueError, match="the model itself"):
        result.save(tmp_path / "link.onnx" if link else path, overwrite=True)
    assert path.read_bytes() == Path(demo.model).read_bytes()


def linear_onnx(classifier, post_transform):
    """What skl2onnx makes of a linear classifier."""
    onnx = pytest.importorskip("onnx")
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    n_classes, n_features = classifier.coef_.shape
    nodes = [
        make(
            "LinearClassifier",
            ["X"],
            ["label", "scores"],
            domain="ai.onnx.ml",
            coefficients=classifier.coef_.ravel().tolist(),
            intercepts=classifier.intercept_.tolist(),
            classlabels_ints=classifier.classes_.tolist(),
            post_transform=post_transform,
        ),
        make("Normalizer", ["scores"], ["proba"], domain="ai.onnx.ml", norm="L1"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "linear",
        [info("X", 1, [None, n_features])],
        [info("label", 7, [None]), info("proba", 1, [None, n_classes])],
    )
    ids = [onnx.helper.make_opsetid(*i) for i in (("", 17), ("ai.onnx.ml", 3))]
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=ids)


def proba_of(model, X):
    content = (
        model.read_bytes() if isinstance(model, Path) else model.SerializeToString()
    )
    session = pytest.importorskip("onnxruntime").InferenceSession(content)
    return session.run(["proba"], {"X": X.astype(np.float32)})[0]


def test_a_classifier_whose_file_serves_other_probabilities_is_refused(tmp_path):
    export = pytest.importorskip("skcalib.export")
    X, y = load_iris(return_X_y=True)
    linear = SGDClassifier(loss="log_loss", random_state=0).fit(X[::2], y[::2])
    result = calibrate(linear, X[1::2], y[1::2], **QUICK)
    path = tmp_path / "linear.onnx"
    model = linear_onnx(linear, "LOGISTIC")
    advice = re.escape(
        "CalibratedClassifier(FrozenEstimator(classifier), calibrator, "
        'method="predict_proba").fit(X, y)'
    )
    with pytest.raises(ValueError, match=advice):
        result.save(path, model=model)
    assert not path.exists()
    advised = CalibratedClassifier(
        FrozenEstimator(linear), TemperatureScaling(), method="predict_proba"
    ).fit(X[1::2], y[1::2])
    served = export.calibrate_onnx_model(model, advised.calibrators_[0])
    # In single precision saturated scores are off by more than others.
    assert_allclose(proba_of(served, X), advised.predict_proba(X), atol=1e-2)
    logistic = LogisticRegression().fit(X[::2], y[::2])
    result = calibrate(logistic, X[1::2], y[1::2], **QUICK)
    result.save(path, model=linear_onnx(logistic, "SOFTMAX"))
    assert_allclose(proba_of(path, X), result.predict_proba(X), atol=1e-6)


def test_a_file_that_takes_other_inputs_is_written_but_not_compared(tmp_path):
    X, y = load_iris(return_X_y=True)
    linear = LogisticRegression().fit(X[::2], y[::2])
    whole = make_pipeline(
        FunctionTransformer(lambda X: X[:, :4]), FrozenEstimator(linear)
    )
    whole.fit(np.hstack([X, X]), y)
    result = calibrate(whole, np.hstack([X, X]), y, **QUICK)
    with pytest.warns(UserWarning, match="could not be run on X"):
        result.save(tmp_path / "linear.onnx", model=linear_onnx(linear, "SOFTMAX"))
    assert (tmp_path / "linear.onnx").exists()


def test_the_calibration_of_logits_is_written_alone(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    result = calibrate(logits=LOGITS, y=Y, **QUICK)
    result.save(tmp_path / "alone.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "alone.onnx")
    proba = session.run(["probabilities"], {"logits": LOGITS.astype(np.float32)})[0]
    assert_allclose(proba, result.predict_proba(LOGITS), atol=1e-6)


def test_the_calibrator_is_written_as_json(tmp_path):
    result = calibrate(logits=LOGITS, y=Y, **QUICK)
    result.save(tmp_path / "calibrator.json")
    assert json.loads((tmp_path / "calibrator.json").read_text())["version"]
    again = skcalib.load(tmp_path / "calibrator.json")
    assert_allclose(again.predict_proba(LOGITS), result.predict_proba(LOGITS))
    with pytest.raises(ValueError, match=r"ends in '\.pt'.*joblib\.dump\(result, "):
        result.save(tmp_path / "calibrator.pt")


def test_what_is_printed_says_how_it_was_judged():
    result = calibrate(
        logits=LOGITS, y=Y, calibrator=TemperatureScaling(), n_bootstrap=20
    )
    text, html = repr(result), result._repr_html_()
    assert text.startswith("TemperatureScaling(), judged on 600 samples, cross-fitted")
    assert "before" in text
    assert "Log loss" in text
    assert "After calibration it is" in " ".join(text.split())
    assert html.count("<tr>") == 1 + len(result.report["after"])
    assert "<caption>TemperatureScaling(), judged on 600 samples" in html
    # A disc a bin with samples; bytes that are drawn load nothing.
    edges = np.linspace(0, 1, 16)[1:-1]
    held = (result.held_out.before, result.held_out.after)
    bins = [np.unique(np.searchsorted(edges, p.max(axis=1))).size for p in held]
    assert html.count("<circle") == sum(bins)
    assert "http" not in html


@pytest.mark.parametrize("given", ["classifier", "logits", "proba"])
@pytest.mark.parametrize(
    ("calibrator", "name"),
    [
        (skcalib.ProbabilityFloor(), "ProbabilityFloor()"),
        (
            skcalib.ProbabilityFloor(VectorScaling()),
            "ProbabilityFloor(calibrator=VectorScaling())",
        ),
        (VectorScaling(), "VectorScaling()"),
    ],
)
def test_what_is_printed_names_the_calibrator_that_was_passed(calibrator, name, given):
    options = {"calibrator": calibrator, "n_bootstrap": 0}
    if given == "classifier":
        result = calibrate(GaussianNB(), *load_iris(return_X_y=True), **options)
    else:
        rows = LOGITS if given == "logits" else softmax(LOGITS, axis=1)
        result = calibrate(**{given: rows}, y=Y, **options)
    assert repr(result).startswith(f"{name}, judged on ")
    assert f"<caption>{name}, judged on " in result._repr_html_()


def test_progress_is_told_by_fold(capsys):
    calibrate(logits=LOGITS, y=Y, verbose=1, **QUICK)
    assert "[calibrate] fold 5 of 5" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_figures():
    first, second = (
        calibrate(logits=LOGITS, y=Y, calibrator=TemperatureScaling(), n_bootstrap=20)
        for _ in range(2)
    )
    assert repr(first) == repr(second)


def test_what_is_missing_or_too_much_is_named():
    with pytest.raises(TypeError, match=r"exactly one .* got \['logits', 'proba'\]"):
        calibrate(logits=LOGITS, proba=LOGITS, y=Y)
    with pytest.raises(TypeError, match="got none"):
        calibrate(X=LOGITS, y=Y)
    with pytest.raises(TypeError, match=r"a ndarray.*logits=\.\.\. or proba="):
        calibrate(LOGITS, Y)
    with pytest.raises(TypeError, match="none beside logits"):
        calibrate(X=LOGITS, logits=LOGITS, y=Y)
    with pytest.raises(TypeError, match="a classifier knows its own"):
        calibrate(GaussianNB(), LOGITS, Y, classes=[3, 2, 1, 0])
    with pytest.raises(TypeError, match="Pass X and y"):
        calibrate(GaussianNB(), LOGITS)
    with pytest.raises(ValueError, match="are they swapped"):
        calibrate(logits=Y, y=LOGITS)
    with pytest.raises(ValueError, match=r"shares .* or logits_from_proba\(proba\)"):
        calibrate(proba=softmax(LOGITS, axis=1), y=np.full((600, 4), 0.25))
    lone = np.zeros(600, dtype=int)
    lone[0] = 1
    with pytest.raises(ValueError, match="one class only to fit on, 0"):
        calibrate(logits=LOGITS[:, :2], y=lone, **QUICK)


@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_what_scikit_learn_transforms_to_has_no_influence(output):
    proba, is_large = softmax(LOGITS, axis=1), (Y > 1).astype(int)
    asked = [
        lambda: calibrate(proba=proba, y=Y, **QUICK).predict_proba(proba),
        lambda: calibrate(LinearSVC(), LOGITS, is_large, **QUICK).predict_proba(LOGITS),
    ]
    for ask in asked:
        with config_context(transform_output=output):
            found = ask()
        assert_array_equal(found, ask())


@pytest.mark.torch
def test_the_calibrator_of_a_network_has_no_names_of_a_frame():
    torch = pytest.importorskip("torch")
    pytest.importorskip("pandas")
    rows = LOGITS.astype(np.float32)
    with config_context(transform_output="pandas"):
        result = calibrate(torch.nn.Linear(4, 4), rows, Y, **QUICK)
    assert not hasattr(result.calibrator, "feature_names_in_")
    result.predict_proba(rows)


@pytest.mark.parametrize("n_rows", [1, 12])
@pytest.mark.parametrize("fitted", [True, False])
def test_a_classifier_is_not_judged_by_one_class(fitted, n_rows):
    model = GaussianNB().fit(LOGITS, Y) if fitted else GaussianNB()
    with pytest.raises(ValueError, match="one class only: 2"):
        calibrate(model, LOGITS[:n_rows], np.full(n_rows, 2), **QUICK)


@pytest.mark.parametrize("fitted", [True, False])
def test_a_column_of_labels_is_read_and_a_missing_label_refused(fitted):
    pandas = pytest.importorskip("pandas")
    names = np.array(list("abcd"))[Y]
    model = GaussianNB().fit(LOGITS, names) if fitted else GaussianNB()
    expected = calibrate(model, LOGITS, names, **QUICK).predict_proba(LOGITS)
    frame = pandas.DataFrame({"y": names})
    with pytest.warns(DataConversionWarning, match="column-vector y was passed"):
        found = calibrate(model, LOGITS, frame, **QUICK)
    assert_array_equal(found.predict_proba(LOGITS), expected)
    for dtype in ("object", "str"):
        labels = frame["y"].astype(dtype)
        labels[3] = None
        with pytest.raises(ValueError, match=r"y holds (None|nan) in row 3"):
            calibrate(model, LOGITS, labels, **QUICK)


def test_an_absent_class_is_told_of_once():
    X, y = LOGITS[Y != 2], Y[Y != 2]
    with pytest.warns(AbsentClassWarning, match="1 of 4 classes: 2") as told:
        calibrate(logits=X, y=y, calibrator=PlattScaling(), n_bootstrap=0)
    assert len(told) == 1
    model = GaussianNB().fit(LOGITS, Y)
    with pytest.warns(AbsentClassWarning) as told:
        calibrate(model, X, y, calibrator=PlattScaling(), n_bootstrap=0)
    assert len(told) == 1


def test_a_loader_is_no_input_of_an_onnx_model():
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    data = torch.utils.data.TensorDataset(torch.zeros(4, 4), torch.arange(4))
    loader = torch.utils.data.DataLoader(data)
    with pytest.raises(TypeError, match=r"X is a DataLoader, .* stack its"):
        calibrate(load_demo().model, loader, [0, 1, 2, 3], **QUICK)


def test_a_network_whose_inputs_are_changed_is_fitted_by_itself():
    pytest.importorskip("torch")
    from skcalib import NeuralClamping

    with pytest.raises(TypeError, match=r"NeuralClamping .* its own fit"):
        calibrate("model.onnx", LOGITS, Y, calibrator=NeuralClamping("model.onnx"))


def test_calibrators_of_other_layouts_are_refused_by_name():
    rng = np.random.default_rng(0)
    options = [rng.normal(size=2 + row % 3) for row in range(20)]
    dense = rng.normal(size=(5, 3, 4, 4))
    for X, y, calibrator, message in (
        (LOGITS, np.eye(4)[Y], MultiLabelCalibration(), "multilabel=True"),
        (
            options,
            np.zeros(20),
            OptionCalibration(),
            r"skcalib\.pad_options\(X\) gives",
        ),
        (dense, dense.argmax(1), DenseCalibration(), r"skcalib\.as_rows\(X, y\) gives"),
    ):
        name = type(calibrator).__name__
        message = rf"{name}.* directly, {name}\(\)\.fit\(X, y\).*{message}"
        with pytest.raises(TypeError, match=message):
            calibrate(logits=X, y=y, calibrator=calibrator)
        with pytest.raises(TypeError, match=message):
            compare_calibrators([calibrator], X, y)


def test_calibrators_of_other_layouts_take_a_matrix():
    for calibrator in (OptionCalibration(), DenseCalibration()):
        result = calibrate(logits=LOGITS, y=Y, calibrator=calibrator, n_bootstrap=0)
        expected = calibrator.fit(LOGITS, Y).predict_proba(LOGITS)
        assert_allclose(result.predict_proba(LOGITS), expected)


# Searches of scikit-learn.

GAMMAS = {"objective": ["focal"], "gamma": [0.5, 1.0, 8.0]}


def search_of(calibrator=None, grid=GAMMAS, **options):
    options = {"scoring": "neg_log_loss", "cv": 3, **options}
    return GridSearchCV(calibrator or TemperatureScaling(), grid, **options)


def test_a_search_of_scikit_learn_gives_the_calibrator_that_it_chooses(tmp_path):
    names = np.array(list("abcd"))
    result = calibrate(logits=LOGITS, y=names[Y], calibrator=search_of(), n_bootstrap=0)
    alone = search_of(TemperatureScaling(classes=names)).fit(LOGITS, names[Y])
    assert result.calibrator.gamma == alone.best_params_["gamma"] == 0.5
    assert_allclose(result.predict_proba(LOGITS), alone.predict_proba(LOGITS))
    assert result.classes_.tolist() == names.tolist()
    assert "gamma=0.5" in repr(result)
    result.save(tmp_path / "calibrator.json")
    again = skcalib.load(tmp_path / "calibrator.json")
    assert_allclose(again.predict_proba(LOGITS), alone.predict_proba(LOGITS))


@pytest.mark.parametrize("is_fitted", [True, False])
def test_a_search_calibrates_a_classifier(is_fitted):
    X, y = load_iris(return_X_y=True)
    model = GaussianNB().fit(X, y) if is_fitted else GaussianNB()
    grid = {"calibrator__gamma": [0.5, 2.0]}
    nested = skcalib.ProbabilityFloor(TemperatureScaling(objective="focal"))
    search = RandomizedSearchCV(
        nested, grid, n_iter=2, scoring="neg_log_loss", cv=2, random_state=0
    )
    result = calibrate(model, X, y, calibrator=search, n_bootstrap=0)
    assert result.calibrator.calibrator.gamma in (0.5, 2.0)
    assert result.predict_proba(X).shape == (150, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scoring": None}, "without scoring compares accuracy"),
        ({"refit": False}, "with refit=False keeps no calibrator"),
    ],
)
def test_a_search_that_chooses_nothing_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        calibrate(logits=LOGITS, y=Y, calibrator=search_of(**options))


def test_a_frozen_calibrator_is_named_in_the_result():
    frozen = FrozenEstimator(TemperatureScaling().fit(LOGITS, Y))
    result = calibrate(logits=LOGITS, y=Y, calibrator=frozen, n_bootstrap=0)
    head = "FrozenEstimator(estimator=TemperatureScaling()), judged on"
    assert repr(result).startswith(head)


@pytest.mark.parametrize("given", ["temperature", TemperatureScaling, 3])
def test_what_is_no_calibrator_is_named(given):
    with pytest.raises(TypeError, match=r"calibrator is .* Pass a calibrator, such"):
        calibrate(logits=LOGITS, y=Y, calibrator=given)


# Rows that belong together

SAMPLE = np.repeat(np.arange(100), 10)


def noisy_copies(n_classes=4):
    """Ten copies of each of 100 samples, their classes, and samples to judge by."""
    logits, y = make_logits(5100, n_classes, random_state=1)
    noise = np.random.default_rng(0).normal(size=(1000, n_classes))
    copies = logits[:100][SAMPLE] + 0.01 * noise
    return copies, y[:100][SAMPLE], logits[100:], y[100:]


def test_held_out_figures_of_noisy_copies_are_true_with_groups_only():
    logits, y, new, y_new = noisy_copies()
    # What it learned by heart of a copy, it says of the others.
    options = {"calibrator": IsotonicCalibration(method="strict"), "n_bootstrap": 200}
    result = calibrate(logits=logits, y=y, groups=SAMPLE, **options)
    truth = calibration_report(y_new, result.predict_proba(new), n_bootstrap=0)
    told, without = (
        found.report["after"]
        for found in (result, calibrate(logits=logits, y=y, **options))
    )
    assert told["nll"].low < truth["nll"].value < told["nll"].high
    assert told["accuracy"].low < truth["accuracy"].value < told["accuracy"].high
    assert without["nll"].high < 0.5 * truth["nll"].value
    how = "1,000 samples in 100 groups, cross-fitted in 5 folds"
    assert result.held_out.how == how
    assert "in 100 groups" in repr(result)


def test_intervals_of_copies_are_those_of_the_samples():
    logits, y = LOGITS[:100], Y[:100]
    one, ten = (
        calibrate(
            logits=logits[rows],
            y=y[rows],
            groups=rows,
            calibrator=TemperatureScaling(),
            n_bootstrap=50,
        ).report["before"]
        for rows in (np.arange(100), SAMPLE)
    )
    for name in ("nll", "accuracy", "ece"):
        assert_allclose(ten[name], one[name], rtol=1e-9)


def test_pixels_of_an_image_stay_together_without_being_told():
    images = np.stack([LOGITS[:100], LOGITS[100:200]], axis=2)
    places = np.stack([Y[:100], Y[100:200]], axis=1)
    rows, y = as_rows(images, places)
    found = calibrate(logits=rows, y=y, **QUICK).held_out
    told = {"groups": np.repeat(np.arange(100), 2)}
    one_by_one = images.transpose(0, 2, 1).reshape(200, 4)
    expected = calibrate(logits=one_by_one, y=y, **told, **QUICK).held_out
    assert found.how.startswith("200 samples in 100 groups")
    assert_array_equal(found.after, expected.after)


def test_a_calibrator_that_draws_folds_is_told_of_the_groups():
    logits, y, *_ = noisy_copies()
    search = CalibratorSearch([TemperatureScaling(), IsotonicCalibration()])
    options = {"calibrator": search, "n_bootstrap": 0}
    result = calibrate(logits=logits, y=y, groups=SAMPLE, **options)
    alone = clone(search).fit(logits, y, groups=SAMPLE)
    scores = "mean_test_score"
    found = result.calibrator.cv_results_[scores]
    assert_array_equal(found, alone.cv_results_[scores])
    options["calibrator"] = search_of(cv=GroupKFold(3))
    result = calibrate(logits=LOGITS, y=Y, groups=np.arange(600) // 2, **options)
    assert isinstance(result.calibrator, TemperatureScaling)


@pytest.mark.parametrize(
    ("calibrator", "is_fitted", "routing"),
    [
        (TemperatureScaling(), False, True),
        (TemperatureScaling(), True, False),
        (CalibratorSearch([TemperatureScaling()]), False, False),
        (CalibratorSearch([TemperatureScaling()]), True, True),
    ],
)
def test_copies_of_the_inputs_of_a_classifier_judge_none(
    calibrator, is_fitted, routing
):
    X, y = load_digits(return_X_y=True)
    given = GaussianNB()
    if is_fitted:
        given.fit(X[1000:], y[1000:])
    rows = np.repeat(np.arange(200), 5)
    noise = 0.01 * np.random.default_rng(0).normal(size=(1000, 64))
    names = np.array([f"image {row}" for row in rows])
    with config_context(enable_metadata_routing=routing):
        result = calibrate(
            given,
            X[rows] + noise,
            y[rows],
            groups=names.tolist(),
            calibrator=calibrator,
            n_bootstrap=0,
        )
    n_groups = 200 if is_fitted else 40
    start = f"{5 * n_groups:,} samples in {n_groups} groups"
    assert result.held_out.how.startswith(start)
    assert result.held_out.unit.max() == n_groups - 1


def test_inputs_of_a_network_have_groups_too(tmp_path):
    pytest.importorskip("onnxruntime")
    demo = load_demo()
    rows = np.arange(200) % 100
    X, y = demo.X_calibration[rows], demo.y_calibration[rows]
    result = calibrate(demo.model, X, y, groups=rows, **QUICK)
    assert result.held_out.how.startswith("200 samples in 100 groups")
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    inputs, labels = torch.tensor(LOGITS[:200]).float(), torch.tensor(Y[:200])
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=50)
    result = calibrate(torch.nn.Identity(), loader, groups=rows, **QUICK)
    assert result.held_out.how.startswith("200 samples in 100 groups")


def test_no_more_folds_than_groups():
    groups = np.arange(600) % 3
    result = calibrate(logits=LOGITS, y=Y, groups=groups, **QUICK)
    assert result.held_out.how == "600 samples in 3 groups, cross-fitted in 3 folds"
    X, y = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500)
    result = calibrate(model, X, y, groups=np.arange(150) % 3, **QUICK)
    assert result.held_out.how.startswith("50 samples in 1 group that")


def test_groups_that_cannot_be_kept_together_are_refused():
    options = {"logits": LOGITS, "y": Y, **QUICK}
    with pytest.raises(ValueError, match=r"groups has shape \(599,\); it needs one"):
        calibrate(groups=np.arange(599), **options)
    missing = np.where(np.arange(600) == 7, np.nan, 1.0)
    with pytest.raises(ValueError, match="groups holds nan in row 7"):
        calibrate(groups=missing, **options)
    with pytest.raises(TypeError, match="types NoneType, str"):
        calibrate(groups=["a", None] * 300, **options)
    with pytest.raises(ValueError, match="groups holds one group only: 'a'"):
        calibrate(groups=["a"] * 600, **options)
    with pytest.raises(ValueError, match=r"one class only .* too few groups"):
        calibrate(groups=np.where(Y == 0, "a", "b"), **options)
    two = np.arange(600) % 2
    with pytest.raises(ValueError, match=r"two groups only, \[0, 1\]. What is fitted"):
        calibrate(groups=two, logits=LOGITS, y=Y)
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="needs at least three"):
        calibrate(GaussianNB(), X, y, groups=two[:150], **QUICK)


@pytest.mark.parametrize("wrapped", [False, True])
def test_groups_of_another_meaning_are_refused(wrapped):
    calibrator = GroupCalibration()
    if wrapped:
        grid = {"structure": ["vector"]}
        calibrator = GridSearchCV(calibrator, grid, scoring="neg_log_loss")
    with pytest.raises(ValueError, match="Those of GroupCalibration are calibrated"):
        calibrate(logits=LOGITS, y=Y, groups=np.arange(600), calibrator=calibrator)
