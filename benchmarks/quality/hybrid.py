"""Ways to put cosine and BM25 together, on people's queries.

python benchmarks/quality/hybrid.py --data scifact/ --data cosqa/ --output out
python benchmarks/quality/hybrid.py --data scifact/ --split test --backbone models/adapted --output out

Documents score by their best passage. `--cache DIR` shares the embeddings of `run.py --cache DIR`. Writes
`hybrid.json` and prints seven tables: ways of fusing a document's cosine (its best passage's) with its BM25, shares of
the passage's own BM25 in the words of the hybrid, which an index sets to a half, shares of the document in a passage's
vector, which an index sets to 0.35, values of BM25's k1, how much the cosines count, which an index takes from how
sharply the model sees the corpus, steps of the cosine, which an index takes from the spread of the cosines between
passages, and weights of pairs of neighbouring words in BM25. All but the first and the fourth are of an index's hybrid;
BM25 alone is of whole documents throughout.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from backbones import resolve_backbone
from cache import VectorCache
from sets import BeirSet

from revela_rag.context import DOCUMENT_SHARE, DocumentContext
from revela_rag.corpus.types import titled
from revela_rag.evaluation import RetrievalData, Run, score_run
from revela_rag.evaluation.vectors import passages
from revela_rag.fusion import COSINE_STEP, DEPTH, candidates, cosine_step, dense_share, fused_scores, largest
from revela_rag.lexical import PAIR_WEIGHT, LexicalIndex

METRIC = "nDCG@10"
SHARES = (1.0, 0.8, 0.5, 0.2, 0.0)
CONTEXTS = (0.0, 0.2, DOCUMENT_SHARE, 0.5)
K1S = (0.4, 0.6, 0.8, 1.2, 2.0)
PAIRS = (0.0, 0.1, PAIR_WEIGHT, 0.3, 0.5)
TRUSTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # how much the cosines count
STEPS = (0.7, 0.85, 1.0, 1.2, 1.5)  # times the step of an index
BUNCHED = 5.0  # a constant step where all cosines are (cosine + 4) / 5 is one five times as large
_LINEAR = (0.02, 0.25)  # cosine per point of BM25, and the most that BM25 adds

_RANK_CONSTANT = 60

#: From (cosines, BM25) of everything that could be found to its scores.
Fusion = Callable[[np.ndarray, np.ndarray], np.ndarray]


def fused(cosines: np.ndarray, lexical: np.ndarray, step: float = COSINE_STEP, trust: float = 0.5) -> np.ndarray:
    """The hybrid: candidates of both sides by how sure each side is; what is no candidate scores 0."""
    scores, found = np.zeros(len(cosines)), candidates(cosines, lexical)
    scores[found] = fused_scores(cosines[found], lexical[found], cosine_step=step, share=trust)
    return scores


def linear(cosines: np.ndarray, lexical: np.ndarray) -> np.ndarray:
    """``cosine + min(0.02, 0.25 / best) * BM25``."""
    weight, most = _LINEAR
    scores: np.ndarray = cosines + min(weight, most / max(float(lexical.max()), 1e-9)) * lexical
    return scores


def by_rank(cosines: np.ndarray, lexical: np.ndarray) -> np.ndarray:
    """Reciprocal rank fusion of the best hundred of each side (Cormack et al., SIGIR 2009)."""
    near = np.argsort(-cosines, kind="stable")[:DEPTH]
    words = np.argsort(-lexical, kind="stable")[:DEPTH]
    words = words[lexical[words] > 0]
    scores = np.zeros(len(cosines))
    for side in (near, words):
        scores[side] += 1 / (_RANK_CONSTANT + np.arange(1, len(side) + 1))
    return scores


FUSIONS: Mapping[str, Fusion] = {
    "dense": lambda cosines, lexical: cosines,
    "bm25": lambda cosines, lexical: lexical,
    "rank fusion": by_rank,
    "linear": linear,
    "hybrid": fused,
}


def in_context(vectors: np.ndarray, documents: Iterable[str], share: float) -> np.ndarray:
    """(n, d) unit vectors of chunks that lean towards their documents."""
    context = DocumentContext.build(np.arange(len(vectors)), documents, vectors.__getitem__, share=share)
    several = np.flatnonzero(context.owners >= 0)
    mixed = vectors.copy()
    if len(several):
        mixed[several] = context.mix(vectors[several], context.owners[several]) / context.lengths[several, None]
    return mixed


def measure(data: RetrievalData, base: str, cache: VectorCache) -> dict[str, float]:
    """nDCG@10 of every way."""
    retriever = cache.retriever(base, adapter="linear")
    texts, owners = passages(data.corpus, window=retriever.inference_max_length)
    queries = retriever.embed_base(list(data.queries.values()), "query").numpy(force=True)
    vectors = retriever.embed_base(texts, "document").numpy(force=True)
    whole = [titled(title, text) for title, text in data.corpus.values()]
    saturated = {k1: LexicalIndex.build(data.corpus, whole, k1=k1) for k1 in K1S}
    documents = _joined(texts, owners, data.corpus)  # what an index knows of a document
    paired = {
        weight: (
            LexicalIndex.build(data.corpus, whole, pair_weight=weight),
            LexicalIndex.build(map(str, range(len(texts))), texts, pair_weight=weight),
            LexicalIndex.build(data.corpus, documents, pair_weight=weight),
        )
        for weight in PAIRS
    }
    around, own, joined = paired[PAIR_WEIGHT]
    contexts = {share: in_context(vectors, owners, share=share) for share in CONTEXTS}
    ids = list(data.corpus)
    place = {id_: i for i, id_ in enumerate(ids)}
    owner = np.array([place[id_] for id_ in owners])
    starts = np.flatnonzero(np.r_[True, np.diff(owner) > 0])  # the passages of a document are adjacent
    step = cosine_step(len(vectors), vectors.__getitem__)
    trust = dense_share(owner, vectors.__getitem__)
    fusions = {**FUSIONS, "hybrid": partial(fused, step=step, trust=trust)}
    runs: dict[str, Run] = {name: {} for table in COLUMNS for name in table}
    for (query_id, text), vector in zip(data.queries.items(), queries, strict=True):
        cosines, words = contexts[DOCUMENT_SHARE] @ vector, around.scores(text)
        chunk_words, document_words = own.scores(text), joined.scores(text)[owner]
        both = (chunk_words + document_words) / 2
        best = np.maximum.reduceat(vectors @ vector, starts)
        for name, fuse in fusions.items():
            runs[name][query_id] = _ranked(ids, fuse(best, words))
        for share in SHARES:
            mixed = fused(cosines, share * chunk_words + (1 - share) * document_words, step, trust)
            runs[share_name(share)][query_id] = _ranked(ids, np.maximum.reduceat(mixed, starts))
        for share, leaning in contexts.items():
            alone, together = context_names(share)
            near = leaning @ vector
            runs[alone][query_id] = _ranked(ids, np.maximum.reduceat(near, starts))
            runs[together][query_id] = _ranked(ids, np.maximum.reduceat(fused(near, both, step, trust), starts))
        for k1, index in saturated.items():
            alone, together = k1_names(k1)
            runs[alone][query_id] = _ranked(ids, index.scores(text))
            runs[together][query_id] = _ranked(ids, fused(best, index.scores(text), step, trust))
        for weight, (alone, of_chunk, of_document) in paired.items():
            mixed = (of_chunk.scores(text) + of_document.scores(text)[owner]) / 2
            for name, scores in zip(
                pair_names(weight),
                (alone.scores(text), np.maximum.reduceat(fused(cosines, mixed, step, trust), starts)),
                strict=True,
            ):
                runs[name][query_id] = _ranked(ids, scores)
        for name, other in trust_names(trust).items():
            runs[name][query_id] = _ranked(ids, np.maximum.reduceat(fused(cosines, both, step, other), starts))
        for name, other in step_names(step).items():
            runs[name][query_id] = _ranked(ids, np.maximum.reduceat(fused(cosines, both, other, trust), starts))
    return {name: score_run(run, data.qrels).mean(METRIC) for name, run in runs.items()}


def _joined(texts: Sequence[str], owners: Sequence[str], corpus: Iterable[str]) -> list[str]:
    found: dict[str, list[str]] = {id_: [] for id_ in corpus}
    for text, owner in zip(texts, owners, strict=True):
        found[owner].append(text)
    return ["\n".join(parts) for parts in found.values()]


def share_name(share: float) -> str:
    """The column of a share."""
    return f"own words {share:g}"


def context_names(share: float) -> tuple[str, str]:
    """The columns of a share of the document in a chunk's vector: cosines alone and the hybrid of an index."""
    return f"dense, document {share:g}", f"hybrid, document {share:g}"


