"""Tables: what is read, and that whatever is not plain is refused with its line, its column and the reason."""

import copy
import gzip
import tracemalloc
from typing import Any

import numpy as np
import pytest

from fdl.data import Table, csv
from fdl.data import _records as records_module
from fdl.errors import DataError, InputError, InputTypeError

PLAIN = b"height,width,kind\n1.5,-2,cat\n+.25,3e2,dog\n 7. ,0,cat\n"


def read(path, data: bytes, **settings) -> Table:
    (path / "table.csv").write_bytes(data)
    arguments: dict[str, Any] = {"target": "kind"} | settings
    return csv(path / "table.csv", **arguments)


def refusal(path, data: bytes, **settings) -> str:
    with pytest.raises(DataError) as caught:
        read(path, data, **settings)
    start, _, reason = str(caught.value).partition("table.csv: ")
    assert start == f"{path}/" and "\n" not in reason
    return reason


# ---- what is read


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("change", [
    lambda data: data,
    lambda data: b"\xef\xbb\xbf" + data,
    lambda data: data.replace(b"\n", b"\r\n"),
    lambda data: data.replace(b",", b";"),
    lambda data: data.replace(b",", b"\t"),
    lambda data: data[:-1],
    lambda data: data + b"\n \n\n",
    lambda data: data.replace(b"dog", b'"dog"').replace(b"-2", b' "-2" ').replace(b"kind", b'"kind"'),
])  # fmt: skip
def test_features_and_classes(tmp_path, change, pack):
    x, y = table = read(tmp_path, pack(change(PLAIN)))
    np.testing.assert_array_equal(x, np.asarray([[1.5, -2], [0.25, 300], [7, 0]], np.float32))
    np.testing.assert_array_equal(y, [0, 1, 0])
    assert x.dtype == np.float32 and y.dtype == np.int32
    assert (table.features, table.target, table.classes) == (("height", "width"), "kind", ("cat", "dog"))
    assert copy.copy(table).classes == table.classes and "3 examples of 2 features" in repr(table)


@pytest.mark.parametrize(
    ("cells", "settings", "values", "classes"),
    [
        ("0 1 2 1", {}, [0, 1, 2, 1], ("0", "1", "2")),
        ("0 1 3 1", {}, [0.0, 1.0, 3.0, 1.0], None),
        ("0 1 2. 1", {}, [0.0, 1.0, 2.0, 1.0], None),
        ("0 0 0 0", {}, [0.0, 0.0, 0.0, 0.0], None),
        ("0 1 2 1", {"classes": False}, [0.0, 1.0, 2.0, 1.0], None),
        ("10 9 -1 10", {"classes": True}, [2, 1, 0, 2], ("-1", "9", "10")),
        ("10 b a 10", {"classes": True}, [0, 2, 1, 0], ("10", "a", "b")),
        ("1e3 0.5 1 2", {}, [1000.0, 0.5, 1.0, 2.0], None),
    ],
)
def test_what_the_target_is(tmp_path, cells, settings, values, classes):
    data = "x;kind\n" + "".join(f"1;{cell}\n" for cell in cells.split())
    table = read(tmp_path, data.encode(), **settings)
    assert table[1].tolist() == values and table.classes == classes
    assert table[1].dtype == (np.float32 if classes is None else np.int32)


def test_columns_by_number_without_names_one_hot_and_left_out(tmp_path):
    data = b"3,red,Anna,1\n4,blue,Bo,0\n5,red,Cy,0\n"
    table = read(tmp_path, data, target=-1, header=False, one_hot=(1,), drop=("2",))
    assert table.features == ("0", "1=blue", "1=red") and table.target == "3" and table.classes == ("0", "1")
    assert table[0].tolist() == [[3, 0, 1], [4, 1, 0], [5, 0, 1]]


GAPS = b"a,b,kind\n1,,x\n,4,y\n3,6,x\nNA,2,y\n"


