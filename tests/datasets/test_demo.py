import hashlib

import numpy as np
import pytest

from skcalib.datasets import load_demo
from skcalib.datasets._demo import MODEL_PATH, split_digits

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.onnx


def probabilities(model, images):
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"image": images})[0]


def test_the_network_is_small_and_valid():
    assert MODEL_PATH.stat().st_size < 50_000
    onnx.checker.check_model(onnx.load(MODEL_PATH), full_check=True)


def test_the_network_is_right_less_often_than_it_says():
    demo = load_demo()
    proba = probabilities(demo.model, demo.X_test)
    hit = proba.argmax(axis=1) == demo.y_test
    excess = proba.max(axis=1) - hit
    standard_error = excess.std() / np.sqrt(excess.shape[0])
    assert 0.05 < excess.mean() < 0.15
    assert excess.mean() > 5 * standard_error
    assert -np.log(proba[np.arange(797), demo.y_test]).mean() > 0.5


def test_no_image_is_in_two_parts():
    parts = split_digits()
    digests = [
        {hashlib.sha256(image.tobytes()).hexdigest() for image in images}
        for images, _ in parts
    ]
    assert sum(len(images) for images, _ in parts) == 1797
    assert not digests[0] & digests[1]
    assert not digests[0] & digests[2]
    assert not digests[1] & digests[2]


def test_every_part_holds_every_digit_in_the_range_of_the_input():
    demo = load_demo()
    for part in ("calibration", "test"):
        X, y = demo[f"X_{part}"], demo[f"y_{part}"]
        assert X.shape == (len(y), 8, 8)
        assert X.dtype == np.float32
        assert X.min() == 0
        assert X.max() == 1
        assert np.bincount(y, minlength=10).min() >= 40


@pytest.mark.slow
def test_the_script_trains_the_network_that_ships(tmp_path):
    from skcalib.datasets._train_demo import main

    main([str(tmp_path / "demo.onnx")])
    images = load_demo().X_test
    shipped = probabilities(str(MODEL_PATH), images)
    trained = probabilities(str(tmp_path / "demo.onnx"), images)
    # Thousands of steps amplify rounding, so other processors may differ a little.
    assert (shipped.argmax(axis=1) == trained.argmax(axis=1)).mean() > 0.97
    assert abs(shipped.max(axis=1).mean() - trained.max(axis=1).mean()) < 0.02


def test_the_script_says_how_it_is_called():
    from skcalib.datasets._train_demo import main

    with pytest.raises(SystemExit, match="usage: python -m"):
        main([])
