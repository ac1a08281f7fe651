"""Draw the pictures of the front page, of the theory and of the decision chart.

    python docs/pictures.py [NAME ...]

Writes two files for each to `_static`, one for light and one for dark pages:
`reliability-*.svg` is the network of `load_demo` as it comes and after
`CalibratorSearch`, on rows that neither has seen; `split`, `classes`, `losses` and
`bias` go with theory.rst, on rows of `make_logits`, whose truth is known; `decision`
goes with choosing.rst.
"""

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from scipy.special import softmax

from skcalib import CalibratorSearch, TemperatureScaling
from skcalib.datasets import load_demo, make_logits
from skcalib.frozen import OnnxLogits
from skcalib.metrics import (
    calibration_loss,
    expected_calibration_error,
    refinement_loss,
)
from skcalib.plotting import ReliabilityDisplay

STATIC = Path(__file__).parent / "_static"
COMMON = {"svg.hashsalt": "skcalib", "svg.fonttype": "path", "font.size": 11}
CYCLES = {
    "light": mpl.cycler(color=["#0072b2", "#e69f00", "#009e73"]),
    "dark": mpl.cycler(color=["#56b4e9", "#e69f00", "#2fc89f"]),
}
STYLES = {
    "light": {},
    "dark": {
        "text.color": "#d5d9de",
        "axes.labelcolor": "#d5d9de",
        "axes.edgecolor": "#8b949e",
        "axes.facecolor": "#0d1117",
        "xtick.color": "#8b949e",
        "ytick.color": "#8b949e",
    },
}
BLUE, ORANGE, GREEN = "C0", "C1", "C2"
CENTRED = {"ha": "center", "va": "center"}


def draw_reliability():
    demo = load_demo()
    network = OnnxLogits(demo.model).fit(demo.X_calibration)
    search = CalibratorSearch().fit(
        network.transform(demo.X_calibration), demo.y_calibration
    )
    logits = network.transform(demo.X_test)
    probas = {
        "as it comes": softmax(logits, axis=1),
        "calibrated": search.predict_proba(logits),
    }
    ReliabilityDisplay.compare(demo.y_test, probas, n_bins=5)


def draw_split():
    """Draw the parts of the log-loss before and after one temperature."""
    logits, y = make_logits(20_000, 10, temperature=3, random_state=0)
    fitted = TemperatureScaling().fit(logits[::2], y[::2])
    probas = {
        "as it comes": softmax(logits[1::2], axis=1),
        "one temperature": fitted.predict_proba(logits[1::2]),
    }
    ax = new_axes(6.4, 2.2)
    inner = plt.rcParams["axes.facecolor"]
    for name, proba in reversed(probas.items()):
        refined = refinement_loss(y[1::2], proba)
        error = max(calibration_loss(y[1::2], proba), 0)
        ax.barh(name, refined, color=BLUE)
        ax.barh(name, error, left=refined, color=ORANGE)
        ax.text(refined / 2, name, f"refinement {refined:.3f}", color=inner, **CENTRED)
        ax.text(refined + error, name, f" calibration {error:.3f}", va="center")
    ax.set(xlabel="log-loss in nats", xlim=(0, 1.35 * (refined + 0.2)))


def draw_classes():
    """Draw three classes of a row as T grows: they never change places."""
    temperatures = np.geomspace(0.2, 10, 200)
    proba = softmax(np.array([2.0, 1.2, -0.5]) / temperatures[:, np.newaxis], axis=1)
    ax = new_axes(6.4, 2.8)
    for k, colour in enumerate((BLUE, ORANGE, GREEN)):
        ax.plot(temperatures, proba[:, k], color=colour)
        near = proba[(temperatures > 0.45) & (temperatures < 0.65), k].max()
        ax.text(0.45, near + 0.03, f"class {'abc'[k]}", color=colour)
    ax.axvline(1, linestyle=":", color=plt.rcParams["axes.edgecolor"])
    ax.set(xscale="log", xlabel="temperature", ylabel="probability", ylim=(0, 1.05))
    ax.set_xticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
    ax.minorticks_off()


