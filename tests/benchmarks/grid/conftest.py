import multiprocessing

import pytest

from priorzoo.benchmarks.grid import processes


@pytest.fixture(scope="module")
def quick_processes():
    """Processes that are forked from one that has imported everything, which takes seconds."""
    if "forkserver" not in multiprocessing.get_all_start_methods():  # on Windows
        yield
        return
    multiprocessing.set_forkserver_preload(
        ["priorzoo.benchmarks.grid.cells", "sklearn.cluster", "torch._dynamo", "matplotlib.pyplot"]
    )
    server = multiprocessing.get_context("forkserver")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(processes, "get_context", lambda _: server)
        yield