def test_missing_values(tmp_path):
    read_with = lambda missing: read(tmp_path, GAPS, missing=missing, marks=("", "NA"))
    assert read_with(-1)[0].tolist() == [[1, -1], [-1, 4], [3, 6], [-1, 2]]
    assert read_with("mean")[0].tolist() == [[1, 4], [2, 4], [3, 6], [2, 2]]
    dropped = read_with("drop")
    assert dropped[0].tolist() == [[3, 6]] and dropped.classes == ("x",)
    assert "line 3: column 1 ('a'): the cell is empty or marked" in refusal(tmp_path, GAPS)
    assert "line 5: column 1 ('a'): 'NA' is not a number" in refusal(tmp_path, GAPS, missing=0)
    no_target = b"a,kind\n1,\n2,x\n"
    assert "line 2: column 2 ('kind'): the cell is empty" in refusal(tmp_path, no_target, missing=0)
    assert read(tmp_path, no_target, missing="drop")[0].tolist() == [[2]]
    assert "every row has a missing value" in refusal(tmp_path, b"a,kind\n,x\n", missing="drop")
    assert "no number to take the mean of" in refusal(tmp_path, b"a,b,kind\n,1,x\n,2,y\n", missing="mean")
    assert read(tmp_path, b"a,kind\n-9,x\n2,y\n", missing="mean", marks=("-9",))[0].tolist() == [[2], [2]]


def test_quotes(tmp_path):
    data = b'"a ""b"", c",kind\n1,"x\ny, ""z"""\n2,plain\n'
    table = read(tmp_path, data)
    assert table.features == ('a "b", c',) and table.classes == ("plain", 'x\ny, "z"')
    assert "line 6: column 1" in refusal(tmp_path, data.replace(b"2,plain", b'2,"\n"\nbad,plain'))


def test_pieces_of_any_size_give_the_same(tmp_path, monkeypatch):
    data = b"".join([b"a,b,kind\n", *(f'{n},"{n / 7}",k{n % 3}\n'.encode() for n in range(200))])
    want = read(tmp_path, data)
    for size in (1, 7, 100):
        monkeypatch.setattr(records_module, "PIECE", size)
        got = read(tmp_path, data)
        np.testing.assert_array_equal(got[0], want[0])
        np.testing.assert_array_equal(got[1], want[1])
        assert "line 150: column 2 ('b'): 'x'" in refusal(tmp_path, data.replace(f'"{148 / 7}"'.encode(), b"x"))


def test_memory(tmp_path):
    data = b"".join([b"a,b,c,d,e,kind\n"] + [b"0.123456,1.5,2.25,3.125,4,5.5\n"] * 100_000)
    (tmp_path / "table.csv").write_bytes(data)
    tracemalloc.start()
    try:
        x, y = csv(tmp_path / "table.csv", target="kind")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * (x.nbytes + y.nbytes) + 25 * records_module.PIECE


# ---- what is refused


@pytest.mark.parametrize("cell", "abc 1_0 nan inf 1e400 1e39 -1e39 1,5 0x10 ٣ 1e . + --1".split() + ["1 2", "1\n"])
def test_what_is_no_finite_number(tmp_path, cell):
    data = f'a,b,kind\n1,2,x\n1,"{cell}",y\n'.encode()
    reason = refusal(tmp_path, data)
    assert reason.startswith(f"line 3: column 2 ('b'): {cell!r} is not")
    with pytest.raises(DataError, match=r"line 3: column 2"):
        read(
            tmp_path, data.replace(b"kind", b"c").replace(b",b,", b",kind,").replace(b",x", b",1").replace(b",y", b",1")
        )


