"""What fits into a limit on the time of a whole adaptation, and what a person waits for meanwhile."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from revela_rag.corpus import Chunk
from revela_training.loop.distributed import World
from revela_training.loop.precision import compute_dtype
from revela_training.plan import RunPlan
from revela_training.retriever.backbone import TrainableRetriever
from revela_training.retriever.vectors import VectorRetriever

__all__ = ["Budget", "Plan", "Work", "work_of"]

logger = logging.getLogger(__name__)

_PLAN_FILE = "plan.json"
_CHARACTERS = 4  # of a token, about; only proportions count
_QUERY_TOKENS = 20  # of a query, about
_WITNESSES = 800  # queries of the gate's two further kinds, about
_AT_ONCE, _MEASURED, _SECONDS = 8, 96, 2.0  # texts to measure the speed by
#: Shares of what time is left: for what trains beside embedding, and of embedding for what is judged by.
_TRAINING = {"linear": 0.1, "lora": 0.5}
_JUDGING = 0.4
_OVERHEAD = 0.1  # of the limit, for reading vectors, searching and writing the model
_FEWEST = {"texts": 256, "pseudo": 64, "documents": 200, "queries": 64}  # however little time there is
_STEP = 0.05  # seconds that a step of the linear map takes, about


@dataclass(frozen=True, slots=True)
class Work:
    """How much there is to do.

    Attributes:
        texts: that are embedded before training, with what all of them have in tokens.
        pseudo: passages that pseudo queries are made of, with theirs.
        documents: that are searched to judge, with theirs, for each strength that needs them anew.
        queries: in each half of those that judge.
    """

    texts: tuple[int, float]
    pseudo: tuple[int, float]
    documents: tuple[int, float]
    queries: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done of it.

    Attributes:
        limit: seconds for all; None without a limit.
        rate: tokens embedded in a second, as measured; 0 where it was not.
        sizes: how many are used, and of how many, of ``texts`` to train on, ``pseudo`` (passages that queries are made
            of), ``documents`` to search and ``queries`` in each of the halves that judge.
        judging: seconds that judging takes.
        training: seconds for the steps; None without a limit.
    """

    limit: float | None
    rate: float
    sizes: Mapping[str, Sequence[int]]
    judging: float
    training: float | None = None

    @property
    def sampled(self) -> dict[str, list[int]]:
        """What there is more of than is used."""
        return {name: [used, there] for name, (used, there) in self.sizes.items() if used < there}

    @property
    def documents(self) -> int:
        """How many are searched."""
        return self.sizes["documents"][0]

    def seconds_of(self, texts: Sequence[str], cfg: RunPlan) -> tuple[float | None, float]:
        """How long texts take that are embedded before training, and what comes after that."""
        if not self.rate:
            return None, 0.0
        steps = _STEP * cfg.max_steps if _kind(cfg) == "linear" else 0.0
        return _tokens(texts, cfg.retriever_max_tokens) / self.rate, steps + self.judging

    def applied(self, cfg: RunPlan) -> RunPlan:
        """The settings with these sizes."""
        if not self.sampled:
            return cfg
        names = {"max_training_texts": "texts", "pseudo_queries": "pseudo"}
        names |= {"max_eval_documents": "documents", "max_eval_queries": "queries"}
        return cfg.replace(**{setting: self.sizes[name][0] for setting, name in names.items()})


