"""The filter language: every operator against a plain reading of it, over both stores and in memory."""

import json
import random
import sqlite3
import threading
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest

from revela_rag.corpus.types import Chunk
from revela_rag.errors import IndexingError
from revela_rag.index import Index
from revela_rag.index.filters import MemoryTable, check_filter, parse_filter

from .support import FakeEncoder, chunk, chunks, numbers
from .test_texts import as_version_0


def values(metadata, key):
    """Whatever is under a dotted key, lists opened."""
    found, name, rest = [], *key.partition(".")[::2]
    given = metadata.get(name)
    if rest:
        for inside in given if isinstance(given, list) else [given]:
            found += values(inside, rest) if isinstance(inside, dict) else []
        return found
    return given if isinstance(given, list) else [] if given is None else [given]


def exists(metadata, key):
    name, _, rest = key.partition(".")
    given = metadata.get(name)
    if rest:
        listed = given if isinstance(given, list) else [given]
        return any(isinstance(one, dict) and exists(one, rest) for one in listed)
    return given is not None


def same(one, two):
    if isinstance(one, bool) or isinstance(two, bool):
        return one is two
    if isinstance(one, str) and isinstance(two, str):
        return one.casefold() == two.casefold()
    return not isinstance(one, str) and not isinstance(two, str) and one == two


COMPARE = {
    "$gt": lambda one, two: one > two,
    "$gte": lambda one, two: one >= two,
    "$lt": lambda one, two: one < two,
    "$lte": lambda one, two: one <= two,
}


def matches(metadata, filter):
    """The language, chunk by chunk."""
    for key, wanted in filter.items():
        if key in ("$and", "$or"):
            holds = (all if key == "$and" else any)(matches(metadata, part) for part in wanted)
        elif key == "$not":
            holds = not matches(metadata, wanted)
        else:
            wanted = wanted if isinstance(wanted, dict) else {"$in" if isinstance(wanted, list) else "$eq": wanted}
            holds = all(holds_under(metadata, key, *pair) for pair in wanted.items())
        if not holds:
            return False
    return True


def holds_under(metadata, key, operator, wanted):
    found = values(metadata, key)
    if operator in COMPARE:
        if isinstance(wanted, str):
            return any(COMPARE[operator](one.casefold(), wanted.casefold()) for one in found if isinstance(one, str))
        return any(COMPARE[operator](one, wanted) for one in found if type(one) in (int, float))
    if operator == "$contains":
        given = metadata.get(key)
        texts = isinstance(wanted, str) and isinstance(given, str)
        return any(same(value, wanted) for value in found) or (texts and wanted.casefold() in given.casefold())
    if operator == "$exists":
        return exists(metadata, key) == wanted
    if operator == "$not":
        return not all(holds_under(metadata, key, *pair) for pair in wanted.items())
    among = any(same(value, one) for value in found for one in (wanted if isinstance(wanted, list) else [wanted]))
    return among == (operator in ("$eq", "$in"))


def drawn_metadata(draw):
    able = {
        "team": lambda: draw.choice(["hr", "it", "IT", "straße"]),
        "year": lambda: draw.randrange(2015, 2025),
        "price": lambda: draw.choice([0.5, 1, 2.5, -3]),
        "flag": lambda: draw.choice([True, False]),
        "tags": lambda: draw.sample(["a", "b", 1, True, 2.5], draw.randrange(4)),
        "mixed": lambda: draw.choice(["a", 1, True, 0.5, ["a", 1]]),
        "file": lambda: {"owner": draw.choice(["ann", "bob"]), "at": {"x": draw.randrange(3)}},
        "authors": lambda: [{"name": draw.choice(["ann", "bob"])} for _ in range(draw.randrange(3))],
    }
    return {key: make() for key, make in able.items() if draw.random() < 0.7}


KEYS = ("team", "year", "price", "flag", "tags", "mixed", "file", "file.owner", "file.at.x", "authors.name", "nowhere")
OPERANDS = ("hr", "IT", "STRASSE", "straße", "a", "ann", 2019, 1, 0.5, 2, True, False)


