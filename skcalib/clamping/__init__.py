"""Neural clamping: one input perturbation and one temperature for a frozen network."""

from skcalib._optional import import_optional

import_optional("torch", "Neural clamping")

from skcalib.clamping._neural_clamping import NeuralClamping  # noqa: E402
from skcalib.clamping._neural_clamping_cv import NeuralClampingCV  # noqa: E402

__all__ = ["NeuralClamping", "NeuralClampingCV"]
