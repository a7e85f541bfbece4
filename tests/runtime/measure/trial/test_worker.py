"""The model's process: it answers, is refused where it has no room, and is gone afterwards. Weights are random."""

import os
import signal
from pathlib import Path

import pytest

from fleetcast.base.errors import Infeasible
from fleetcast.runtime.measure.trial import Tier, contexts, measure_cell
from fleetcast.runtime.measure.trial.application import Application, Worker, WorkerError

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")
pytest.importorskip("aiohttp", reason="aiohttp is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from fleetcast.runtime.llm.shape import read_shape
    from fleetcast.runtime.training.folder import config, save
    from fleetcast.runtime.training.lm import initial
    from fleetcast.runtime.training.tokens import byte_tokenizer

    table = config(hidden=32, layers=1, heads=2, context=256, tied=True)
    place = tmp_path_factory.mktemp("model")
    return save(place, table, initial(read_shape(table)), tokenizer=byte_tokenizer())


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_worker_answers_and_is_gone_afterwards(folder) -> None:
    log = contexts.logs(1, 4)[0]
    with Worker(folder) as worker, Application(worker, worker.port) as application:
        answer = application.ask(log)
        assert answer.tokens[0] == len(log.text())
        assert 0 < answer.tokens[1] <= 40
        assert answer.cpu > 0
        assert answer.seconds > 0
        assert answer.size[0] > len(log.text())
        assert worker.held()["mapped"] > 0
    assert gone(worker.pid)


def test_a_model_without_room_is_refused_and_leaves_nothing(folder) -> None:
    with pytest.raises(Infeasible, match="memory of the tier"):
        Worker(folder, room=1e6)
    cell = measure_cell(folder, "tiny", Tier("device", 1.0, 1e6), contexts.logs(1, 4))
    assert not cell.fits
    assert "does not fit" in cell.refusal


def test_a_worker_that_is_killed_is_no_want_of_memory(folder) -> None:
    with Worker(folder) as worker, Application(worker, worker.port) as application:
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="ended"):
            application.ask(contexts.logs(1, 4)[0])
    assert gone(worker.pid)