def drawn_filter(draw, depth=2):
    kind = draw.randrange(8 if depth else 6)
    if kind == 7:
        return {"$not": drawn_filter(draw, depth - 1)}
    if kind == 6:
        return {draw.choice(["$and", "$or"]): [drawn_filter(draw, depth - 1) for _ in range(draw.randrange(1, 4))]}
    return {draw.choice(KEYS): drawn_test(draw) for _ in range(draw.randrange(1, 3))}


def drawn_test(draw):
    some = draw.sample(OPERANDS, draw.randrange(4))
    one = draw.choice(OPERANDS)
    ordered = {draw.choice(list(COMPARE)): draw.choice([one for one in OPERANDS if not isinstance(one, bool)])}
    single = {draw.choice(["$eq", "$ne", "$contains"]): one}
    several = {draw.choice(["$in", "$nin"]): some}
    there = {"$exists": draw.choice([True, False])}
    return draw.choice([one, some, ordered, single, several, there, {"$not": ordered}, ordered | single])


@pytest.fixture(scope="module")
def metadata():
    draw = random.Random(1)
    return [drawn_metadata(draw) | {"number": number} for number in range(120)]


@pytest.fixture(scope="module", params=["faiss", "chroma", "version 1"])
def various(request, metadata, tmp_path_factory):
    if request.param == "chroma":
        pytest.importorskip("chromadb")
    path = tmp_path_factory.mktemp("various") / "index"
    bare = {"language": None, "even": None}
    given = [chunk(number, text=f"text {number}", **bare, **own) for number, own in numbered(metadata)]
    store = "chroma" if request.param == "chroma" else "faiss"
    Index.build(given, encoder=FakeEncoder(), path=path, store=store).close()
    if request.param == "version 1":
        as_version_1(path)
    with Index.open(path, encoder=FakeEncoder()) as index:
        yield index


def numbered(metadata):
    return [(own["number"], {key: value for key, value in own.items() if key != "number"}) for own in metadata]


def as_version_1(path):
    """Take from an index what version 1 did not write."""
    (file,) = path.glob("*/texts.sqlite")
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM attributes WHERE key LIKE '%.%' OR type NOT IN ('n', 'b', 's')")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    forget_files(path)


def forget_files(path):
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"files": {}}))


def test_every_filter_means_the_same_everywhere(various, metadata):
    draw = random.Random(2)
    table = MemoryTable(metadata)
    sizes = []
    for _ in range(250):
        filter = drawn_filter(draw)
        expected = [number for number, own in enumerate(metadata) if matches(own, filter)]
        assert sorted(numbers(various.search("q", k=200, filter=filter, mode="dense"))) == expected, filter
        assert np.flatnonzero(parse_filter(filter).mask(table)).tolist() == expected, filter
        sizes.append(len(expected))
    assert sum(0 < size < 120 for size in sizes) > 60


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_a_filter_is_applied_before_the_best_are_taken(built, mode):
    hits = built.search("text getUser1Name", k=3, mode=mode, filter={"number": {"$gte": 30}, "even": {"$ne": True}})
    assert len(hits) == 3 and all(number >= 30 and number % 2 for number in numbers(hits))


def test_where_a_key_is_absent(path, encoder):
    given = [
        chunk(0, team="hr"),
        chunk(1, team="it"),
        chunk(2),
        chunk(3, team=None),
        chunk(4, team=[]),
        chunk(5, team=""),
    ]
    with Index.build(given, encoder=encoder, path=path) as index:

        def found(filter):
            return sorted(numbers(index.search("q", filter={"team": filter})))

        assert found({"$ne": "hr"}) == found({"$nin": ["hr"]}) == found({"$not": {"$eq": "hr"}}) == [1, 2, 3, 4, 5]
        assert found({"$exists": True}) == [0, 1, 4, 5] and found({"$exists": False}) == [2, 3]
        assert found({"$empty": True}) == [2, 3, 4, 5] and found({"$empty": False}) == [0, 1]
        assert found({"$in": []}) == [] and len(found({"$nin": []})) == 6
        assert found({"$gt": ""}) == [0, 1] and found({"$lt": 3}) == []
        assert sorted(numbers(index.search("q", filter={"$not": {"team": "hr"}}))) == [1, 2, 3, 4, 5]


