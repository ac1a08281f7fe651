"""The figure of neural_clamping.py: calibration against the focal loss's exponent."""

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks._networks import NETWORKS

PANELS = {"ECE": ("ECE (%)", 100), "NLL": ("log-loss", 1), "entropy": ("entropy", 1)}
LINES = {
    "NC": ("perturbation and temperature", "C0", "-"),
    "TS": ("temperature alone", "C1", "--"),
}


def draw(rows, path):
    """Write one row of panels a network."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    mpl.rcParams["svg.hashsalt"] = "skcalib"  # the same figure, the same file
    figure, axes = plt.subplots(
        len(networks),
        len(PANELS),
        figsize=(8, 2.4 * len(networks)),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for line, name in zip(axes, networks, strict=True):
        for ax, (column, (title, factor)) in zip(line, PANELS.items(), strict=True):
            for method, (label, colour, style) in LINES.items():
                points = [
                    (row["gamma"], factor * row[column])
                    for row in rows
                    if (row["network"], row["method"]) == (name, method)
                ]
                ax.plot(*zip(*points, strict=True), style, color=colour, label=label)
            ax.set_title(f"{NETWORKS[name][0]}: {title}", fontsize=9)
            if column == "ECE":
                ax.set_ylim(bottom=0)
            ax.grid(alpha=0.3)
    for ax in axes[-1]:
        ax.set_xlabel("gamma of the focal loss")
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.savefig(
        path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None
    )
    plt.close(figure)
