"""Classes that a model names in an order of its own, from the fit to the file."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

from skcalib import NeuralClamping, TemperatureScaling, calibrate
from skcalib.export import calibrate_onnx_model
from skcalib.frozen import OnnxLogits

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.onnx

ORDERS = {
    "text": ["low", "mid", "high"],
    "integers": [2, 0, 1],
    "two": ["yes", "no"],
    "digits": [str(k) for k in (0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9)],
}


@pytest.fixture(
    params=[(order, zipmap) for order in ORDERS for zipmap in (False, True)]
)
def named(request):
    """A model, its classes, and rows with their labels."""
    from named_model import draw_rows, name_classes

    labels = ORDERS[request.param[0]]
    X, weight, columns = draw_rows(len(labels))
    model = name_classes(weight, labels, zipmap=request.param[1])
    if request.param[0] == "digits":
        labels = [int(label) for label in labels]
    return model, labels, X, np.array(labels)[columns]


def in_place(calibrator, model, X, y):
    return calibrate(model, X, y, calibrator=calibrator, n_bootstrap=0).calibrator


def test_what_the_library_fits_follows_the_names_of_the_model(named):
    model, labels, X, y = named
    fitted = in_place(TemperatureScaling(), model, X, y)
    assert fitted.classes_.tolist() == labels
    assert 0.5 < fitted.temperature_ < 2
    calibrate_onnx_model(model, make_pipeline(OnnxLogits(model).fit(X), fitted))


def test_neural_clamping_follows_the_names_of_the_model(named):
    pytest.importorskip("torch")
    model, labels, X, y = named
    clamping = NeuralClamping(model, solver="fixed_delta").fit(X, y)
    assert clamping.classes_.tolist() == labels
    calibrate_onnx_model(model, clamping)


def test_a_file_whose_maps_are_in_another_order_is_saved(named, tmp_path):
    # onnxruntime sorts the map of a row by its keys.
    model, _, X, y = named
    result = calibrate(model, X, y, calibrator=TemperatureScaling(), n_bootstrap=0)
    result.save(tmp_path / "calibrated.onnx")
    assert (tmp_path / "calibrated.onnx").is_file()


@pytest.mark.filterwarnings("ignore:The model names the classes")
@pytest.mark.filterwarnings("ignore:In the first .* the logit of the true class")
def test_a_calibrator_of_another_order_is_not_written_into_the_model(named):
    model, labels, X, y = named
    pipe = make_pipeline(OnnxLogits(model), TemperatureScaling()).fit(X, y)
    with pytest.raises(ValueError, match="The model names the classes of its columns"):
        calibrate_onnx_model(model, pipe)
    pipe.set_params(temperaturescaling__classes=labels).fit(X, y)
    calibrate_onnx_model(model, pipe)


@pytest.mark.filterwarnings("ignore:In the first .* the logit of the true class")
def test_a_pipeline_that_cannot_know_the_order_is_warned_of(named):
    model, _, X, y = named
    pipe = make_pipeline(OnnxLogits(model), TemperatureScaling())
    with pytest.warns(UserWarning, match="unless it is told"):
        pipe.fit(X, y)


def test_a_class_that_the_labels_lack_is_warned_of_where_columns_would_shift():
    from named_model import draw_rows, name_classes

    X, weight, columns = draw_rows(3)
    frozen = OnnxLogits(name_classes(weight, [0, 2, 3]))
    y = np.array([0, 2, 3])[columns]
    frozen.fit(X, y)
    with pytest.warns(UserWarning, match=r"y lacks \[3\].* for \[0, 1, 2\]"):
        frozen.fit(X[y < 3], y[y < 3])
    frozen.fit(X, columns)  # Numbers of columns are none of its classes.


@pytest.mark.parametrize("labels", [["low", "mid", "high"], [2, 0, 1]])
def test_columns_of_a_frame_bear_the_names_of_the_model(labels):
    pytest.importorskip("pandas")
    from named_model import draw_rows, name_classes

    X, weight, columns = draw_rows(3)
    network = OnnxLogits(name_classes(weight, labels)).set_output(transform="pandas")
    pipe = make_pipeline(network, TemperatureScaling()).fit(
        X, np.array(labels)[columns]
    )
    assert pipe.classes_.tolist() == labels
    assert list(network.transform(X).columns) == [str(label) for label in labels]


def test_numbers_of_columns_beside_a_model_that_names_others_stay_numbers():
    from named_model import draw_rows, name_classes

    X, weight, columns = draw_rows(3)
    model = name_classes(weight, ["low", "mid", "high"])
    assert in_place(TemperatureScaling(), model, X, columns).classes_.tolist() == [
        0,
        1,
        2,
    ]


def test_labels_that_are_looked_up_in_a_table_are_those_of_the_table():
    from named_model import draw_rows, name_classes

    X, weight, columns = draw_rows(3)
    model = name_classes(weight, [0, 1, 2])
    table = onnx.numpy_helper.from_array(np.array([5, 9, 7]), "table")
    model.graph.initializer.append(table)
    node = onnx.helper.make_node("Gather", ["table", "label"], ["named"])
    model.graph.node.append(node)
    value = onnx.helper.make_tensor_value_info("named", 7, ["n"])
    model.graph.output.insert(0, value)
    fitted = in_place(TemperatureScaling(), model, X, np.array([5, 9, 7])[columns])
    assert fitted.classes_.tolist() == [5, 9, 7]
