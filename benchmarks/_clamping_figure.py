"""The figures of neural_clamping.py: the paper's, from rows of its parts."""

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks._networks import EVERY

PANELS = {"ECE": ("ECE (%)", 100), "NLL": ("log-loss", 1), "entropy": ("entropy", 1)}
LINES = {
    "NC": ("perturbation and temperature", "C0", "-"),
    "TS": ("temperature alone", "C1", "--"),
}


def draw(rows, folder):
    """Write a file for each part that has a figure."""
    mpl.rcParams["svg.hashsalt"] = "skcalib"  # the same figure, the same file
    folder.mkdir(parents=True, exist_ok=True)
    ways = {"gamma": gamma, "starts": starts, "reliability": reliability}
    for part, name in dict.fromkeys((row["part"], row["network"]) for row in rows):
        if part in ways:
            own = [r for r in rows if (r["part"], r["network"]) == (part, name)]
            figure = ways[part](own)
            figure.suptitle(f"{EVERY[name][0]}", fontsize=10)
            path = folder / f"clamping_{part}.svg"
            figure.savefig(path, dpi=110, metadata={"Date": None})
            plt.close(figure)


def panels(n, height=2.6, **options):
    size = (8, height)
    return plt.subplots(1, n, figsize=size, layout="constrained", **options)


def gamma(rows):
    """ECE, log-loss and entropy against the exponent."""
    figure, axes = panels(len(PANELS))
    for ax, (column, (title, factor)) in zip(axes, PANELS.items(), strict=True):
        for method, (label, colour, style) in LINES.items():
            own = [row for row in rows if row["method"] == method]
            points = [(row["gamma"], factor * row[column]) for row in own]
            ax.plot(*zip(*points, strict=True), style, color=colour, label=label)
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("gamma of the focal loss")
        if column == "ECE":
            ax.set_ylim(bottom=0)
        ax.grid(alpha=0.3)
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def starts(rows):
    """Box plots over the splits."""
    names = list(dict.fromkeys(row["start"] for row in rows))
    figure, axes = panels(len(PANELS))
    for ax, (column, (title, factor)) in zip(axes, PANELS.items(), strict=True):
        values = [
            [factor * row[column] for row in rows if row["start"] == name]
            for name in names
        ]
        ax.boxplot(values)
        ax.set_xticks(range(1, len(names) + 1), names, fontsize=8)
        ax.set_title(title, fontsize=9)
        ax.grid(alpha=0.3, axis="y")
    return figure


def reliability(rows):
    """Accuracy against confidence, with the share of each bin."""
    names = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = panels(len(names), sharey=True, squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        own = [row for row in rows if row["method"] == name]
        x, hits = ([row[key] for row in own] for key in ("confidence", "hits"))
        ax.plot([0, 1], [0, 1], color="grey", linewidth=1)
        ax.plot(x, hits, "o-", markersize=3)
        ax.bar(x, [row["share"] for row in own], width=0.05, alpha=0.3)
        ax.set_title(name, fontsize=9)
        ax.set_xlabel("confidence")
    axes[0, 0].set_ylabel("accuracy, share of images")
    return figure
