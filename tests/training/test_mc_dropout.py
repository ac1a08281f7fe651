"""mc_dropout switches dropout on, nothing else, and leaves no trace."""

from collections import UserDict
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")

from module_parts import InPlace, Output  # noqa: E402

from skcalib.training import mc_dropout  # noqa: E402

pytestmark = pytest.mark.torch
nn = torch.nn


def network(*last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), *last)


def modes(module):
    return [part.training for part in module.modules()]


class Sequences(nn.Module):
    """Token features to logits, through one kind of layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        if isinstance(self.layer, nn.MultiheadAttention):
            return self.layer(x, x, x, need_weights=False)[0]
        result = self.layer(x)
        return result[0] if isinstance(result, tuple) else result


LAYERS = {
    "alpha": lambda: nn.AlphaDropout(0.5),
    "feature alpha": lambda: nn.FeatureAlphaDropout(0.5),
    "dropout1d": lambda: nn.Dropout1d(0.5),
    "attention": lambda: nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True),
    "lstm": lambda: nn.LSTM(8, 8, num_layers=2, dropout=0.5, batch_first=True),
    "encoder": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True), 2
    ),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_passes_differ_in_eval_mode_and_modes_come_back(kind):
    torch.manual_seed(0)
    module = Sequences(LAYERS[kind]()).eval()
    with torch.no_grad():
        passes = mc_dropout(module, torch.randn(3, 5, 8), 4)
    assert passes.shape[:2] == (4, 3)
    assert (passes.std(dim=0) > 0).any()
    assert not any(modes(module))


@pytest.mark.parametrize("training", [True, False])
def test_batch_normalisation_stays_as_it_is(training):
    module = network(nn.Linear(16, 2)).train(training)
    before = module[1].running_mean.clone()
    mc_dropout(module, torch.randn(6, 4), 3)
    assert torch.equal(module[1].running_mean, before) is not training
    assert modes(module) == [training] * len(modes(module))


def test_modes_come_back_after_an_error():
    module = network(nn.Linear(99, 2)).eval()
    with pytest.raises(RuntimeError):
        mc_dropout(module, torch.randn(6, 4), 3)
    assert not any(modes(module))


def test_the_passes_are_those_of_dropout():
    # Half of the inputs are dropped, the others doubled, anew in every row and pass.
    passes = mc_dropout(nn.Sequential(nn.Dropout(0.5)), torch.ones(50, 40), 30)
    assert set(passes.unique().tolist()) == {0.0, 2.0}
    assert passes.mean().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(passes[0], passes[1])
    assert not torch.equal(passes[:, 0], passes[:, 1])


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.Dropout1d(0.5)])
def test_shared_masks_are_the_same_in_all_rows_of_a_pass(layer):
    module = nn.Sequential(layer)
    passes = mc_dropout(module, torch.ones(5, 7, 3), 20, share_masks=True)
    assert (passes == passes[:, :1]).all()
    assert set(passes.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(passes[0], passes[1])
    assert "forward" not in vars(layer)


def test_a_row_with_shared_masks_does_not_hang_on_its_neighbours():
    module, x = network(nn.Linear(16, 2)).eval(), torch.randn(6, 4)

    def run(rows):
        torch.manual_seed(1)
        return mc_dropout(module, rows, 5, share_masks=True)

    torch.testing.assert_close(run(x)[:, 2:3], run(x[2:3]))


def test_few_rows_at_once_give_as_many_passes():
    sizes = []
    module = network()
    module.register_forward_hook(lambda *args: sizes.append(args[2].shape[0]))
    passes = mc_dropout(module, torch.randn(6, 4), 5, max_rows=13)
    assert sizes == [12, 12, 6]
    assert passes.shape == (5, 6, 16)
    assert mc_dropout(module, torch.randn(6, 4), 2, max_rows=1).shape == (2, 6, 16)


def rows_of(layer):
    sizes = []
    layer.register_forward_hook(lambda *run: sizes.append(run[2].shape[0]))
    return sizes


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("share_masks", [True, False])
def test_what_lies_before_the_first_dropout_runs_once(training, share_masks):
    module = network(nn.Linear(16, 2)).train(training)
    first, last = rows_of(module[0]), rows_of(module[-1])
    mc_dropout(module, torch.randn(6, 4), 5, share_masks=share_masks)
    assert (first, last) == ([6], [30])


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.second = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 4))

    def forward(self, x):
        hidden = self.first(x)
        return hidden + self.second(hidden)


class Functional(nn.Module):
    """Draws before its first layer of dropout, where nobody sees it."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(nn.functional.dropout(x, 0.3))


