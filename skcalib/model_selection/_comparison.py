"""CalibratorComparison: the table that `compare_calibrators` returns."""

from html import escape

from skcalib._optional import import_optional
from skcalib.metrics._registry import PERCENT_COLUMNS

_SECONDS = "fit seconds"


class CalibratorComparison:
    """Metrics of several calibrators on the same held-out data.

    Printing it gives an aligned table, with accuracy, ECE, AECE and SCE in percent;
    everything else is in natural units.

    Parameters
    ----------
    names : list of str
        One name a row, "uncalibrated" first.

    metrics : list of str
        One name a column.

    mean, std : ndarray of shape (n_rows, n_metrics)
        Mean and standard deviation, over folds or over bootstrap samples.
    """

    def __init__(self, names, metrics, mean, std):
        self.names = list(names)
        self.metrics = list(metrics)
        self.mean = mean
        self.std = std

    def to_dict(self):
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

    def to_frame(self):
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
        rows = self._cells()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if k == 0 else cell.rjust(width)
                for k, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

    def __repr__(self):
        return f"<{type(self).__name__} of {len(self.names)} rows>\n{self}"

    def _repr_html_(self):
        header, *rows = self._cells()
        parts = ["<table><thead><tr>"]
        parts += [f"<th>{escape(cell)}</th>" for cell in header]
        parts.append("</tr></thead><tbody>")
        for name, *cells in rows:
            parts.append(f"<tr><th>{escape(name)}</th>")
            parts += [f"<td>{escape(cell)}</td>" for cell in cells]
            parts.append("</tr>")
        parts.append("</tbody></table>")
        return "".join(parts)

    def _cells(self):
        """Return rows of text, the first of which is the header."""
        header = ["", *(f"{m} %" if m in PERCENT_COLUMNS else m for m in self.metrics)]
        rows = [
            [name, *map(_format, self.metrics, self.mean[row], self.std[row])]
            for row, name in enumerate(self.names)
        ]
        return [header, *rows]


def _format(metric, mean, std):
    if metric == _SECONDS:
        return f"{mean:.3f}"
    if metric in PERCENT_COLUMNS:
        return f"{100 * mean:.2f}±{100 * std:.2f}"
    return f"{mean:.4f}±{std:.4f}"