class Budget:
    """The time of one adaptation, from its start.

    Args:
        limit: seconds for all of it; None for no limit.
        started: when it began, by ``time.monotonic``.
        world: the processes that share it; the first one measures.
        show: tell each phase and the time that is left of all on stderr.
    """

    def __init__(self, limit: float | None, *, started: float, world: World, show: bool) -> None:
        self.limit = limit
        self._started = started
        self._world = world
        self._show = show

    def left(self) -> float:
        """Seconds that are left; infinite without a limit."""
        if self.limit is None:
            return math.inf
        return self._world.from_leader(self.limit - (time.monotonic() - self._started))

    def say(self, phase: str, seconds: float | None = None, after: float = 0.0) -> None:
        """Name a phase, with the time that it and all that comes after it take, where that is known."""
        if self._show:
            known = "" if seconds is None else f": about {_spoken(seconds)}"
            whole = f", {_spoken(seconds + after)} until the end" if seconds is not None and after >= 1 else ""
            tqdm.write(f"{phase}{known}{whole}", file=sys.stderr)

    def plan(
        self,
        folder: Path,
        retriever: TrainableRetriever | VectorRetriever,
        cfg: RunPlan,
        chunks: Sequence[Chunk],
        work: Work,
        *,
        share: float,
    ) -> Plan:
        """What to do of some work; the plan of an earlier run in the same folder stands.

        Args:
            folder: where the plan is kept.
            retriever: whose speed is measured, where there is a limit or somebody waits; not that of an API, where
                each text costs.
            cfg: settings in force.
            chunks: the corpus.
            work: what there is to do.
            share: of the time that is left, where another adapter may have to be tried.
        """
        stored = ""
        if self._world.leads:
            plan = _read(folder / _PLAN_FILE)
            if plan is None:
                rate = 0.0
                if not isinstance(retriever, VectorRetriever) and (self.limit is not None or self._show):
                    rate = _measure(retriever, cfg, chunks)
                left = math.inf if self.limit is None else self.limit - (time.monotonic() - self._started)
                plan = self._fitted(work, cfg, rate, left * share)
                (folder / _PLAN_FILE).write_text(json.dumps(asdict(plan)), encoding="utf-8")
            stored = json.dumps(asdict(plan))
        return Plan(**json.loads(self._world.text_from_leader(stored)))

    def _fitted(self, work: Work, cfg: RunPlan, rate: float, left: float) -> Plan:
        there = {"texts": work.texts[0], "pseudo": work.pseudo[0]}
        there |= {"documents": work.documents[0], "queries": work.queries}
        texts, documents = work.texts[1] + work.pseudo[1], work.documents[1] + _asked(work.queries, cfg)
        if self.limit is None or not rate:
            sizes = {name: (count, count) for name, count in there.items()}
            return Plan(self.limit, rate, sizes, documents / rate if rate else 0.0)
        free = max(0.0, left - _OVERHEAD * self.limit) * (1 - _TRAINING[_kind(cfg)]) * rate  # tokens
        judging = min(documents, max(_JUDGING * free, free - texts))
        some, other = min(1.0, (free - judging) / max(texts, 1.0)), min(1.0, judging / max(documents, 1.0))
        shares = {"texts": some, "pseudo": some, "documents": other, "queries": other}
        if not texts:  # they are embedded in the steps, which have a limit of their own
            shares["texts"] = shares["pseudo"] = 1.0
        sizes = {name: (_part(count, shares[name], _FEWEST[name]), count) for name, count in there.items()}
        used = {name: part / max(1, count) for name, (part, count) in sizes.items()}
        judged = (work.documents[1] * used["documents"] + _asked(sizes["queries"][0], cfg)) / rate
        needs = judged + (work.texts[1] * used["texts"] + work.pseudo[1] * used["pseudo"]) / rate
        if needs > left:
            logger.warning(
                "The smallest adaptation that can be judged takes about %s here, more than is left of time_limit=%g.",
                _spoken(needs + _OVERHEAD * self.limit),
                self.limit,
            )
        return Plan(self.limit, rate, sizes, judged)

    def for_training(self, plan: Plan, folder: Path, *, share: float) -> Plan:
        """The plan with the time for steps: what is left but for judging and writing, at least a tenth of all."""
        if self.limit is None or (plan.training is not None and plan.limit == self.limit):
            return plan
        seconds = max(share * (self.left() - _OVERHEAD * self.limit) - plan.judging, _OVERHEAD * self.limit)
        plan = replace(plan, limit=self.limit, training=seconds)
        if self._world.leads:
            (folder / _PLAN_FILE).write_text(json.dumps(asdict(plan)), encoding="utf-8")
        return plan

    def for_judging(self, plan: Plan, *, share: float) -> int:
        """How many documents there is time for, as planned or fewer."""
        if self.limit is None or plan.judging <= 0:
            return plan.documents
        left = share * max(0.0, self.left() - _OVERHEAD / 2 * self.limit)
        return min(plan.documents, max(int(plan.documents * left / plan.judging), _FEWEST["documents"]))