NETWORKS = {
    "sequential": lambda: network(nn.Linear(16, 8), nn.Dropout(0.2)),
    "in place": lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5, inplace=True)),
    "residual": Residual,
    "functional": Functional,
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_passes_are_those_of_the_whole_network_run_on_repeated_rows(kind):
    torch.manual_seed(0)
    module = NETWORKS[kind]().eval()
    x = torch.randn(6, 4)
    for layer in module.modules():
        layer.training = isinstance(layer, nn.Dropout)
    torch.manual_seed(1)
    expected = module(x.repeat(5, 1)).unflatten(0, (5, 6))
    for _ in range(2):  # A network that cannot be split is known the second time.
        torch.manual_seed(1)
        torch.testing.assert_close(mc_dropout(module, x, 5), expected)


def test_a_network_that_cannot_be_split_leaves_no_trace_of_the_trial():
    torch.manual_seed(0)
    whole, module = Residual(), Residual()
    module.load_state_dict(whole.state_dict())
    x = torch.randn(6, 4)
    whole(x.repeat(5, 1))
    mc_dropout(module, x, 5)
    for name, value in whole.state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name
    assert not any("forward" in vars(layer) for layer in module.modules())


def test_an_error_of_one_input_does_not_keep_a_network_from_being_split():
    module = network(nn.Linear(16, 2))
    with pytest.raises(RuntimeError):
        mc_dropout(module, torch.randn(6, 5), 3)
    first = rows_of(module[0])
    mc_dropout(module, torch.randn(6, 4), 3)
    assert first == [6]


def early_and_late():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Dropout(0.5), nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2)
    )


@pytest.mark.parametrize("training", [True, False])
def test_with_sites_all_other_dropout_is_off(training):
    module, x = early_and_late().train(training), torch.randn(6, 4)
    before = modes(module)
    first, last = rows_of(module[1]), rows_of(module[4])
    torch.manual_seed(1)
    passes = mc_dropout(module, x, 5, sites=["3"])
    assert (first, last) == ([6], [30])
    assert modes(module) == before
    hidden = module[2](module[1](x)).repeat(5, 1)
    torch.manual_seed(1)
    expected = module[4](nn.functional.dropout(hidden, 0.5)).unflatten(0, (5, 6))
    torch.testing.assert_close(passes, expected)


def test_a_network_is_split_at_some_sites_though_not_at_others():
    module, x = nn.Sequential(Residual(), nn.Dropout(0.5)).eval(), torch.randn(6, 4)
    inner = rows_of(module[0])
    for sites, rows in ((None, 30), (["1"], 6), (["0"], 30), (["1"], 6)):
        mc_dropout(module, x, 5, sites=sites)
        assert inner[-1] == rows


@pytest.mark.parametrize("site", ["self_attn", "dropout", "dropout1", "dropout2"])
def test_a_site_within_a_transformer_layer_drops(site):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True).eval()
    with torch.no_grad():
        passes = mc_dropout(layer, torch.randn(3, 5, 8), 4, sites=[site])
    assert (passes.std(dim=0) > 0).any()
    assert not any(modes(layer))


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (["head"], r"names 'head', .* layers with dropout are \['0', '3'\]"),
        (["1"], r"no dropout layer .* at sites=\('1',\), .* name parts that have one"),
        ([], r"at sites=\(\)"),
    ],
)
def test_sites_without_dropout_are_refused(sites, message):
    with pytest.raises(ValueError, match=message):
        mc_dropout(early_and_late(), torch.randn(6, 4), 2, sites=sites)