def draw_losses():
    """Draw log-loss and ECE of 500 rows against the temperature that divides them."""
    logits, y = make_logits(500, 10, random_state=0)
    temperatures = np.linspace(1, 3, 201)
    probas = [softmax(logits / t, axis=1) for t in temperatures]
    rows = np.arange(len(y))
    _, (above, below) = plt.subplots(
        2, figsize=(6.4, 4.2), layout="constrained", sharex=True
    )
    losses = [-np.log(proba[rows, y]).mean() for proba in probas]
    above.plot(temperatures, losses, color=BLUE)
    above.set(ylabel="log-loss")
    for n_bins, colour in ((15, ORANGE), (10, GREEN)):
        errors = [100 * expected_calibration_error(y, p, n_bins=n_bins) for p in probas]
        below.plot(temperatures, errors, color=colour, label=f"{n_bins} bins")
        below.plot(temperatures[np.argmin(errors)], min(errors), "o", color=colour)
    above.plot(temperatures[np.argmin(losses)], min(losses), "o", color=BLUE)
    below.set(xlabel="temperature", ylabel="ECE, %")
    below.legend(frameon=False)


def draw_bias():
    """Draw the ECE of probabilities that are right, by rows and bins."""
    sizes = [100, 200, 500, 1000, 2000, 5000, 10_000]
    ax = new_axes(6.4, 3)
    for n_bins, colour in ((5, BLUE), (15, ORANGE), (50, GREEN)):
        errors = []
        for n in sizes:
            drawn = [
                make_logits(n, 10, return_proba=True, random_state=seed)[1:]
                for seed in range(20)
            ]
            ece = [expected_calibration_error(y, p, n_bins=n_bins) for y, p in drawn]
            errors.append(100 * np.mean(ece))
        ax.plot(sizes, errors, "o-", color=colour, label=f"{n_bins} bins")
    ax.set(
        xscale="log", xlabel="rows", ylabel="mean ECE of the truth, %", ylim=(0, None)
    )
    ax.set_xticks([100, 1000, 10_000], ["100", "1,000", "10,000"])
    ax.legend(frameon=False)


# Question, answer to yes; the last line answers those who never said yes.
DECISIONS = [
    ("May no predicted class change?", "OrderPreservingScaling()"),
    ("Do you need bounds beside each probability?", "VennAbersCalibration()"),
    ("Do you need few distinct values?", "ScalingBinning()"),
    ("Is only the top probability used?", "IsotonicCalibration(",
     'method="top_label")'),
    ("Is it a support vector machine, two classes?", "PlattScaling()"),
    ("Must two classes have one curve to explain?", "BetaCalibration()"),
    ("A thousand classes, and no minutes?", "StructuredMatrixScaling(",
     'structure="vector")'),
]  # fmt: skip


def draw_decision():
    """Draw the chart of choosing.rst, from the top down."""
    ax = new_axes(7.2, 7.4)
    ax.set(xlim=(0, 10), ylim=(-1.3, len(DECISIONS) - 0.5))
    ax.axis("off")
    arrow = {"arrowstyle": "-|>", "color": plt.rcParams["text.color"]}
    box = {"boxstyle": "round,pad=0.5", "facecolor": "none"}
    for row, (question, *answer) in enumerate(reversed(DECISIONS)):
        ax.text(
            2.5, row, question, **CENTRED, bbox=box | {"edgecolor": BLUE}, wrap=True
        )
        code = "\n    ".join(answer)
        ax.text(6.7, row, code, va="center", family="monospace", fontsize=10)
        ax.annotate("", (6.6, row), (5.3, row), arrowprops=arrow)
        ax.text(5.9, row + 0.1, "yes", ha="center", fontsize=9)
        ax.annotate("", (2.5, row - 0.72), (2.5, row - 0.28), arrowprops=arrow)
        ax.text(2.6, row - 0.5, "no", va="center", fontsize=9)
    ax.text(2.5, -0.85, "CalibratorSearch()", **CENTRED, family="monospace",
            bbox=box | {"edgecolor": ORANGE, "linewidth": 2})  # fmt: skip
    fewer = "TemperatureScaling()\nbelow a few hundred rows"
    ax.text(6.7, len(DECISIONS) - 1.33, fewer, va="center", fontsize=9)


def new_axes(width, height):
    _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


PICTURES = {
    "reliability": draw_reliability,
    "split": draw_split,
    "classes": draw_classes,
    "losses": draw_losses,
    "bias": draw_bias,
    "decision": draw_decision,
}


def main(names):
    for style, settings in STYLES.items():
        for name in names or PICTURES:
            with mpl.rc_context(COMMON | settings | {"axes.prop_cycle": CYCLES[style]}):
                PICTURES[name]()
                plt.savefig(
                    STATIC / f"{name}-{style}.svg",
                    transparent=True,
                    metadata={"Date": None},
                )
                plt.close()


if __name__ == "__main__":
    main(sys.argv[1:])
