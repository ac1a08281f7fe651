"""Draw the pictures of the front page and of the README.

    python docs/pictures.py

Writes `reliability-light.svg` and `reliability-dark.svg` to `_static`: the network of
`load_demo` as it comes and after `CalibratorSearch`, on rows that neither has seen.
"""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from scipy.special import softmax

from skcalib import CalibratorSearch
from skcalib.datasets import load_demo
from skcalib.frozen import OnnxLogits
from skcalib.plotting import ReliabilityDisplay

STATIC = Path(__file__).parent / "_static"
COMMON = {"svg.hashsalt": "skcalib", "svg.fonttype": "path", "font.size": 11}
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


def main():
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
    for style, settings in STYLES.items():
        with mpl.rc_context(COMMON | settings):
            ReliabilityDisplay.compare(demo.y_test, probas, n_bins=5)
            plt.savefig(
                STATIC / f"reliability-{style}.svg",
                transparent=True,
                metadata={"Date": None},
            )
            plt.close()


if __name__ == "__main__":
    main()
