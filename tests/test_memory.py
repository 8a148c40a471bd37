"""The memory that a run may plan with."""

import pytest
import torch

from revela_rag import memory


@pytest.mark.parametrize(
    ("error", "memory_ran_out"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough; Cannot allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_a_lack_of_memory_is_known_by_whatever_it_is_called(error, memory_ran_out):
    assert memory.is_out_of_memory(error) is memory_ran_out


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Pretend a container's files and what the machine has free."""

    def pretend(free, **files):
        for name, text in files.items():
            (tmp_path / name.replace("_", ".", 1)).write_text(f"{text}\n", encoding="ascii")
        monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
        monkeypatch.setattr(memory, "_machine", lambda: free)

    return pretend


def test_this_machine_has_some():
    assert memory.available_memory() > 10**8


def test_a_container_takes_less(machine):
    machine(8000, memory_max="5000", memory_current="4000", memory_stat="anon 1000\ninactive_file 1500\nfile 3000")
    assert memory.available_memory() == 2500


@pytest.mark.parametrize("limit", ["max", "9000"])
def test_a_wide_container_has_what_the_machine_has(machine, limit):
    machine(3000, memory_max=limit, memory_current="100", memory_stat="anon 100")
    assert memory.available_memory() == 3000


def test_without_a_container_or_with_files_that_say_nothing(machine):
    machine(3000)
    assert memory.available_memory() == 3000
    machine(3000, memory_max="much", memory_current="100")
    assert memory.available_memory() == 3000
    machine(None)
    assert memory.available_memory() is None
