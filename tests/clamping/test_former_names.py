"""The former name of a parameter of neural clamping still works, and says so."""

import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

torch = pytest.importorskip("torch")

from skcalib import NeuralClamping, NeuralClampingCV  # noqa: E402
from skcalib.datasets import make_logits  # noqa: E402

pytestmark = pytest.mark.torch

ESTIMATORS = [NeuralClamping, NeuralClampingCV]
NETWORK = torch.nn.Identity()


@pytest.fixture(scope="module")
def rows():
    return make_logits(60, n_classes=3, random_state=0)


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_loss_is_the_former_name_of_objective(Estimator, rows):
    now = Estimator(NETWORK, objective="brier", cv=2).fit(*rows)
    former = Estimator(NETWORK, loss="brier", cv=2)
    with pytest.warns(FutureWarning, match=r"pass objective='brier'") as told:
        former.fit(*rows)
    assert len(told) == 1
    assert former.loss_ == now.loss_ != Estimator(NETWORK, cv=2).fit(*rows).loss_


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_two_names_that_differ_are_refused(Estimator, rows):
    with pytest.raises(ValueError, match="Pass objective alone"):
        Estimator(NETWORK, objective="brier", loss="focal", cv=2).fit(*rows)


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_a_clone_keeps_either_name(Estimator):
    assert clone(Estimator(NETWORK, loss="brier")).get_params()["loss"] == "brier"
    twin = clone(Estimator(NETWORK, objective="brier"))
    assert twin.get_params()["objective"] == "brier"
    assert "loss" not in repr(twin)


@pytest.mark.parametrize("name", ["objective", "loss"])
@pytest.mark.filterwarnings("ignore:The parameter loss:FutureWarning")
def test_a_grid_search_goes_over_either_name(name, rows):
    search = GridSearchCV(
        NeuralClamping(NETWORK, solver="lbfgs", max_iter=1, cv=2),
        {name: ["focal", "brier"]},
        scoring="neg_log_loss",
        cv=2,
        error_score="raise",
    ).fit(*rows)
    assert search.best_params_[name] in ("focal", "brier")
