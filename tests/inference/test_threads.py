"""Several threads of one process: the numbers of one thread, whatever the others do."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyro
import pytest
import torch

from priorzoo.inference import (
    ELBO,
    Training,
    check_pair,
    cluster_probabilities,
    codes,
    component_means,
    descend,
    draw,
    draw_pair,
    enumerates,
    evaluate,
    importance_bound,
    reconstructions,
    save,
)
from priorzoo.inference.batch import Batch
from priorzoo.inference.randomness import Stream
from priorzoo.inference.running import FairLock

P = 6
READS = {
    "cluster_probabilities": cluster_probabilities,
    "codes": codes,
    "reconstructions": reconstructions,
    "enumerates": lambda model, guide, x: torch.tensor([enumerates(model, guide, x)]),
    "component_means": lambda model, guide, x: component_means(model)[None],
    "evaluate": lambda model, guide, x: torch.tensor([list(evaluate(model, guide, x).values())]),
}


def in_threads(calls, threads=4):
    """The results of all calls, which start together."""
    with ThreadPoolExecutor(threads) as pool:
        return [future.result(timeout=60) for future in [pool.submit(call) for call in calls]]


@pytest.mark.parametrize("name", READS)
def test_one_row_at_a_time_from_four_threads(zoo, name):
    pair, x = zoo["gmvae"].pair(), zoo["gmvae"].rows(60)
    read = READS[name]
    expected = torch.cat([read(*pair, row) for row in x.split(1)])
    found = torch.cat(in_threads([lambda row=row: read(*pair, row) for row in x.split(1)]))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert all(module.training for part in pair for module in part.modules())


def test_everything_at_the_same_time_as_a_training(zoo, tmp_path):
    """A training among other threads is that of one alone, bit for bit; they see its parameters."""
    x = zoo["gmvae"].rows(40)

    def begin():
        torch.manual_seed(0)
        return Training(*zoo["gmvae"].pair(), x, batch_size=4, seed=2, transform=torch.bernoulli)

    alone, among = begin(), begin()
    alone.run(60)
    pair, done, asked = (among.model, among.guide), threading.Event(), []

    def ask(folder):
        while not done.is_set():
            for use in (
                lambda: codes(*pair, x),
                lambda: draw(pair[0], 5, means=False),
                lambda: evaluate(*pair, x, importance_samples=2),
                lambda: check_pair(*pair),
                lambda: save(folder, *pair),
                lambda: importance_bound(*pair, x, 2),
            ):
                use()
                asked.append(use)

    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(ask, tmp_path / str(i)) for i in range(3)]
        try:
            among.run(60)
        finally:
            done.set()
        for other in others:
            other.result(timeout=60)
    assert len(asked) > 20
    states = [training.objective.state_dict() for training in (among, alone)]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    rows = [[row["elbo"] for row in training.history] for training in (among, alone)]
    assert rows[0] == rows[1]


def test_trainings_in_threads_are_each_what_they_are_alone(zoo):
    x = zoo["vae"].rows(20)

    def train(seed):
        with Stream(seed):
            pair = zoo["vae"].pair()
        training = Training(*pair, x, batch_size=4, seed=seed)
        training.run(40)
        return training.objective.state_dict()

    expected = [train(seed) for seed in range(4)]
    found = in_threads([lambda seed=seed: train(seed) for seed in range(4)])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_loops_of_ones_own_in_threads(zoo):
    """Their draws come from one global state, so that only their number is compared."""
    x = zoo["gmvae"].rows(8)

    def train():
        objective = ELBO(*zoo["gmvae"].pair())
        optimiser = torch.optim.Adam(objective.parameters(), 0.01)
        return [descend(objective, optimiser, x)["elbo"].item() for _ in range(20)][-1]

    found = torch.tensor(in_threads([train] * 4))
    assert found.isfinite().all()


def test_pyros_settings_and_the_random_state_come_out_as_they_went_in(zoo):
    pair, x = zoo["gmvae"].pair(), zoo["gmvae"].rows(20)
    before = torch.get_rng_state()
    settings = pyro.settings.get()
    uses = [
        lambda: codes(*pair, x),
        lambda: evaluate(*pair, x),
        lambda: check_pair(*pair),
        lambda: enumerates(*pair, x),
    ]
    in_threads(uses * 8)
    assert torch.equal(torch.get_rng_state(), before)
    objective = ELBO(*pair)
    uses = [
        lambda: objective(x)[0].backward(),
        lambda: objective.terms(x),
        lambda: importance_bound(*pair, x, 2),
        lambda: draw_pair(*pair, Batch(x), 2).log_weights(),
        lambda: draw(pair[0], 3),
    ]
    in_threads(uses * 8)
    assert pyro.settings.get() == settings


def test_a_prediction_waits_for_a_step_and_not_for_a_pass(zoo):
    """A training hands over between two steps."""
    x = zoo["vae"].rows(400)
    training = Training(*zoo["vae"].pair(), x, batch_size=1)
    begun, waits = threading.Event(), []

    def look(rows):
        begun.set()
        return rows

    training.batches.transform = look

    def ask():
        begun.wait()
        for _ in range(5):
            before = training.step
            codes(training.model, training.guide, x[:1])
            waits.append(training.step - before)
            time.sleep(0.001)

    thread = threading.Thread(target=ask)
    thread.start()
    training.run(400)
    thread.join()
    assert max(waits) < 50


def test_the_lock_is_given_in_the_order_of_request():
    lock, order = FairLock(), []

    def take(name):
        with lock, lock:
            order.append(name)

    with lock:
        threads = []
        for name in range(5):
            threads.append(threading.Thread(target=take, args=(name,)))
            threads[-1].start()
            while len(lock._queue) <= name:
                time.sleep(0.001)
        assert lock.is_contended
    for thread in threads:
        thread.join()
    assert order == list(range(5))
    assert not lock.is_contended
    assert (lock._owner, lock._depth) == (0, 0)


def test_the_lock_is_released_after_an_error(zoo):
    pair, broken = zoo["gmvae"].pair(), zoo["gmvae"].pair()
    broken[1].classifier = torch.nn.Linear(P + 1, 3)
    calls = [lambda: codes(*broken, torch.zeros(1, P))] * 4 + [
        lambda: codes(*pair, torch.ones(1, P))
    ]
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(call) for call in calls]
        for future in futures[:4]:
            with pytest.raises(RuntimeError, match="shape"):
                future.result(timeout=60)
        assert futures[4].result(timeout=60).shape == (1, 2)


def test_a_random_state_that_is_refused_holds_up_no_other_thread():
    stream = Stream(0)
    stream.state = [torch.zeros(3, dtype=torch.uint8)]
    with pytest.raises(RuntimeError), stream:
        pass
    assert in_threads([lambda: 1], threads=1) == [1]

    def drawn():
        with Stream(1):
            return 2

    assert in_threads([drawn], threads=1) == [2]
