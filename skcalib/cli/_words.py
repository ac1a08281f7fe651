"""What a report says in sentences: the verdict, the rival, what was fitted."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._judging import HeldOut
from skcalib._numerics import mean_and_error, true_log_proba
from skcalib.plotting._binned_rows import wilson

# Half the width of a 95 % interval, in standard errors.
_TWO_SIDED = 1.96


def verdict(held_out: HeldOut) -> str:
    """Whether calibration helps, in a sentence that needs no statistics to be read."""
    gain, error = loss_gain(held_out, held_out.before)
    before, after = (
        float(p.max(axis=1).mean()) for p in (held_out.before, held_out.after)
    )
    hit = held_out.after.argmax(axis=1) == held_out.codes
    low, high = _rate(hit, held_out.unit)
    is_mended = low <= after <= high and not low <= before <= high
    if gain < -error:
        opening = "Calibration does harm here, so serve the model as it is"
    elif gain > error or is_mended:
        opening = "Calibration helps"
    else:
        opening = "No clear effect can be seen on these samples"
    return (
        f"{opening}: of every 100 predictions the calibrated model expects "
        f"{100 * after:.1f} to be right, where the original expected "
        f"{100 * before:.1f}; {100 * hit.mean():.1f} were, and in the long run it will "
        f"be {100 * low:.1f} to {100 * high:.1f} of 100 (95 % interval)."
    )


def _rate(hit: NDArray[np.bool_], unit: NDArray[np.intp] | None) -> tuple[float, float]:
    """Return Wilson's interval; groups count as the rows that would tell as much."""
    share, n_rows = hit.mean(), float(len(hit))
    if unit is not None:
        _, error = _mean_and_error(hit.astype(np.float64), unit)
        told = share * (1 - share) / error**2 if error > 0 else unit.max() + 1
        n_rows = min(n_rows, max(told, 1))
    low, high = wilson(share * n_rows, n_rows, 0.025)
    return float(low), float(high)


def against_rival(held_out: HeldOut, rival: NDArray[Any] | None) -> str | None:
    """Compare the log-loss with that of temperature scaling, on the same rows."""
    if rival is None:
        return None
    gain, error = loss_gain(held_out, rival)
    if gain > error:
        told = "What was fitted is better"
    elif gain < -error:
        told = "The simpler temperature scaling is better: prefer it"
    else:
        told = "The two cannot be told apart, and the simpler one would do"
    side = "higher" if gain >= 0 else "lower"
    return (
        "Temperature scaling, the simplest remedy, was fitted and judged on the same "
        f"samples. {told}: the log loss of temperature scaling is {abs(gain):.4f} "
        f"{side} (95 % interval {gain - error:+.4f} to {gain + error:+.4f})."
    )


def loss_gain(held_out: HeldOut, proba: NDArray[Any]) -> tuple[float, float]:
    """By how much the log-loss after calibration is lower, and half its interval."""
    codes = held_out.codes
    gain = true_log_proba(held_out.after, codes) - true_log_proba(proba, codes)
    mean, error = _mean_and_error(gain, held_out.unit)
    return float(mean), _TWO_SIDED * float(error)


def _mean_and_error(
    values: NDArray[np.float64], unit: NDArray[np.intp] | None
) -> tuple[Any, Any]:
    """Return the mean and its standard error, of rows that come in units or alone."""
    if unit is None:
        return mean_and_error(values, np.ones(values.shape[0]))
    mean = values.mean()
    off = np.bincount(unit, values - mean)
    if off.size == 1:
        return mean, np.inf
    return mean, np.sqrt(off @ off * off.size / (off.size - 1)) / values.size


def fitted_words(calibrator: Any) -> list[str]:
    """Say what the calibrator does, and what its temperature and weights mean."""
    said = [_what_it_does(calibrator)]
    weights = getattr(calibrator, "final_weights_", None)
    chosen = getattr(calibrator, "best_calibrator_", None)
    if weights is not None:
        said.append(f"It mixes {_as_shares(weights)}.")
    elif chosen is not None:
        said.append(f"It chose {type(chosen).__name__}. {_what_it_does(chosen)}")
    for part in (calibrator, chosen):
        if (temperature := getattr(part, "temperature_", None)) is not None:
            said.append(_of_temperature(float(temperature)))
    return said


def _as_shares(weights: dict[str, float]) -> str:
    """Return the parts of a mixture that count, the largest first."""
    ordered = sorted(weights.items(), key=lambda item: -item[1])
    parts = [f"{100 * w:.0f} % {name}" for name, w in ordered if w >= 0.005]
    return ", ".join(parts)


def _what_it_does(calibrator: Any) -> str:
    """Return the first line of its documentation."""
    kind = type(calibrator)
    return (kind.__doc__ or kind.__name__).strip().splitlines()[0]


def _of_temperature(temperature: float) -> str:
    number = f"The temperature is {temperature:.3f}"
    if abs(np.log(temperature)) < 0.01:
        return f"{number}: the scores were as sure as they should be, and stay so."
    if temperature > 1:
        return f"{number}, above 1: the model was too sure of itself, and is now less."
    return f"{number}, below 1: the model was not sure enough, and is now more."
