"""
Answer options of a language model
==================================

Questions with two to five options, of which a model names one. Its logits are too far
apart, as those of large language models often are after they were tuned, and it likes
some letters better than others whatever they stand for. One temperature and an offset
for each letter mend both: :class:`~skcalib.OptionCalibration`.
"""

# %%
# A model that likes a letter
# ---------------------------
#
# A question is a word of random letters, an option one that resembles it more or less;
# the right one is the one that was made from it. A small network reads the question and
# one option at a time beside the letter of the option, and was trained on few questions
# whose right answers stood under "A" too often: what it has learned of the letters is
# wrong for the questions that it is asked now.

from itertools import pairwise

import numpy as np
import torch
from matplotlib import pyplot as plt
from scipy.special import softmax
from torch import nn

from skcalib import OptionCalibration, logits_from_top_logprobs, pad_options
from skcalib.metrics import expected_calibration_error, static_calibration_error

SIZE, LETTERS = 16, np.array(list("ABCDE"))


def ask(n, seed, favour=0.0):
    """Draw questions: features of each option, and where the right one stands."""
    rng = np.random.default_rng(seed)
    questions, answers = [], []
    for _ in range(n):
        word = rng.normal(size=SIZE)
        n_options = rng.integers(2, 6)
        options = 0.5 * word + rng.normal(0, 1.2, (n_options, SIZE))
        answer = 0 if rng.random() < favour else rng.integers(n_options)
        options[answer] += 0.35 * word
        letter = np.eye(len(LETTERS))[:n_options]
        questions.append(np.hstack([word * options, letter]).astype(np.float32))
        answers.append(answer)
    return questions, np.array(answers)


class Scorer(nn.Module):
    def __init__(self):
        super().__init__()
        widths = SIZE + len(LETTERS), 64, 64, 1
        linear = [nn.Linear(*pair) for pair in pairwise(widths)]
        self.layers = nn.Sequential(
            linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2]
        )

    def forward(self, options):
        return self.layers(options)[:, 0]


def logits_of(model, questions):
    """Return an array of logits for each question."""
    with torch.no_grad():
        scores = model(torch.from_numpy(np.concatenate(questions))).numpy()
    ends = np.cumsum([len(options) for options in questions])[:-1]
    return np.split(scores.astype(float), ends)


torch.manual_seed(0)
model = Scorer()
optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
questions, answers = ask(600, seed=0, favour=0.4)
rows = torch.from_numpy(np.concatenate(questions))
lengths = np.array([len(options) for options in questions])
starts = np.append(0, np.cumsum(lengths)[:-1])
number = torch.from_numpy(np.repeat(np.arange(600), lengths))
right = torch.from_numpy(starts + answers)
for _ in range(60):
    optimiser.zero_grad()
    scores = model(rows)
    total = torch.zeros(600).index_add(0, number, scores.exp())
    (total.log() - scores[right]).mean().backward()
    optimiser.step()

fit_questions, y_fit = ask(1000, seed=1)
test_questions, y_test = ask(3000, seed=2)
X_fit, X_test = logits_of(model, fit_questions), logits_of(model, test_questions)
print("options of the first questions:", [len(row) for row in X_test[:8]])

# %%
# A temperature, and an offset a letter
# -------------------------------------
#
# The logits go in as a list of arrays, of which each has a length of its own, and the
# probabilities come out as one. Metrics take rows of one length, which
# :func:`~skcalib.pad_options` makes of either.

plain = OptionCalibration(position_offset=False).fit(X_fit, y_fit)
full = OptionCalibration().fit(X_fit, y_fit)
print(f"temperature {full.temperature_:.2f}")
offsets = zip(LETTERS, full.offset_, strict=True)
print("offsets", {str(letter): round(float(offset), 2) for letter, offset in offsets})

proba = {
    "the model": [softmax(row) for row in X_test],
    "a temperature": plain.predict_proba(X_test),
    "temperature and letters": full.predict_proba(X_test),
}
padded = {name: pad_options(rows, absent=0) for name, rows in proba.items()}
for name, rows in padded.items():
    right = np.mean(rows.argmax(axis=1) == y_test)
    top = expected_calibration_error(y_test, rows)
    by_letter = static_calibration_error(y_test, rows)
    own = rows[np.arange(len(y_test)), y_test]
    print(
        f"{name:>24}: right {right:.1%}, log loss {-np.log(own).mean():.3f}, "
        f"ECE {top:.1%}, by letter {by_letter:.2%}"
    )

# %%
# A temperature mends the confidence of the model in its answers, and no answer changes.
# The offsets change some of them for the better, and lower the log loss and the error
# by letter again; the ECE, which sees nothing but the answers that are given, does not
# show it. The mean probability of each letter should be how often it is the right one,
# which a temperature alone cannot give it:

figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
frequency = np.bincount(y_test, minlength=5) / len(y_test)
width = 0.2
place = np.arange(5)
ax.bar(place - 1.5 * width, frequency, width, label="right answers", color="0.3")
for k, (name, rows) in enumerate(padded.items()):
    ax.bar(place + (k - 0.5) * width, rows.mean(axis=0), width, label=name)
ax.set_xticks(place, LETTERS)
ax.set_ylabel("share")
ax.legend()

# %%
# When only the top tokens are told
# ---------------------------------
#
# Interfaces tell the log-probabilities of the most probable tokens, 20 or 5 or,
# here, 3. What is not told has a share of the rest.

told = [
    {str(LETTERS[k]): float(np.log(row[k])) for k in np.argsort(row)[-3:]}
    for row in proba["the model"]
]
own_letters = [LETTERS[: len(row)].tolist() for row in X_test]
X_told = logits_from_top_logprobs(told, own_letters)
rows = pad_options(full.predict_proba(X_told), absent=0)
print(f"of three tokens: ECE {expected_calibration_error(y_test, rows):.1%}")
