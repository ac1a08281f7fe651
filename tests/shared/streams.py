"""Streams of labels and probabilities that are calibrated, or were."""

from scipy.special import softmax


def draw_stream(rng, n_rows, n_classes, *, factor=1.0, bias=0.0, spread=2.0):
    """Labels, and probabilities whose logits were multiplied by `factor`.

    With factor 1 and bias 0 the probabilities are those the labels are drawn from;
    `bias` is added to the logits of the first class.
    """
    logits = spread * rng.normal(size=(n_rows, n_classes))
    true = softmax(logits, axis=1)
    y = (true.cumsum(axis=1) > rng.random((n_rows, 1))).argmax(axis=1)
    logits = factor * logits
    logits[:, 0] += bias
    return y, softmax(logits, axis=1)