def work_of(
    texts: Sequence[str], chunks: Sequence[Chunk], pairs: int, cfg: RunPlan, *, length: int, times: int
) -> Work:
    """What an adaptation has to do.

    Args:
        texts: what trains, of all units.
        chunks: the corpus.
        pairs: that queries can be held back of.
        cfg: settings in force.
        length: tokens that the retriever reads when it judges.
        times: how often each text is embedded before training.
    """
    mean = _tokens([chunk.embedding_text for chunk in chunks], length) / max(1, len(chunks))
    cut = cfg.retriever_max_tokens
    linear = cfg.adapter == "linear"
    tokens = _tokens(texts, cut) * times if linear else 0.0
    pseudo = min(cfg.pseudo_queries, len(chunks)) if cfg.contrastive_weight else 0
    documents = min(cfg.max_eval_documents, len(chunks))
    queries = min(int(pairs * cfg.holdout) // 2, cfg.max_eval_queries)
    return Work(
        (len(texts), tokens),
        (pseudo, pseudo * (min(mean, cut) + 2 * _QUERY_TOKENS) * times if linear else 0.0),
        (documents, documents * mean * _models(cfg)),
        queries,
    )


def _tokens(texts: Sequence[str], length: int) -> float:
    """About how many tokens are read of some texts, of each at most ``length``."""
    return sum(min(len(text) / _CHARACTERS, length) for text in texts)


def _kind(cfg: RunPlan) -> str:
    return "linear" if cfg.adapter == "linear" and not cfg.revela_weight else "lora"


def _models(cfg: RunPlan) -> int:
    """How many models embed what is judged by: under the linear map one serves all strengths."""
    return 1 if cfg.adapter == "linear" else 1 + len(cfg.strengths)


def _asked(queries: int, cfg: RunPlan) -> float:
    """Tokens of what is asked of the documents; a document that chooses gives at most sixteen further queries."""
    return (2 * queries + min(_WITNESSES, 16 * queries)) * _QUERY_TOKENS * _models(cfg)


def _part(there: int, share: float, fewest: int) -> int:
    return there if share >= 1 else min(there, max(fewest, int(there * share)))


def _measure(retriever: TrainableRetriever, cfg: RunPlan, chunks: Sequence[Chunk]) -> float:
    """Tokens that the base embeds in a second, from a few texts drawn at random."""
    drawn = np.random.default_rng((cfg.seed, 8)).permutation(len(chunks))[:_MEASURED].tolist()
    texts = [chunks[i].embedding_text for i in drawn]
    length = cfg.retriever_max_tokens

    def embed(some: list[str]) -> float:
        retriever.embed_base(some, "document", max_length=length, compute_dtype=compute_dtype(cfg.precision)).cpu()
        return _tokens(some, length)

    embed(texts[:_AT_ONCE])  # the first pass makes what later ones use
    tokens, began = 0.0, time.monotonic()
    for start in range(0, len(texts), _AT_ONCE):
        tokens += embed(texts[start : start + _AT_ONCE])
        if time.monotonic() - began > _SECONDS:
            break
    return tokens / max(1e-6, time.monotonic() - began)


def _read(file: Path) -> Plan | None:
    try:
        return Plan(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"
