"""What the displays share: colours, axes, estimators' predictions."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from skcalib._blocks import is_stored
from skcalib._optional import import_optional
from skcalib.metrics._scorers import in_rows

# Told apart with every common form of colour blindness, and in grey.
COLOURS = {
    "point": "#0072b2",
    "gap": "#e69f00",
    "band": "#8080804d",
    "histogram": "#808080",
}


def ink():
    """Return the colour of text in the style that is set, light or dark."""
    return import_optional("matplotlib", "A display").rcParams["text.color"]


def paper():
    """Return the colour of what lies behind a plot in the style that is set."""
    return import_optional("matplotlib", "A display").rcParams["axes.facecolor"]


def new_axes(display, n_rows=1, n_columns=1, *, size, **options):
    """Return the axes of a new figure, in a flat array; `size` is that of one."""
    pyplot = import_optional("matplotlib.pyplot", display)
    _, axes = pyplot.subplots(
        n_rows,
        n_columns,
        figsize=(size[0] * n_columns, size[1] * n_rows),
        layout="constrained",
        **options,
    )
    return np.ravel(axes)


def own_axes(axes, n_axes, what):
    """Return axes that were given, in a flat array: one for each of what is drawn."""
    axes = np.ravel(axes)
    if axes.shape[0] != n_axes:
        raise ValueError(f"{n_axes} {what} need as many axes, not {axes.shape[0]}.")
    return axes


def dress_diagram(ax, base, top, class_):
    """Name the axes of a diagram, below which a distribution is drawn up to `top`."""
    ax.set(xlim=(0, 1), ylim=(base, 1), aspect="equal")
    told = "confidence" if class_ is None else f"probability of {class_}"
    ax.set_xlabel(told, parse_math=False)
    ax.set_ylabel(outcome_of(class_), y=(0.5 - base) / (1 - base))
    # Between the distribution and the diagram, where neither hides it.
    ax.text(
        0.98,
        top / 2,
        "samples",
        ha="right",
        va="center",
        fontsize="small",
        color=COLOURS["histogram"],
    )
    hide_box(ax)


def outcome_of(class_):
    """Return what is drawn over the confidence, or over the probability of a class."""
    return "accuracy" if class_ is None else "frequency"


def hide_box(ax, sides=("top", "right")):
    """Leave out lines around the axes."""
    for side in sides:
        ax.spines[side].set_visible(False)


def draw_band(ax, x, low, high, **options):
    """Fill what lies between two curves, a bar where there is a single point."""
    if x.shape[0] == 1:
        ax.vlines(x, low, high, color=COLOURS["band"], lw=8, **options)
    else:
        ax.fill_between(x, low, high, color=COLOURS["band"], lw=0, **options)


def add_legend(ax, place="best"):
    """Explain each colour once, without hiding what is behind."""
    once: dict[str, Any] = {}
    for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
        once.setdefault(label, handle)
    entries = [*once.values()], [*once]
    ax.legend(*entries, loc=place, fontsize="small", edgecolor="none", framealpha=0.7)


def titled(text, name):
    """Put the name of the classifier, if there is one, before what is told of it."""
    return text if name is None else f"{name}: {text}"


class FromEstimator:
    """Adds `from_estimator` to a display that has `from_predictions`."""

    from_predictions: Callable[..., Any]

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        name: str | None = None,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Draw the display of a fitted classifier or calibrator.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `predict_proba` and `classes_`.

        X : array-like
            Input of the estimator: held-out samples, or logits for a calibrator.

        y : array-like of shape (n_samples,)
            True classes; of each place for a `DenseCalibration`.

        name : str, default=None
            Title; the name of the estimator's class by default.

        ax : matplotlib Axes, default=None
            Axes to draw on; by default those of a new figure.

        **options : dict
            Passed on to `from_predictions`. A `pos_label` is refused where there are
            columns for all classes; `class_` names one to draw.

        Returns
        -------
        display : object
            The drawn display.
        """
        proba = estimator.predict_proba(X)
        y, proba, options = in_rows(estimator, y, proba, options)
        proba = proba[:] if is_stored(proba) else proba
        pos_label = options.get("pos_label")
        if pos_label is not None and np.ndim(proba) == 2 and proba.shape[1] > 1:
            raise ValueError(
                f"pos_label={pos_label!r} names the class of a single column, but "
                f"predict_proba has returned {proba.shape[1]}. Leave it out; "
                f"reliability diagrams draw one class by class_={pos_label!r}."
            )
        return cls.from_predictions(
            y,
            proba,
            labels=estimator.classes_,
            name=type(estimator).__name__ if name is None else name,
            ax=ax,
            **options,
        )
