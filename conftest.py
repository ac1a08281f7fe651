"""Doctests of modules whose optional packages are missing are not collected."""

import os
from importlib.util import find_spec

# Each worker has a core: more threads would wait for one another longer than they work.
# Set before NumPy and torch are imported, in the workers too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

NEEDS = {
    "skcalib/_blocks/_dask*.py": ("dask",),
    "skcalib/_validation/_dask.py": ("dask",),
    "skcalib/_blocks/_device_array.py": ("torch",),
    "skcalib/_blocks/_tensor.py": ("torch",),
    "skcalib/_validation/_tensor.py": ("torch",),
    "skcalib/_onnx/_in_torch/*": ("onnx", "onnxruntime", "torch"),
    "skcalib/_networks/_folding.py": ("torch",),
    "skcalib/_networks/_inputs.py": ("torch",),
    "skcalib/_networks/_module_copy.py": ("torch",),
    "skcalib/_networks/_result.py": ("torch",),
    "skcalib/_networks/_network.py": ("torch",),
    "skcalib/_networks/_onnx.py": ("torch",),
    "skcalib/_networks/_processes.py": ("torch",),
    "skcalib/_networks/_sharing.py": ("torch",),
    "skcalib/_networks/_site.py": ("torch",),
    "skcalib/_networks/_train_mode.py": ("torch",),
    "skcalib/clamping/*": ("torch",),
    "skcalib/cli/*": ("typer", "rich", "jinja2"),
    "skcalib/export/*": ("onnx", "onnxruntime", "torch"),
    "skcalib/frozen/_onnx.py": ("onnx", "onnxruntime"),
    "skcalib/frozen/_torch.py": ("torch",),
    "skcalib/model_selection/_compare.py": ("pandas",),
    "skcalib/plotting/*": ("matplotlib",),
    "skcalib/plotting/_perturbation.py": ("matplotlib", "torch"),
    "skcalib/training/*": ("torch", "skorch"),
    "tests/shared/added_delta.py": ("torch",),
    "tests/shared/exploding.py": ("torch",),
    "tests/shared/graph_parts.py": ("onnx",),
    "tests/shared/linearised.py": ("torch",),
    "tests/shared/module_parts.py": ("torch",),
    "tests/shared/named_model.py": ("onnx",),
    "tests/shared/small_network.py": ("torch",),
    "tests/shared/token_model.py": ("torch",),
}

# scikit-learn's own cases run in a process of their own, by tests/meta.
collect_ignore_glob = ["tests/shared/sklearn_calibration.py"]
collect_ignore_glob += [
    pattern
    for pattern, packages in NEEDS.items()
    if not all(find_spec(package) for package in packages)
]