def test_gradients_flow_through_all_passes():
    module = network(nn.Linear(16, 2))
    x = torch.randn(6, 4, requires_grad=True)
    passes = mc_dropout(module, x, 3)
    grads = [
        torch.autograd.grad(p.sum(), module[0].weight, retain_graph=True)[0]
        for p in passes
    ]
    assert all(grad.abs().sum() > 0 for grad in grads)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, left, right):
        return self.dropout(left) + right


@pytest.mark.parametrize("kind", [tuple, list, dict])
def test_several_inputs_are_repeated_together(kind):
    left, right = torch.zeros(4, 2), torch.arange(8.0).reshape(4, 2)
    x = {"right": right, "left": left} if kind is dict else kind([left, right])
    passes = mc_dropout(TwoInputs(), x, 3)
    assert torch.equal(passes, right.expand(3, 4, 2))


class TokenModel(nn.Module):
    """As Hugging Face has them: inputs by name, an output with logits."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, input_ids, attention_mask=None, use_cache=True):
        hidden = self.embedding(input_ids)
        if attention_mask is not None:
            hidden = hidden * attention_mask.unsqueeze(-1)
        return Output(self.dropout(hidden).mean(dim=1))


def test_the_logits_of_an_output_with_other_things_are_taken():
    tokens = torch.arange(6).reshape(2, 3)
    x = {"input_ids": tokens, "attention_mask": torch.ones(2, 3)}
    assert mc_dropout(TokenModel(), x, 4).shape == (4, 2, 4)


@pytest.mark.parametrize("kind", [dict, UserDict])
def test_inputs_by_name_may_hold_none_and_flags(kind):
    # As a tokenizer of Hugging Face gives them, in a UserDict.
    module, tokens = TokenModel(), torch.arange(6).reshape(2, 3)
    x = kind(input_ids=tokens, attention_mask=None, use_cache=False)
    torch.manual_seed(1)
    found = mc_dropout(module, x, 4)
    torch.manual_seed(1)
    assert torch.equal(found, mc_dropout(module, tokens, 4))


def test_inputs_without_a_tensor_and_a_single_name_for_sites_are_refused():
    with pytest.raises(TypeError, match="no tensor with rows, but ndarray"):
        mc_dropout(network(), torch.zeros(3, 4).numpy(), 2)
    with pytest.raises(TypeError, match=r"sites='2' is a single name; .* \['2'\]"):
        mc_dropout(network(), torch.zeros(3, 4), 2, sites="2")


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(4, 2),
        nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.0)),
        nn.LSTM(4, 2, num_layers=2),
    ],
)
def test_a_module_without_dropout_is_refused(module):
    with pytest.raises(ValueError, match="has no dropout layer"):
        mc_dropout(module, torch.zeros(3, 4), 2)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (nn.LSTM(16, 2), "returned a tuple"),
        (nn.Flatten(0), "along the first axis"),
    ],
)
def test_results_without_one_row_a_sample_are_refused(last, message):
    with pytest.raises(ValueError, match=message):
        mc_dropout(network(last), torch.zeros(3, 4), 2)


def test_inputs_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"different numbers of rows: \[3, 4\]"):
        mc_dropout(TwoInputs(), (torch.zeros(3, 2), torch.zeros(4, 2)), 2)


def test_no_passes_are_refused():
    with pytest.raises(ValueError, match="n_passes=0"):
        mc_dropout(network(), torch.zeros(3, 4), 0)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 8), nn.Linear(4, 8)
        self.seldom, self.often = nn.Dropout(0.01), nn.Dropout(0.5)
        self.last = nn.Linear(8, 2)

    def forward(self, x):
        return self.last(self.seldom(self.one(x)) + self.often(self.two(x)))


def test_a_row_alone_is_as_uncertain_as_beside_others():
    torch.manual_seed(0)
    branches, x = Branches().eval(), torch.randn(1, 4)
    alone = mc_dropout(branches, x, 1000)[:, 0].std(0)
    beside = mc_dropout(branches, x.repeat(2, 1), 1000)[:, 0].std(0)
    assert torch.allclose(alone, beside, rtol=0.2)


def test_what_was_put_in_the_place_of_a_dropout_layers_forward_runs():
    layer = nn.Dropout(0.5)
    layer.forward = lambda values: values * 0
    network = nn.Sequential(nn.Linear(2, 2), layer).eval()
    passes = mc_dropout(network, torch.ones(2, 2), 3)
    assert passes.abs().sum() == 0


class DropConnect(nn.Module):
    """Drops a weight, which has no rows, between two layers that drop rows."""

    def __init__(self, factor=1):
        super().__init__()
        self.first, self.last = nn.Dropout(1e-9), nn.Dropout(1e-9)
        self.linear, self.norm = nn.Linear(6, 5), nn.BatchNorm1d(6)
        self.dropout, self.factor = nn.Dropout(0.5), factor

    def forward(self, x):
        weight = self.linear.weight
        weight = self.dropout(weight if self.factor == 1 else self.factor * weight)
        return self.last(nn.functional.linear(self.first(self.norm(x)), weight))


@pytest.mark.parametrize("n_rows", [1, 4, 5])
@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("share_masks", [True, False])
def test_a_weight_is_dropped_anew_in_each_pass(n_rows, factor, share_masks):
    torch.manual_seed(0)
    module, x = DropConnect(factor).eval(), torch.randn(n_rows, 6)
    for _ in range(2):
        torch.manual_seed(1)
        passes = mc_dropout(module, x, 6, share_masks=share_masks)
        assert passes.unique(dim=0).shape[0] == 6
        torch.manual_seed(1)
        single = [mc_dropout(module, x, 1, share_masks=share_masks) for _ in range(6)]
        torch.testing.assert_close(passes, torch.cat(single))


def test_passes_of_a_dropped_weight_move_the_statistics_once_each():
    torch.manual_seed(0)
    module, x = DropConnect(), torch.randn(4, 6)
    mc_dropout(module, x, 3)
    assert module.norm.num_batches_tracked == 3
    assert not any("forward" in vars(layer) for layer in module.modules())


class SequenceFirst(nn.Module):
    """Numbers in a row to logits, with (n_steps, n_rows, n_features) inside."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(1, 8), nn.Linear(8, 2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        hidden = self.first(x.unsqueeze(-1)).transpose(0, 1)
        return self.last(torch.relu(self.dropout(hidden)).mean(0))


