"""The figure of neural_clamping.py: calibration against the focal loss's exponent."""

import matplotlib as mpl
from _networks import NETWORKS
from matplotlib import pyplot as plt

PANELS = {"ECE": ("ECE (%)", 100), "NLL": ("log-loss", 1), "entropy": ("entropy", 1)}
LINES = {
    "NC": ("perturbation and temperature", "C0", "-"),
    "TS": ("temperature alone", "C1", "--"),
}


def draw(results, path):
    """Write one row of panels a network."""
    mpl.rcParams["svg.hashsalt"] = "skcalib"  # the same figure, the same file
    figure, axes = plt.subplots(
        len(results),
        len(PANELS),
        figsize=(8, 2.4 * len(results)),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for line, (name, rows) in zip(axes, results.items(), strict=True):
        for ax, (column, (title, factor)) in zip(line, PANELS.items(), strict=True):
            for method, (label, colour, style) in LINES.items():
                points = [
                    (float(row.split()[1]), factor * values[column])
                    for row, values in rows.items()
                    if row.startswith(method)
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