def k1_names(k1: float) -> tuple[str, str]:
    """The columns of a k1: BM25 alone and in the hybrid."""
    return f"bm25, k1 {k1:g}", f"hybrid, k1 {k1:g}"


def pair_names(weight: float) -> tuple[str, str]:
    """The columns of a weight of pairs: BM25 alone and in the hybrid of an index."""
    return f"bm25, pairs {weight:g}", f"hybrid, pairs {weight:g}"


def trust_names(trust: float = 0.5) -> dict[str, float]:
    """The columns of how much the cosines count, given what an index makes of it, and that."""
    return {**{f"cosines {each:g}": each for each in TRUSTS}, "cosines by sharpness": trust}


def step_names(step: float = COSINE_STEP) -> dict[str, float]:
    """The columns of the steps of the cosine, given that of an index, and those steps."""
    constant = {"step 0.05": COSINE_STEP, "step 0.05, bunched": BUNCHED * COSINE_STEP}
    return {**constant, **{f"{times:g} times": times * step for times in STEPS}}


#: Of every table.
COLUMNS = (
    tuple(FUSIONS),
    tuple(map(share_name, SHARES)),
    tuple(name for share in CONTEXTS for name in context_names(share)),
    tuple(name for k1 in K1S for name in k1_names(k1)),
    tuple(trust_names()),
    tuple(step_names()),
    tuple(name for weight in PAIRS for name in pair_names(weight)),
)


