import shutil
from pathlib import Path

import pytest
import torch
from model.conftest import sentence_transformer

from .support import ATTACK


@pytest.fixture(scope="session")
def sound(tmp_path_factory) -> Path:
    return sentence_transformer(tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "canary"


@pytest.fixture
def model(sound, tmp_path, canary, monkeypatch) -> Path:
    """A sound model whose directory, and the path that Python imports from, hold code of the attacker."""
    path = Path(shutil.copytree(sound, tmp_path / "model"))
    code = ATTACK.format(canary=str(canary))
    (path / "evil_model.py").write_text(code)
    (tmp_path / "evil_installed.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("a pickle was opened"))
    return path
