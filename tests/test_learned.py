import pytest

from skcalib import CalibratorSearch, MatrixScaling, TemperatureScaling, VectorScaling
from skcalib._learned import learned_html


def test_a_fitted_calibrator_shows_what_it_learned_in_a_notebook(calibration_set):
    fitted = TemperatureScaling().fit(*calibration_set)
    line = f"<p>temperature = {fitted.temperature_:.4g}, loss = {fitted.loss_:.4g}, "
    for html in (fitted._repr_html_(), fitted._repr_mimebundle_()["text/html"]):
        assert html.count(line) == 1
    assert "gradient_norm =" not in html


def test_a_calibrator_that_is_not_fitted_shows_what_scikit_learn_shows():
    assert "<p>temperature" not in TemperatureScaling()._repr_html_()
    assert learned_html(TemperatureScaling()) == ""


def test_a_search_shows_its_choice_and_the_weights_in_full(calibration_set):
    choice = CalibratorSearch([TemperatureScaling()]).fit(*calibration_set)
    assert "best_name = TemperatureScaling, temperature = " in choice._repr_html_()
    stack = CalibratorSearch([TemperatureScaling(), VectorScaling()], rule="stack")
    html = stack.fit(*calibration_set)._repr_html_()
    for name in stack.final_weights_:
        assert f"final_weights {name} = " in html


@pytest.mark.parametrize("n_classes", [4, 20])
def test_matrices_are_left_out(draw_calibration_set, n_classes):
    logits, y = draw_calibration_set(n_classes=n_classes)
    fixed = MatrixScaling(off_diagonal_penalty=1.0, intercept_penalty=1.0)
    html = learned_html(fixed.fit(logits, y))
    assert "coef = " not in html
    assert (" intercept = " in html) == (n_classes <= 10)
