"""The projection against its definition, dense arithmetic, scipy and torch.distributions."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
import torch
from torch.distributions import Categorical, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode

from knnlm.experiments.softmax_bottleneck.convex_projection import optimum, truncated_head
from knnlm.experiments.softmax_bottleneck.mixture import Mixture
from knnlm.experiments.softmax_bottleneck.projection import kl_and_gradient, project, score
from knnlm.experiments.softmax_bottleneck.stops import Stop, Watch
from knnlm.retrieval.distribution import knn_distribution

N, DIM, N_TOKENS, K = 7, 5, 60, 12
DIRECTIONS = ["p||f", "f||p"]
ALL_UPDATES = Stop("end", "mean", None)
WIKITEXT_TOKENS = 267_744  # words of WikiText-103: the largest vocabulary of the papers


def a_mixture(*, lmbda=0.25, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    head = torch.randn(N_TOKENS, DIM, generator=generator, dtype=dtype)
    hidden = torch.randn(N, DIM, generator=generator, dtype=dtype)
    values = torch.randint(N_TOKENS, (N, K), generator=generator)
    distances = torch.rand(N, K, generator=generator) * 9
    return Mixture(hidden, head, *knn_distribution(distances, values, temperature=2.0), lmbda)


def some_targets():
    return torch.randint(N_TOKENS, (N,), generator=torch.Generator().manual_seed(9))


def dense(mixture):
    """Return p over all tokens, by the definition."""
    p = (1 - mixture.lmbda) * (mixture.lm_hidden @ mixture.lm_head.T).double().softmax(dim=1)
    for row, (values, probabilities) in enumerate(
        zip(mixture.values, mixture.probabilities, strict=True)
    ):
        for value, probability in zip(values, probabilities, strict=True):
            p[row, value] += mixture.lmbda * probability
    return p


def kl_p_f(mixture, head, z):
    """Return KL[p || softmax(W z)] of each query, by the definition."""
    q = Categorical(logits=z.double() @ head.double().T)
    return kl_divergence(Categorical(probs=dense(mixture)), q)


def kl_by_scipy(mixture, head):
    """Return the least KL of each query, by a dense Newton method."""
    rows, least = head.double().numpy(), []
    for p in dense(mixture).numpy():

        def value(z, p=p):
            logits = rows @ z
            return p @ (np.log(p) - logits) + np.logaddexp.reduce(logits)

        def gradient(z, p=p):
            return (softmax(rows @ z) - p) @ rows

        def hessian(z, p=p):
            q = softmax(rows @ z)
            mean = q @ rows
            return (rows * q[:, None]).T @ rows - np.outer(mean, mean)

        found = scipy.optimize.minimize(
            value,
            np.zeros(rows.shape[1]),
            jac=gradient,
            hess=hessian,
            method="trust-exact",
            options={"gtol": 1e-9},
        )
        least.append(found.fun)
    return torch.tensor(least, dtype=torch.float64)


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def solve(mixture, head=None, **settings):
    head = mixture.lm_head if head is None else head
    start = torch.zeros(len(mixture), head.shape[1])
    return optimum(
        head,
        mixture,
        settings.pop("start", start),
        **{"tolerance": 1e-6, "max_evaluations": 1000, "tile": N, **settings},
    )


def close(actual, expected, *, atol=1e-10):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


# The mixture


def test_the_mixture_is_the_interpolation():
    mixture = a_mixture()

    close(mixture.log_probs(slice(None)).exp(), dense(mixture), atol=1e-14)


def test_at_lmbda_0_the_mixture_is_the_lm_itself():
    mixture = a_mixture(lmbda=0.0)

    expected = (mixture.lm_hidden @ mixture.lm_head.T).log_softmax(dim=1)

    assert torch.equal(mixture.log_probs(slice(None)), expected)


def test_an_unused_place_takes_nothing_from_token_0():
    values = torch.tensor([[0, 1, 0]])
    probabilities = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    mixture = Mixture(torch.ones(1, 1), torch.zeros(4, 1), values, probabilities, 0.5)

    p = mixture.log_probs(slice(None)).exp()

    close(p, torch.tensor([[0.375, 0.375, 0.125, 0.125]], dtype=torch.float64), atol=1e-12)


def test_a_neighbor_that_the_lm_rules_out_keeps_its_probability():
    head = torch.tensor([[0.0], [-2000.0]])  # exp(-2000) is 0 in float64
    mixture = Mixture(
        torch.ones(1, 1), head, torch.tensor([[1]]), torch.ones(1, 1, dtype=torch.float64), 0.25
    )

    expected = torch.tensor([[0.75, 0.25]], dtype=torch.float64).log()

    close(mixture.log_probs(slice(None)), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lmbda": 1.0}, "lmbda must be in"),
        ({"lmbda": -0.1}, "lmbda must be in"),
        ({"lm_head": torch.zeros(N_TOKENS, DIM + 1)}, "lm_head of width 5"),
        ({"values": torch.zeros(N, 2, dtype=torch.int64)}, "values and probabilities"),
        (
            {
                "values": torch.ones(N, 2, dtype=torch.int64),
                "probabilities": torch.full((N, 2), 0.5, dtype=torch.float64),
            },
            "use knn_distribution",
        ),
    ],
)
def test_a_mixture_that_is_none_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(a_mixture(), **change)


# The two divergences


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_kl_and_its_gradient_are_those_of_torch(direction):
    p = Categorical(probs=dense(a_mixture()))
    logits = torch.randn(N, N_TOKENS, dtype=torch.float64, requires_grad=True)
    q = Categorical(logits=logits)
    expected = kl_divergence(p, q) if direction == "p||f" else kl_divergence(q, p)
    (by_autograd,) = torch.autograd.grad(expected.sum(), logits)

    kl, gradient = kl_and_gradient(logits.detach(), p.probs.log(), direction=direction)

    close(kl, expected.detach())
    close(gradient, by_autograd)


def test_a_direction_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r'got "p\|f"'):
        kl_and_gradient(torch.zeros(1, 2), torch.zeros(1, 2), direction="p|f")


@pytest.mark.parametrize("tile", [1, 3, N])
def test_scores_are_both_kls_and_the_nll(tile):
    mixture, targets = a_mixture(), some_targets()
    z = torch.randn(N, DIM, dtype=torch.float64)
    p = Categorical(probs=dense(mixture))
    q = Categorical(logits=z @ mixture.lm_head.T)

    scores = score(lambda z: z @ mixture.lm_head.T, z, mixture, targets, tile=tile)

    close(scores.kl_p_f, kl_divergence(p, q))
    close(scores.kl_f_p, kl_divergence(q, p))
    close(scores.nll, -q.log_prob(targets))


# The paper's optimizer


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("tile", [2, N])
def test_project_is_adam_on_the_kl(direction, tile):
    mixture, p = a_mixture(), Categorical(probs=dense(a_mixture()))

    def f(z):
        return torch.nn.functional.layer_norm(z, (DIM,)) @ mixture.lm_head.T

    z = mixture.lm_hidden.clone().requires_grad_()
    adam = torch.optim.Adam([z], lr=0.1)
    expected = []
    for step in range(16):
        q = Categorical(logits=f(z))
        kl = kl_divergence(p, q) if direction == "p||f" else kl_divergence(q, p)
        expected.append(float(kl.detach().mean()))
        if step < 15:
            adam.zero_grad()
            kl.sum().backward()
            adam.step()

    found = project(
        f,
        mixture.lm_hidden,
        mixture,
        direction=direction,
        lr=0.1,
        stops=[ALL_UPDATES],
        max_steps=15,
        tile=tile,
    )

    np.testing.assert_allclose(found.kl_trace, expected, rtol=1e-9)
    end = found.ends["end"]
    close(end.z, z.detach(), atol=1e-8)
    assert (end.updates == 15).all()
    assert not end.stopped.any()


def walk(mixture, stops, *, direction="p||f", lr=0.1, max_steps=200, tile=N):
    """Walk with Adam on the bare head from where it gives the LM."""
    return project(
        lambda z: z @ mixture.lm_head.T,
        mixture.lm_hidden,
        mixture,
        direction=direction,
        lr=lr,
        stops=stops,
        max_steps=max_steps,
        tile=tile,
    )


def test_the_path_of_a_query_does_not_depend_on_the_others():
    mixture = a_mixture()
    first = replace(
        mixture,
        lm_hidden=mixture.lm_hidden[:1],
        values=mixture.values[:1],
        probabilities=mixture.probabilities[:1],
    )

    together, alone = (
        walk(some, [ALL_UPDATES], max_steps=30).ends["end"] for some in (mixture, first)
    )

    close(together.z[:1], alone.z)


# Where it stops


def ends_at(kl, tolerance):
    """Return the first update that lowers a KL, to its lowest so far, by less; None if none."""
    for update in range(1, len(kl)):
        fall = kl[update - 1] - kl[update]
        if 0 <= fall < tolerance and kl[update] <= min(kl[:update]):
            return update
    return None


@pytest.mark.parametrize("tolerance", [0.01, 0.003, 0.001, 0.0003])
def test_project_stops_at_the_first_fall_of_the_mean_kl_by_less(tolerance):
    mixture = a_mixture(dtype=torch.float32)
    settings = {"direction": "f||p", "lr": 0.01, "tile": 4}
    trace = walk(mixture, [ALL_UPDATES], **settings).kl_trace

    stopped = walk(mixture, [Stop("mean", "mean", tolerance)], **settings)

    expected = ends_at(trace, tolerance)
    end = stopped.ends["mean"]
    assert (end.updates == expected).all()
    assert end.stopped.all()
    assert stopped.kl_trace == trace[: expected + 1]
    q = Categorical(logits=end.z.double() @ mixture.lm_head.double().T)
    final = kl_divergence(q, Categorical(probs=dense(mixture))).mean()
    assert stopped.kl_trace[-1] == pytest.approx(float(final), abs=1e-5)


def test_project_does_not_stop_at_a_rise():
    mixture = a_mixture()
    changes = np.diff(walk(mixture, [ALL_UPDATES]).kl_trace)
    rise = int(np.argmax(changes > 0))
    assert changes[rise] < np.abs(changes[:rise]).min()  # a tolerance that only the rise is below

    stopped = walk(mixture, [Stop("mean", "mean", changes[rise] * 1.01)])

    trace = stopped.kl_trace
    assert stopped.ends["mean"].stopped.all()
    assert trace[-1] < trace[-2]
    assert trace[-1] == min(trace)


@pytest.mark.parametrize(
    ("kl", "update"),
    [
        ([5.0, 5.5, 4.0, 3.5], 3),  # a rise by less
        ([5.0, 7.0, 6.5, 3.0, 2.5], 4),  # a fall by less, from a rise: it stands above its start
        ([5.0, 3.0, 4.0, 3.5, 2.9], 4),  # the same above what it had reached
        ([5.0, 4.0, 4.0], 2),  # no change is less than any tolerance
        ([5.0, 5.5, 5.7], None),
    ],
)
@pytest.mark.parametrize("whose", ["mean", "each"])
def test_a_watch_ends_a_walk_at_a_small_fall_to_its_lowest(kl, update, whose):
    watch = Watch(Stop("rule", whose, 0.8), torch.zeros(2, DIM))

    for updates, value in enumerate(kl):
        z = torch.full((2, DIM), float(updates))
        watch.see(z, torch.full((2,), value, dtype=torch.float64), updates=updates)

    last = len(kl) - 1 if update is None else update
    assert watch.over == (update is not None)
    assert watch.updates.tolist() == [last] * 2
    assert torch.equal(watch.z, torch.full((2, DIM), float(last)))


def test_every_rule_sees_one_walk_and_ends_it_as_if_it_were_alone():
    mixture = a_mixture()
    rules = [
        Stop("mean", "mean", 1e-2),
        Stop("each", "each", 1e-2),
        Stop("tight", "mean", 1e-4),
    ]

    together = walk(mixture, rules)

    for rule in rules:
        alone = walk(mixture, [rule])
        for name in ("z", "updates", "stopped"):
            found = (getattr(found.ends[rule.name], name) for found in (together, alone))
            assert torch.equal(*found)
    last = max(int(end.updates.max()) for end in together.ends.values())
    assert len(together.kl_trace) - 1 == last < 200


def test_by_the_rule_of_each_a_query_ends_by_its_own_kl():
    mixture = a_mixture()
    tolerance = 1e-2
    rows = [slice(row, row + 1) for row in range(N)]
    alone = [
        replace(
            mixture,
            lm_hidden=mixture.lm_hidden[row],
            values=mixture.values[row],
            probabilities=mixture.probabilities[row],
        )
        for row in rows
    ]

    end = walk(mixture, [Stop("each", "each", tolerance)]).ends["each"]

    expected = [ends_at(walk(one, [ALL_UPDATES]).kl_trace, tolerance) for one in alone]
    assert end.updates.tolist() == expected
    assert len(set(expected)) > 1
    for row, updates, one in zip(rows, expected, alone, strict=True):
        close(end.z[row], walk(one, [ALL_UPDATES], max_steps=updates).ends["end"].z)


def test_what_no_rule_ended_ends_at_the_last_update():
    end = walk(a_mixture(), [Stop("mean", "mean", 1e-9)], max_steps=5).ends["mean"]

    assert (end.updates == 5).all()
    assert not end.stopped.any()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_at_lmbda_0_the_lm_is_where_project_stays(direction):
    mixture = a_mixture(lmbda=0.0)

    found = walk(mixture, [Stop("mean", "mean", 0.001)], direction=direction, max_steps=10)

    np.testing.assert_allclose(found.kl_trace, 0, atol=1e-12)
    close(found.ends["mean"].z, mixture.lm_hidden, atol=1e-6)


# The optimum


@pytest.mark.parametrize("lmbda", [0.25, 0.9])
def test_the_optimum_is_that_of_a_dense_newton_method(lmbda):
    mixture = a_mixture(lmbda=lmbda)

    found = solve(mixture)

    close(found.kl, kl_by_scipy(mixture, mixture.lm_head))
    close(found.kl, kl_p_f(mixture, mixture.lm_head, found.z))


def test_the_certificate_is_the_missing_share_of_the_way_to_the_mean():
    mixture = a_mixture()
    head, p = mixture.lm_head, dense(mixture)
    weights = (p.mean(dim=0) + 1 / N_TOKENS) / 2
    centered = head - weights @ head
    precision = torch.linalg.inv((centered.T * weights) @ centered)
    way = p @ head - head.mean(dim=0)

    for max_evaluations in (2, 1000):
        found = solve(mixture, max_evaluations=max_evaluations)

        missing = ((found.z @ head.T).softmax(dim=1) - p) @ head
        shares = [
            ((missing @ metric * missing).sum(dim=1) / (way @ metric * way).sum(dim=1)).sqrt()
            for metric in (torch.eye(DIM, dtype=torch.float64), precision)
        ]
        close(found.certificate, torch.maximum(*shares), atol=1e-13)

    assert (found.certificate <= 1e-6).all()


def test_a_descent_that_was_cut_short_does_not_certify():
    found = solve(a_mixture(), max_evaluations=2)

    assert (found.certificate > 1e-6).all()


def falls_nearby(mixture, z, *, by):
    """Return whether some step of length 1e-5 to 1 lowers the KL of some query."""
    generator = torch.Generator().manual_seed(1)
    here = kl_p_f(mixture, mixture.lm_head, z)
    for length in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        for _ in range(40):
            way = torch.randn(z.shape, generator=generator, dtype=z.dtype)
            there = z + length * way / way.norm(dim=1, keepdim=True)
            if (kl_p_f(mixture, mixture.lm_head, there) < here - by).any():
                return True
    return False


def test_no_point_near_a_certified_optimum_is_better():
    mixture = a_mixture()

    assert falls_nearby(mixture, solve(mixture, tolerance=0.03).z, by=1e-9)
    assert not falls_nearby(mixture, solve(mixture, tolerance=1e-6).z, by=1e-11)


def test_the_kl_of_no_query_ever_rises():
    mixture, seen = a_mixture(), []

    found = solve(mixture, observe=lambda kl: seen.append(kl.clone()))

    assert found.n_evaluations == len(seen)
    rises = torch.stack(seen).diff(dim=0).max()
    assert rises < 1e-5  # what float32 can tell
    close(seen[-1], found.kl)


def test_at_lmbda_0_the_optimum_is_the_lm_itself():
    mixture = a_mixture(lmbda=0.0)

    found = solve(mixture)

    close(found.kl, torch.zeros(N, dtype=torch.float64))
    expected = (mixture.lm_hidden @ mixture.lm_head.T).log_softmax(dim=1)
    close((found.z @ mixture.lm_head.T).log_softmax(dim=1), expected, atol=1e-3)


def test_tiles_and_starts_change_no_optimum():
    mixture = a_mixture()

    one = solve(mixture)
    another = solve(mixture, start=mixture.lm_hidden, tile=2)

    close(one.kl, another.kl)


def test_the_optimum_of_a_peaky_lm_is_certified_from_anywhere():
    mixture = a_mixture()
    peaky = replace(mixture, lm_hidden=40 * mixture.lm_hidden)  # largest p_LM: 1 - 1e-20

    near, far = solve(peaky, start=peaky.lm_hidden), solve(peaky)

    assert (near.certificate <= 1e-6).all()
    close(near.kl, far.kl)


def test_directions_of_very_different_size_cost_neither_kl_nor_evaluations():
    mixture = a_mixture()
    sizes = torch.logspace(-2, 2, DIM, dtype=torch.float64)

    even, uneven = solve(mixture), solve(mixture, mixture.lm_head * sizes)

    close(even.kl, uneven.kl)
    assert uneven.n_evaluations <= even.n_evaluations + 3


def test_a_head_of_another_width_is_projected_on_with_the_old_distributions():
    mixture = a_mixture()
    generator = torch.Generator().manual_seed(5)

    for width in (2, 9):
        head = torch.randn(N_TOKENS, width, generator=generator)

        found = solve(mixture, head)

        close(found.kl, kl_by_scipy(mixture, head))
        assert (found.certificate <= 1e-6).all()


def test_truncation_is_that_of_the_svd_and_costs_kl():
    mixture = a_mixture()
    left, sizes, right = torch.linalg.svd(mixture.lm_head, full_matrices=False)
    least = []

    for rank in range(1, DIM + 1):
        head = truncated_head(mixture.lm_head, rank=rank)
        cut = (left[:, :rank] * sizes[:rank]) @ right[:rank]
        close(head @ head.T, cut @ cut.T)
        assert head.shape == (N_TOKENS, rank)
        least.append(solve(mixture, head).kl)

    assert (torch.stack(least).diff(dim=0) <= 1e-12).all()
    close(least[-1], solve(mixture).kl)


def test_directions_that_change_no_distribution_do_no_harm():
    mixture = a_mixture()
    head = mixture.lm_head
    shifted = torch.cat([head, head[:, :2], torch.full((N_TOKENS, 1), 3.0)], dim=1) + 10

    found = solve(mixture, shifted)

    close(found.kl, solve(mixture).kl)
    assert (found.certificate <= 1e-6).all()


@pytest.mark.parametrize("rank", [0, DIM + 1])
def test_a_rank_that_the_head_does_not_have_is_refused(rank):
    with pytest.raises(ValueError, match="rank must be in 1 to 5"):
        truncated_head(a_mixture().lm_head, rank=rank)


def test_shapes_that_do_not_fit_are_refused():
    mixture = a_mixture()

    with pytest.raises(ValueError, match=r"expected start \(7, 5\)"):
        solve(mixture, start=torch.zeros(N, DIM + 1))
    with pytest.raises(ValueError, match="a head of 60 tokens"):
        solve(mixture, torch.zeros(N_TOKENS + 1, DIM))
    with pytest.raises(ValueError, match="tile must be at least 1"):
        solve(mixture, tile=0)


# Memory


class LargestTensor(TorchDispatchMode):
    """Remembers the largest number of elements that any operation returned."""

    def __init__(self):
        super().__init__()
        self.n_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for part in out if isinstance(out, tuple | list) else (out,):
            if isinstance(part, torch.Tensor):
                self.n_elements = max(self.n_elements, part.numel())
        return out


def test_at_the_vocabulary_of_wikitext_no_array_outgrows_a_tile():
    n, dim, tile = 9, 2, 3
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(WIKITEXT_TOKENS, dim, generator=generator)
    hidden = torch.randn(n, dim, generator=generator)
    values = torch.randint(WIKITEXT_TOKENS, (n, 4), generator=generator)
    neighbors = knn_distribution(torch.rand(n, 4, generator=generator), values, temperature=1.0)
    mixture = Mixture(hidden, head, *neighbors, 0.25)
    targets = torch.zeros(n, dtype=torch.int64)

    def f(z):
        return z @ head.T

    with LargestTensor() as largest:
        found = optimum(head, mixture, hidden, tolerance=1e-6, max_evaluations=4, tile=tile)
        walked = project(
            f,
            hidden,
            mixture,
            direction="f||p",
            lr=0.1,
            stops=[ALL_UPDATES],
            max_steps=2,
            tile=tile,
        )
        scores = score(f, walked.ends["end"].z, mixture, targets, tile=tile)

    assert largest.n_elements == tile * WIKITEXT_TOKENS
    assert (scores.kl_p_f > 0).all()
    assert (found.kl > 0).all()