def _ranked(ids: list[str], scores: np.ndarray) -> dict[str, float]:
    best = largest(scores, DEPTH)
    best = best[np.argsort(-scores[best], kind="stable")]
    return {ids[i]: float(scores[i]) for i in best.tolist()}


def markdown(found: Mapping[str, Mapping[str, float]]) -> str:
    """All tables."""
    lines = []
    for names in COLUMNS:
        lines += [f"| set | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
        lines += [f"| {each} | {' | '.join(f'{values[n]:.3f}' for n in names)} |" for each, values in found.items()]
        means = [np.mean([values[name] for values in found.values()]) for name in names]
        lines += [f"| **mean** | {' | '.join(f'{mean:.3f}' for mean in means)} |", ""]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure the sets and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="DIR", help="BEIR layout")
    parser.add_argument("--split", help="file in qrels/ (default: all but train, together)")
    parser.add_argument("--backbone", default="all-MiniLM-L6-v2", help="model, or small-lm")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="base embeddings (default: OUT/cache)")
    args = parser.parse_args(arguments)
    found = {}
    kept = args.cache or args.output / "cache"
    cache, base = VectorCache(kept, show_progress=True), resolve_backbone(args.backbone, kept)
    for folder in args.data:
        task = BeirSet(folder, split=args.split).task(0)
        found[task.name] = measure(task.data, base, cache)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "hybrid.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(markdown(found))
    return found


if __name__ == "__main__":
    main()
