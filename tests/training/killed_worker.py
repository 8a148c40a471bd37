"""Trains until it is done or until its number is up; run by test_resume.py.

Every computed step and every file of a checkpoint counts one tick. At the given tick the process kills itself with
SIGKILL, in the middle of a file if that is what it is at.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save, save_file
from world_worker import STEPS, build, settings

from revela_training.loop import checkpoint, trainer
from revela_training.loop.distributed import World
from revela_training.loop.step import Step

out, tick, case, *sources = sys.argv[1:]
left = int(tick)


def count(target: Path | None = None, content: bytes = b"") -> None:
    global left
    left -= 1
    if left == 0:
        if target is not None:
            with target.open("wb") as file:
                file.write(content[: len(content) // 2])
        print("killed", "while writing " + target.name if target else "at a step", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


compute = Step.__call__


def counted_step(self: Step, batch: Any) -> Any:
    result = compute(self, batch)
    count()
    return result


def counted_save_file(tensors: Any, target: Any, *args: Any, **kwargs: Any) -> None:
    count(Path(target), save(tensors, *args, **kwargs))
    save_file(tensors, target, *args, **kwargs)


Step.__call__ = counted_step  # type: ignore[method-assign]
trainer.save_file = checkpoint.save_file = counted_save_file

world = World()
config = settings(case, world).replace(checkpoint_steps=3, lora_dropout=0.1, max_steps=STEPS)
model, dataset, collator = build(config, world, *sources)
folder = Path(out)
found = checkpoint.latest_checkpoint(folder)
print("from", found.name if found else "the start", flush=True)
trainer.train(model, dataset, collator, config, folder=folder, resume=True, show_progress=False, world=world)
save_file(model.state_dict(), folder / "final.safetensors")
