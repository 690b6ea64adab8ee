import numpy as np
import pytest
from pictures import smooth
from PIL import Image

from tacit.data.open import open_source
from tacit.data.values import read_values
from tacit.errors import UsageError

NAMES = ["a/1.png", "a/2.png", "b/1.png", "b/3.jpg"]
NAN = float("nan")


@pytest.fixture
def table(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "ages.csv"
        path.write_text(text, encoding=encoding)
        return path

    return write


@pytest.mark.parametrize(
    "text",
    [
        "file,value\na/1.png,3.5\nb/3.jpg,-1\n",
        "file,value\na/1.png,3.5\na/2.png,\nb/1.png,NaN\nb/3.jpg,-1.0\n",
        "file,value\na/1.png,35e-1\na/2.png,NA\nb/3.jpg,-1\na/1,+3.50\n",  # twice the same
        "path,sex,Age\n./a/1.png,f,3.5\nb\\3.jpg,m,-1\n",  # of three columns, by its name
        "value,filename\n3.5,a/1.png\n-1,b/3.jpg\n",
        "age;scan\n3,5;a/1\n-1;3\n",  # the number first, the file without a known name
        "ID;x\na/1;3,5\n3;-1\n",
        "file\ttarget\na/1.png\t3,5\n3.jpg\t-1,0\n",
        'file,y\na/1.png,"3,5"\n3.jpg,-1\n',
        "a/1.png;3,5\nb/3.jpg;-1\n",  # no header, and as many commas as semicolons
        "a/1.png,3.5\nb/3.jpg,-1\n",
        "file,age,value\na/1.png,70,3.5\nb/3.jpg,80,-1\n",  # `value` goes before `age`
        "file,label,age\na/1.png,cat,3.5\nb/3.jpg,dog,-1\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_rows_find_their_samples(table, text, encoding):
    values = read_values(table(text, encoding), NAMES).values
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, [3.5, NAN, NAN, -1])


def test_one_value_everywhere_can_still_be_graded_by(table):
    for text in ("file,value\na/1.png,2\nb/1.png,2.0\n", "file,value\na/1.png,2\n"):
        values = read_values(table(text), NAMES).values
        assert np.unique(values[~np.isnan(values)]).tolist() == [2]


def test_the_column_can_be_named(table):
    path = table("file,value,Length in mm\na/1.png,1,10\na/2.png,2,30\n")
    np.testing.assert_array_equal(read_values(path, NAMES).values, [1, 2, NAN, NAN])
    for name in ("Length in mm", "length in MM"):
        np.testing.assert_array_equal(read_values(path, NAMES, column=name).values, [10, 30, NAN, NAN])


def test_rows_of_files_that_were_left_out_are_ignored(table):
    path = table("file,value\na/1.png,1\nbroken.png,7\na/2.png,2\n")
    np.testing.assert_array_equal(read_values(path, NAMES, ["broken.png"]).values, [1, 2, NAN, NAN])


def test_decimal_commas_beside_whole_numbers(table):
    path = table("file;value\na/1.png;1,234\na/2.png;5\nb/1.png;0,5\n")  # 0,5 separates no thousands
    np.testing.assert_array_equal(read_values(path, NAMES).values, [1.234, 5, 0.5, NAN])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,value\na/1.png,1\na/2.png,old\n", "line 3: 'old' is not a finite number: fix it"),
        ("file,value\na/1.png,1\na/2.png,inf\n", "line 3: 'inf' is not a finite number"),
        ("file,value\na/1.png,1\na/2.png,1e999\n", "line 3: '1e999' is not a finite number"),
        ("file,value\na/1.png,1\na/2.png,1_0\n", "line 3: '1_0' is not"),
        ("file;value\na/1.png;1,5\na/2.png;1,5,0\n", "line 3: '1,5,0' is not"),
        (
            "file;value\na/1.png;1,5\na/2.png;2.5\n",
            "line 2: '1,5' has a decimal comma, and line 3 has a point",
        ),
        ("file;value\na/1.png;999\na/2.png;1,234\n", "line 3: '1,234' may be 1.234 or 1234"),
        ("file,value\na/1.png,3,5\n", "line 2: 3 cells, 2 are expected"),
        ("file,value\na/1.png,\nb/1.png,NA\n", "has no value for any sample"),
        ("file,value\na/1.png,2\na/1.png,3\n", "lines 2 and 3 disagree about 'a/1.png': '2.0' and '3.0'"),
        ("file,value\na/1.png,2\na/1.png,\n", "lines 2 and 3 disagree"),
        ("file,value\n1.png,2\n", "line 2: '1.png' fits 2 samples"),
        ("file,value\na/9.png,2\n", "line 2: no sample is called 'a/9.png'; did you mean 'a/2.png'"),
        (
            "file,row,mm\na/1.png,1,2\n",
            r"several columns that may have the values \(row, mm\): name one with --column",
        ),
        ("file\na/1.png\n", "two columns are needed, the file and its value"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(table, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_values(table(text), NAMES)
    assert "ages.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_there(table):
    path = table("file,height,weight\na/1.png,1,2\na/2.png,2,3\n")
    with pytest.raises(
        UsageError, match=r"no column 'wieght'; did you mean 'weight'.*has file, height, weight"
    ):
        read_values(path, NAMES, column="wieght")


def test_a_file_that_is_not_there(tmp_path):
    (tmp_path / "ages.csv").touch()
    with pytest.raises(UsageError, match=r"no values file .*; did you mean 'ages.csv'"):
        read_values(tmp_path / "age.csv", NAMES)


@pytest.fixture
def photos(tmp_path):
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth(8, 8)).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def test_a_source_of_values(photos, table):
    path = table("file,age,bmi\na.png,61,20.5\nc.png,70,31\n")
    source = open_source(photos, values=path)
    assert source.spec.target == "value"
    assert source.spec.classes == ()
    np.testing.assert_array_equal(source.values, [61, NAN, 70])
    assert source.labels.tolist() == [0, -1, 0]
    assert source.labels.dtype == np.int64
    assert source.labelled.tolist() == [0, 2]
    assert source.targets(source.labelled).tolist() == [61, 70]
    assert open_source(photos, values=path, column="bmi", labels="none").values[2] == 31


def test_a_source_that_is_open_already(photos, table):
    path = table("file,age\na.png,61\nc.png,70\n")
    source = open_source(photos)
    valued = open_source(source, values=path)
    assert valued.values is not None
    assert valued.spec.target == "value"
    assert source.values is None
    assert source.spec.classes == ("cat", "dog")
    again = open_source(valued, labels="none")
    assert again.values is None
    assert again.spec.target == "class"


def test_values_and_other_labels_do_not_go_together(photos, table):
    path = table("file,age\na.png,61\nc.png,70\n")
    with pytest.raises(UsageError, match="labels are of classes and values are numbers"):
        open_source(photos, values=path, labels=path)
    with pytest.raises(UsageError, match="column 'age' is of a file of numbers: name the file with values"):
        open_source(photos, column="age")
