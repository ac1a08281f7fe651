"""Gradients through ONNX files: an interpreter of ONNX graphs in torch.

`differentiable_network` gives a module ``f`` with

- ``f(x)``: the logits, differentiable with respect to `x`;
- ``f(x, shift)``: the logits with `shift` added at the site. The site is the input, or
  the inner tensor named by ``site=``, such as the embedding of a model of tokens; then
  ``f.site_values(x)`` is that tensor, whose trailing shape a perturbation takes;
- ``confirm(f, x)``: compares values and gradients with onnxruntime's on real inputs.
  Building the module did so already on made-up ones where ``f.is_confirmed`` is True.

This package imports torch; import it only where it is used.
"""

from skcalib._onnx._in_torch._convert import differentiable_network
from skcalib._onnx._in_torch._verify import confirm

__all__ = ["confirm", "differentiable_network"]