WHEN = [
    "2024-01-31",
    "2024-01-31T10:00:00",
    "2024-01-31 23:59",
    "2024-02-01T00:30:00+02:00",
    "2024-02-01",
    "2024-02-01T00:00:00Z",
    "no date",
    "2024-13-01",
    20240131,
    ["2023-05-05", "2024-03-03"],
]


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"$lt": "2024-02-01"}, [0, 1, 2, 3, 9]),
        ({"$lte": "2024-01-31"}, [0, 9]),
        ({"$lte": date(2024, 1, 31)}, [0, 9]),
        ({"$gte": date(2024, 2, 1)}, [4, 5, 9]),
        ({"$gt": datetime(2024, 1, 31, 23, tzinfo=timezone(timedelta(hours=1)))}, [2, 3, 4, 5, 9]),
        ({"$gt": np.datetime64("2024-01-31T22:29")}, [2, 3, 4, 5, 9]),
        ({"$eq": datetime(2024, 2, 1)}, [4, 5]),
        ({"$eq": datetime(2024, 1, 31, 22, 30, tzinfo=UTC)}, [3]),
        ("2024-02-01T00:00:00Z", [4, 5]),
        ("2024-02-01t01:00:00+01:00", [4, 5]),
        ({"$ne": date(2024, 2, 1)}, [0, 1, 2, 3, 6, 7, 8, 9]),
        ([date(2024, 1, 31), "NO date"], [0, 6]),
        ("2023-05-05T00:00", [9]),
        ({"$gt": "no"}, [6]),
        ({"$lt": "2024-02"}, [0, 1, 2, 9]),
        ({"$gt": 3}, [8]),
    ],
    ids=str,
)
def test_dates_are_compared_as_dates(path, encoder, filter, expected):
    given = [chunk(number, when=when) for number, when in enumerate(WHEN)]
    with Index.build(given, encoder=encoder, path=path) as index:
        assert sorted(numbers(index.search("q", k=20, filter={"when": filter}))) == expected


WRONG = [
    ({"year": {"$gtt": 3}}, r"'\$gtt' is no operator; there are \$eq, \$ne"),
    ({"year": {"$regex": "a"}}, "no operator"),
    ({"$nor": [{"a": 1}]}, r"\$nor is no operator; filters are joined by \$and, \$or, \$not"),
    ({"$gt": 3}, r'\$gt belongs under the key.*\{"key": \{"\$gt": ...\}\}'),
    ({"year": {"$gt": [1, 2]}}, r"\$gt takes one value"),
    ({"year": {"$gt": True}}, "booleans have no order"),
    ({"year": {"$gt": None}}, "None is no value"),
    ({"year": {"$gt": {"$eq": 1}}}, "none of the values"),
    ({"year": {"$in": "abc"}}, r"\$in takes a list of values; for one there is \$eq"),
    ({"year": {"$nin": 3}}, r"\$nin takes a list of values; for one there is \$ne"),
    ({"year": {"$in": [1, None]}}, r"None is no value.*\$exists"),
    ({"year": {"$eq": [1]}}, r"for several there is \$in"),
    ({"year": {"$ne": (1,)}}, r"for several there is \$nin"),
    ({"year": {"$exists": 1}}, "True or False"),
    ({"year": {"$exists": "yes"}}, "True or False"),
    ({"year": {"$contains": ["a"]}}, r"\$contains takes one value"),
    ({"year": {"$not": 3}}, r"for one value there is \$ne"),
    ({"year": {"$not": {}}}, "no operator"),
    ({"year": {}}, "no operator is in it"),
    ({"file": {"owner": "ann"}}, r'with a dot: \{"file.owner": ...\}'),
    ({"$or": []}, r"\$or takes a list of one filter or more"),
    ({"$and": []}, r"\$and takes a list"),
    ({"$and": {"a": 1}}, r"\$and takes a list"),
    ({"$or": [{}]}, "a filter in it is empty"),
    ({"$or": ["a"]}, "'a' is no mapping"),
    ({"$or": [{"a": {"$bad": 1}}]}, "bad"),
    ({"$not": {}}, "empty"),
    ({"$not": [{"a": 1}]}, "no mapping"),
    ({"$id": 3}, r"\$id takes a string or a list of strings"),
    ({"$document": {"$in": ["a"]}}, r"\$document takes a string or a list"),
    ({"a": {"$id": "x"}}, "is no operator"),
    ({"a": float("nan")}, "finite"),
    ({"a": {"$lt": float("inf")}}, "finite"),
    ({"a": np.datetime64("NaT")}, "none of the values"),
    ({"a": object()}, "none of the values"),
    ({"a": {1, None}}, "None"),
    ({3: "x"}, "keys are strings"),
    ({"a": {3: "x"}}, "3 is no operator"),
    ("year > 3", "a str; it must be a mapping"),
    ([{"a": 1}], "a list; it must be a mapping"),
    (dict, "a type"),
]


