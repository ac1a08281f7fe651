"""Part theory of neural_clamping.py: what the paper's theorems say, and what is so.

Theorem 3.2 gives the step within the room that inputs leave of their range along which
the output entropy, summed over inputs, grows the most to first order; so the images are
squeezed to [0.1, 0.9]. Lemma 3.1 says that at the best temperature the logits of the
true classes sum to as much as all logits weighted by the probabilities.
"""

import numpy as np
from scipy.special import softmax
from scipy.stats import entropy

from benchmarks._networks import make_tasks, run_network
from skcalib import TemperatureScaling
from skcalib._networks._inputs import Inputs
from skcalib._networks._network import open_network
from skcalib.clamping._objective import Objective
from skcalib.clamping._starts import data_driven, entropy_gradient

IMAGES = 200
SHARES = (0.001, 0.01, 0.1, 1.0)


def theory(name, options):
    """Yield rises of the summed entropy, and by how much the lemma's sum differs."""
    (task,) = make_tasks(name, 1, IMAGES, options.device)
    X = (0.1 + 0.8 * task.cal.X).astype(np.float32)
    network = open_network(task.module)
    data_term = Objective(network, Inputs(X, network, 50), task.cal.y)
    slope = entropy_gradient(data_term)

    def rise(delta):
        before, after = (
            entropy(softmax(run_network(task.module, x).astype(np.float64), axis=1).T)
            for x in (X, X + delta.astype(np.float32))
        )
        return float(after.sum() - before.sum())

    literal = data_driven(data_term, (0, 1), capped=False)
    steps = {f"{share:g} of the theorem's step": share * literal for share in SHARES}
    noise = np.random.default_rng(0).normal(size=literal.shape)
    noise *= np.linalg.norm(literal) / np.linalg.norm(noise)
    steps["noise as long as it"] = noise
    steps["the capped start"] = data_driven(data_term, (0, 1))
    for title, delta in steps.items():
        first_order = float(np.vdot(delta, slope))
        yield {"what": title, "first order": first_order, "found": rise(delta)}
    logits = task.cal.logits.astype(np.float64)
    for objective in ("log_loss", "focal"):
        scaled = TemperatureScaling(objective=objective, prior=None)
        proba = scaled.fit(logits, task.cal.y).predict_proba(logits)
        own = logits[np.arange(len(logits)), task.cal.y].sum()
        case = {
            "what": f"the lemma at the temperature of {objective}",
            "first order": own,
        }
        yield case | {"found": float((logits * proba).sum())}
