"""The linearised network of a Jacobian that is given class by class."""

import numpy as np
from scipy.special import softmax

from skcalib.clamping._linearised import Linearised
from skcalib.clamping._pools import Jacobian, Pools


def linearised(logits, jacobian, codes, loss, gamma, lost=0.0):
    """The linear model of the derivatives of every class; each has its slot."""
    proba = softmax(logits.astype(np.float64), axis=1)
    pools = Pools(proba, codes, np.ones(len(codes)), lost)
    columns = [pools.mean_change(column) for column in np.moveaxis(jacobian, 2, 0)]
    slots = np.stack(columns, axis=1).astype(jacobian.dtype)
    return Linearised(logits, Jacobian(slots, pools), codes, loss, gamma)