@pytest.mark.parametrize(("filter", "message"), WRONG)
def test_what_cannot_be_used_is_named_with_its_remedy(plain, filter, message):
    with pytest.raises(IndexingError, match=f"(?s)[Ff]ilter.*{message}"):
        check_filter(filter)
    with pytest.raises(IndexingError, match=message):
        plain.search("x", mode="dense", vector=np.ones(plain.dimension), filter=filter)


def test_deep_and_long_filters():
    deep = {"a": 1}
    for _ in range(60):
        deep = {"$not": deep}
    check_filter(deep)
    for _ in range(3000):
        deep = {"$not": deep}
    with pytest.raises(IndexingError, match="nested more than 64"):
        check_filter(deep)
    with pytest.raises(IndexingError, match="\\$bad") as raised:
        check_filter({"a": {"$bad": "x" * 10_000}})
    assert len(str(raised.value)) < 800


def test_functions(built):
    found = built.search("q", k=99, filter=lambda metadata: metadata["number"] > 30 and metadata["kind"] == "code")
    assert sorted(numbers(found)) == [31, 33, 35, 37, 39]
    assert built.search("q", filter=lambda metadata: metadata.get("document_id") == "nowhere") == []
    with pytest.raises(IndexingError, match=r"function, and it raised KeyError: 'team'.*metadata.get"):
        built.search("q", filter=lambda metadata: metadata["team"])
    assert built.delete(filter=lambda metadata: metadata["number"] == 7) == 1


def test_a_chunk_has_fields_of_its_own_unless_its_metadata_has(path, encoder):
    given = [chunk(0), chunk(1, kind="invoice", document_id=["x", "y"]), chunk(2, kind=None)]
    with Index.build(given, encoder=encoder, path=path) as index:
        for filter, expected in (
            ({"kind": "prose"}, [0, 2]),
            ({"kind": {"$ne": "prose"}}, [1]),
            ({"document_id": {"$in": ["doc-0", "y"]}}, [0, 1]),
            ({"document_id": {"$contains": "DOC"}}, [0, 2]),
            (lambda own: own["kind"] == "prose", [0, 2]),
        ):
            assert sorted(numbers(index.search("q", filter=filter))) == expected


