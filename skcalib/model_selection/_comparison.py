"""CalibratorComparison: the table that `compare_calibrators` returns."""

from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from skcalib._optional import import_optional
from skcalib._tables import aligned
from skcalib.metrics._registry import COLUMNS
from skcalib.metrics._scorers import measured, sign_of

_SECONDS = "fit seconds"


class CalibratorComparison:
    """Metrics of several calibrators on the same held-out data.

    Printing it gives an aligned table, with accuracy and calibration errors in percent.
    Values are fractions everywhere else.

    Parameters
    ----------
    names : list of str
        One name a row, "uncalibrated" first.

    metrics : list of str
        One name a column, as in `skcalib.metrics.calibration_report`; the last is "fit
        seconds".

    mean : ndarray of shape (n_rows, n_metrics)
        The values: means over the folds, or those of all test rows.

    draws : ndarray of shape (n_rows, n_draws, n_metrics)
        The values of each fold, or of each bootstrap sample of the test rows; the same
        draws for all rows.

    fold_ratio : float, default=None
        Rows judged over rows fitted on, in a fold; None where the draws are bootstrap
        samples.

    Attributes
    ----------
    std : ndarray of shape (n_rows, n_metrics)
        Standard deviation over the draws.

    is_best : ndarray of shape (n_rows, n_metrics)
        Whether a row has the best value of the column, or one that the draws cannot
        tell from it at the level of 5 %, in pairs: by the difference of the values and
        its standard deviation over bootstrap samples, or over folds, which share the
        rows they are fitted on, by the corrected resampled t-test [1]_. False in
        columns in which lower is not better than higher, nor the reverse.

    References
    ----------
    .. [1] Nadeau & Bengio. "Inference for the Generalization Error", Machine Learning
       52, 2003.
    """

    def __init__(
        self,
        names: Iterable[str],
        metrics: Iterable[str],
        mean: NDArray[Any],
        draws: NDArray[Any],
        fold_ratio: float | None = None,
    ) -> None:
        self.names = list(names)
        self.metrics = list(metrics)
        self.mean = mean
        self.draws = draws
        self.fold_ratio = fold_ratio

    @property
    def std(self) -> NDArray[Any]:
        """Standard deviation over the draws."""
        return self.draws.std(axis=1, ddof=1)

    @property
    def is_best(self) -> NDArray[np.bool_]:
        """Whether a row is the best of the column, or cannot be told from it."""
        found = np.zeros(self.mean.shape, dtype=bool)
        for column, metric in enumerate(self.metrics):
            if (sign := sign_of(metric)) != 0:
                value = sign * self.mean[:, column]
                draws = sign * self.draws[:, :, column]
                best = np.where(np.isnan(value), np.inf, value).argmin()
                error = self._standard_error(draws - draws[best])
                limit = t.ppf(0.975, draws.shape[1] - 1) * error
                found[:, column] = value - value[best] <= limit
        return found

    def _standard_error(self, excess):
        """Return that of the excess of each row, of which these are the draws.

        Only the scatter of bootstrap samples tells: resampling raises the smaller of
        two binned errors more, so that their mean is not the excess itself.
        """
        variance = excess.var(axis=1, ddof=1)
        if self.fold_ratio is not None:
            variance *= 1 / excess.shape[1] + self.fold_ratio
        return np.sqrt(variance)

    def sorted(self, metric: str = "nll") -> "CalibratorComparison":
        """Return the table with the best row of a metric first.

        Parameters
        ----------
        metric : str, default="nll"
            One of `metrics`.

        Returns
        -------
        comparison : CalibratorComparison
            The same rows in another order.
        """
        if metric not in self.metrics:
            raise ValueError(f"metric={metric!r} is not among {self.metrics}.")
        value = (sign_of(metric) or 1) * self.mean[:, self.metrics.index(metric)]
        order = np.argsort(value, kind="stable")
        return CalibratorComparison(
            [self.names[row] for row in order],
            self.metrics,
            self.mean[order],
            self.draws[order],
            self.fold_ratio,
        )

    def to_markdown(self) -> str:
        """Return the table in Markdown, what `is_best` in bold.

        Returns
        -------
        text : str
            One line a row, the header and its rule first.
        """
        header, *rows = self._marked("**{}**", _markdown)
        rule = ["---", *["---:"] * len(self.metrics)]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *rows])

    def to_latex(self) -> str:
        """Return the table in LaTeX, with booktabs' rules, what `is_best` in bold.

        Returns
        -------
        text : str
            A ``tabular``.
        """
        header, *rows = self._marked(r"\textbf{{{}}}", _latex)
        lines = [" & ".join(cells) + r" \\" for cells in [header, *rows]]
        lines.insert(1, r"\midrule")
        return "\n".join(
            [
                rf"\begin{{tabular}}{{l{'r' * len(self.metrics)}}}",
                r"\toprule",
                *lines,
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )

    def _marked(self, mark, written):
        """Return the cells, written in a language, the best ones marked."""
        header, *rows = [[written(cell) for cell in row] for row in self._cells()]
        for cells, is_best in zip(rows, self.is_best, strict=True):
            for column in np.flatnonzero(is_best):
                cells[column + 1] = mark.format(cells[column + 1])
        return [header, *rows]

    def to_dict(self) -> dict[str, Any]:
        """Return the table as nested dicts of numbers.

        Returns
        -------
        table : dict
            ``table[name][metric]`` is ``{"mean": ..., "std": ...}``.
        """
        return {
            name: {
                metric: {
                    "mean": float(self.mean[row, column]),
                    "std": float(self.std[row, column]),
                }
                for column, metric in enumerate(self.metrics)
            }
            for row, name in enumerate(self.names)
        }

    def to_frame(self) -> Any:
        """Return the table as a dataframe; needs pandas.

        Returns
        -------
        frame : pandas.DataFrame
            One row a calibrator; the columns are the pairs of metric and "mean" or
            "std".
        """
        pandas = import_optional("pandas", "CalibratorComparison.to_frame")
        columns = {}
        for column, metric in enumerate(self.metrics):
            columns[metric, "mean"] = self.mean[:, column]
            columns[metric, "std"] = self.std[:, column]
        return pandas.DataFrame(columns, index=self.names)

    def __str__(self):
        lines = aligned(self._cells())
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

    def __repr__(self):
        return f"<{type(self).__name__} of {len(self.names)} rows>\n{self}"

    def _repr_html_(self):
        header, *rows = self._marked("<strong>{}</strong>", escape)
        parts = ["<table><thead><tr>"]
        parts += [f"<th>{cell}</th>" for cell in header]
        parts.append("</tr></thead><tbody>")
        for name, *cells in rows:
            parts.append(f"<tr><th>{name}</th>")
            parts += [f"<td>{cell}</td>" for cell in cells]
            parts.append("</tr>")
        parts.append("</tbody></table>")
        return "".join(parts)

    def _cells(self):
        """Return rows of text, the first of which is the header."""
        header = ["", *map(_heading, self.metrics)]
        rows = [
            [name, *map(_format, self.metrics, self.mean[row], self.std[row])]
            for row, name in enumerate(self.names)
        ]
        return [header, *rows]


def _heading(name):
    heading, metric = COLUMNS.get(name, name), measured(name)
    return heading if metric is None else metric.named(heading)


def _format(name, mean, std):
    if name == _SECONDS:
        return f"{mean:.3f}"
    metric = measured(name)
    if metric is not None and metric.percent_decimals is not None:
        digits = metric.percent_decimals
        return f"{100 * mean:.{digits}f}±{100 * std:.{digits}f}"
    return f"{mean:.4f}±{std:.4f}"


# What means something else in LaTeX, all at once: escapes hold such signs themselves.
_LATEX = str.maketrans(
    {special: f"\\{special}" for special in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "±": r" $\pm$ ",
    }
)


def _latex(text):
    return text.translate(_LATEX)


def _markdown(text):
    return text.replace("|", r"\|")