@pytest.mark.parametrize(
    ("data", "settings", "words"),
    [
        (b"", {}, "at byte 0: the file is empty"),
        (b"\xef\xbb\xbf", {}, "no lines with text"),
        (b"\n \n", {}, "no lines with text"),
        (b"a,kind\n", {}, "line 1: the names, and no examples"),
        (b"\na,kind\n1,x\n", {}, "line 1: is empty, and more lines follow"),
        (b"a,kind\n1,x\n\n2,y\n", {}, "line 3: is empty, and more lines follow"),
        (b"a,b,kind\n1,2,x\n1,x\n", {}, "line 3: has 2 cells, the first line has 3"),
        (b"a,kind\n1,x,\n", {}, "line 2: has 3 cells"),
        (b"a,b,a,kind\n1,2,3,x\n", {}, "line 1: columns 1 and 3 are both called 'a'"),
        (b",b,kind\n1,2,x\n", {}, "line 1: column 1 has no name; a column of row numbers, perhaps? drop=(0,)"),
        (b"1,2,3\n4,5,6\n", {"target": 0}, "line 1: holds numbers and no names; header=False"),
        (b"a b kind\n1 2 x\n", {}, "line 1: holds no comma, semicolon or tab; pass delimiter="),
        (b"a,b;kind\n1,2;x\n", {}, "line 1: holds ',' and ';'"),
        (b"kind\nx\n", {"delimiter": ","}, "line 1: has one column"),
        (b"a,kind\n1,x\n", {"drop": ("a",)}, "no column is left"),
        (b"a,kind\n1,x\n2,3\n", {}, "line 3: column 2 ('kind'): '3' is a number, and the cells above are text"),
        (b"a,kind\n1,3\n2,x\n", {}, "line 3: column 2 ('kind'): 'x' is not a number; classes=True"),
        (b"a,kind\n1,x\n", {"classes": False}, "'x' is not a number; the target has to be a number"),
        (b"a,kind\nred,x\n", {}, "line 2: column 1 ('a'): 'red' is not a number; one_hot=('a',)"),
        (b'a,kind\n1"2",x\n', {}, "line 2: cell 1: a quote where none may stand"),
        (b'a,kind\n"1"2",x\n', {}, "line 2: "),
        (b'a,kind\n"1,x\n2,y\n', {}, "line 2: a quote in this line is never closed"),
        (b"a,kind\n1,x\r2,y\r", {}, "line 2: holds \\r without \\n"),
        (b"a,kind\n1,\0\n", {}, "line 2: holds NUL"),
        (b"a,kind\n1,\xff\n", {}, "at byte 9: line 2: the byte ff is not UTF-8"),
        ("a,kind\n1,x\n".encode("utf-16"), {}, "at byte 0: the file begins with the mark of UTF-16"),
        (gzip.compress(PLAIN, mtime=0)[:-3], {}, "cut short"),
        (gzip.compress(PLAIN, mtime=0)[:-8] + bytes(8), {}, "is damaged"),
    ],
)  # fmt: skip
def test_what_is_no_table(tmp_path, data, settings, words):
    assert words in refusal(tmp_path, data, **settings)


def test_too_much_of_something(tmp_path, monkeypatch):
    monkeypatch.setattr(records_module, "LONGEST", 1000)
    monkeypatch.setattr(records_module, "PIECE", 100)
    assert "line 2: a quote in this line is not closed within" in refusal(tmp_path, b'a,kind\n1,"' + b"x\n" * 3000)
    assert "line 1: is longer than 1000 bytes" in refusal(tmp_path, b"a," * 3000)
    monkeypatch.setattr(records_module, "MOST_UNPACKED", 1000)
    bomb = gzip.compress(b"a,kind\n" + b"1,0\n" * 200_000, mtime=0)
    assert "of the unpacked contents: unpacks to more than 200 times its size" in refusal(tmp_path, bomb)
    many = b"a,b,kind\n" + b"".join(b"v%d,1,x\n" % n for n in range(1001))
    assert "line 1002: column 1 ('a'): has more than 1000 different" in refusal(tmp_path, many, one_hot=("a",))


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"target": "color"}, InputError, "target is 'color', the columns are 'height', 'width', 'kind'"),
        ({"target": 3}, InputError, "target is 3, wanted -3 to 2"),
        ({"target": True}, InputTypeError, "target is bool True"),
        ({"one_hot": "height"}, InputTypeError, r"one_hot is str 'height', wanted a tuple of columns: \('height',\)"),
        ({"drop": ("kind",)}, InputError, "'kind' is named twice"),
        ({"delimiter": ""}, InputError, "delimiter is ''"),
        ({"delimiter": "e"}, InputError, "delimiter is 'e'"),
        ({"missing": "zero"}, InputError, "missing is 'zero'"),
        ({"missing": float("nan")}, InputError, "missing is nan"),
        ({"marks": "NA"}, InputTypeError, "marks is 'NA'"),
        ({"classes": 3}, InputTypeError, "classes is int 3"),
        ({"header": None}, InputTypeError, "header is NoneType None"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, settings, error, words):
    with pytest.raises(error, match=words):
        read(tmp_path, PLAIN, **settings)


def test_what_is_no_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        csv(tmp_path / "nothing.csv", target=0)
    with pytest.raises(InputTypeError, match="path is int 3"):
        csv(3, target=0)  # pyright: ignore[reportArgumentType]