def test_chunks_are_asked_for_by_id_and_document_letter_by_letter(store, path, encoder):
    named = Chunk(id="a", text="named", document_id="Doc", metadata={"number": 9, "document_id": "doc-1"})
    cut = [
        Chunk(id=f"p{n}", text=f"piece {n}", document_id="p", metadata={"number": n}, origin={"id": "whole"})
        for n in (20, 21)
    ]
    with Index.build([*chunks(8), named, *cut], encoder=encoder, path=path, store=store) as index:

        def found(filter):
            hits = index.search("q", k=99, mode="dense", filter=filter)
            assert numbers(index.search("q", k=99, filter=filter)) and sorted(numbers(hits)) == [
                given.metadata["number"]
                for given in sorted(index.get(filter=filter), key=lambda one: one.metadata["number"])
            ]
            return sorted(numbers(hits))

        assert found({"$document": "doc-1"}) == [1, 5] and found({"document_id": "doc-1"}) == [1, 5, 9]
        assert found({"$document": ["doc-1", "Doc"], "number": {"$gt": 1}}) == [5, 9]
        assert found({"$id": ["a", chunk(2).id, "nowhere"]}) == [2, 9] and found({"$id": ("whole",)}) == [20, 21]
        assert found({"$or": [{"$id": "p20"}, {"$document": {"Doc"}}]}) == [9, 20]
        assert found({"$not": {"$document": ["p", "doc-0", "doc-1", "doc-2", "Doc"]}}) == [3, 7]
        assert index.search("q", filter={"$document": "doc"}) == index.search("q", filter={"$id": []}) == []
        assert index.delete(filter={"$document": "p", "number": 20}) == 1
        assert [one.id for one in index.get(["whole", "a"], filter={"number": {"$gte": 9}})] == ["p21", "a"]
        assert [one.id for one in index.get(["whole", "a"], filter={"number": 9})] == ["a"]
        assert len(index.get()) == len(index) == 10 and index.get([]) == []
    with pytest.raises(IndexingError, match="in none"):
        parse_filter({"$id": "a"}).mask(MemoryTable([{"id": "a"}]))


def test_large_numbers_are_compared_exactly(path, encoder):
    given = [
        chunk(0, n=2**53),
        chunk(1, n=2**53 + 1),
        chunk(2, n=float(2**53)),
        chunk(3, n=10**30),
        chunk(4, n=10**400),
    ]
    with Index.build(given, encoder=encoder, path=path) as index:

        def found(filter):
            return sorted(numbers(index.search("q", filter={"n": filter})))

        assert found({"$gt": 2**53}) == [1, 3] and found({"$lte": 2**53}) == [0, 2]
        assert found({"$lt": 10**400}) == [0, 1, 2, 3] and found({"$gt": -(10**400)}) == [0, 1, 2, 3]
        assert found({"$exists": True}) == [0, 1, 2, 3, 4]


def test_filters_follow_every_write_and_a_delete_by_one(built):
    late = {"number": {"$gte": 35}}
    assert sorted(numbers(built.search("q", filter=late))) == [35, 36, 37, 38, 39]
    built.add(chunks(42, 40))
    assert sorted(numbers(built.search("q", filter=late))) == [35, 36, 37, 38, 39, 40, 41]
    assert built.delete(filter={"$or": [late, {"language": {"$eq": "go"}, "even": True}]}) == 7 + 6
    assert built.search("q", filter=late) == []
    assert len(built.search("q", k=99, filter={"language": {"$exists": True}})) == 42 - 13


def test_a_version_of_before_is_brought_up_to_date_by_a_write(path, encoder):
    given = [chunk(0, name="a", file={"owner": "ann"}), chunk(1, name="b", file={"owner": "bob"})]
    Index.build(given, encoder=encoder, path=path).close()
    as_version_0(path)
    with Index.open(path, encoder=encoder) as index:
        for _ in range(2):
            assert numbers(index.search("q", filter={"file.owner": {"$ne": "ann"}, "number": {"$lt": 2}})) == [1]
            index.add([chunk(2, name="c")])
        assert index._current().texts.attributes._current


def test_threads_read_one_column_at_a_time(plain):
    found = []

    def ask():
        found.append(
            sorted(numbers(plain.search("q", k=99, mode="dense", filter={"number": {"$lt": 20}, "even": True})))
        )

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [list(range(0, 20, 2))] * 8


def test_a_newer_generation_has_the_columns_that_searches_needed(plain):
    plain.search("q", filter={"number": {"$lt": 3}})
    plain.add(chunks(41, 40))
    assert list(plain._current().texts.attributes._columns) == ["number"]