def test_masks_of_sequences_along_the_first_axis_are_shared_by_rows_not_by_steps():
    torch.manual_seed(0)
    module, x = SequenceFirst().eval(), torch.randn(6, 20)

    def run(rows):
        torch.manual_seed(1)
        return mc_dropout(module, rows, 10, share_masks=True)

    torch.testing.assert_close(run(x)[:, 2:3], run(x[2:3]))
    # Each pass draws for itself: passes differ by as much as those without sharing.
    shared = mc_dropout(module, x, 2000, share_masks=True).std(0).mean()
    assert shared.item() == pytest.approx(
        mc_dropout(module, x, 2000).std(0).mean().item(), rel=0.05
    )


def test_as_many_steps_as_rows_draw_each_for_itself():
    torch.manual_seed(0)
    module, x = SequenceFirst().eval(), torch.randn(1, 20)
    passes = mc_dropout(module, x, 20, share_masks=True)
    assert passes.unique(dim=0).shape[0] == 20


@pytest.mark.parametrize("rest", [Residual, lambda: network(nn.Linear(16, 2))])
def test_a_first_layer_that_works_in_place_leaves_the_input_alone(rest):
    torch.manual_seed(0)
    module, x = nn.Sequential(InPlace(), rest()).eval(), torch.randn(6, 4)
    for _ in range(2):
        results = []
        for run, rows in ((module, x), (module[1], x - 10)):
            torch.manual_seed(1)
            results.append(mc_dropout(run, rows, 4, max_rows=12))
        torch.testing.assert_close(*results)


@pytest.mark.usefixtures("eager_threads")
def test_runs_in_threads_leave_no_trace():
    module = network().eval()
    x = torch.randn(50, 4)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: mc_dropout(module, x, 4), range(200)))
    assert not any(modes(module))
    assert not any("forward" in vars(layer) for layer in module.modules())
