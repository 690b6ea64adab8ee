"""Which columns of a label file are read: numbers worked out by hand, in layouts as people have them."""

import numpy as np
import pytest

from tacit.data.labels import read_groups, read_labels
from tacit.data.values import read_values
from tacit.errors import UsageError

NAMES = [f"{i}.png" for i in range(6)]
ORDER = (3, 1, 4, 0, 5, 2)
TRUTH = ["lo", "hi", "lo", "hi", "lo", "hi"]  # of 0.png, 1.png, ...


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "labels.csv"
        path.write_text(text)
        return path

    return write


def rows(pattern, header=""):
    """A line per sample: {n} the number of the row, {i} of the sample, {label} what it is."""
    lines = [pattern.format(n=n, m=n + 1, i=i, label=TRUTH[i], sex="mf"[n % 2]) for n, i in enumerate(ORDER)]
    return "\n".join([header, *lines] if header else lines) + "\n"


def names_of(found):
    return [found.classes[k] if k >= 0 else "" for k in found.labels]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (rows("{n},{i}.png,{label}", ",image_id,label"), "column 'label' of 6 rows; files in 'image_id'"),
        (rows("{n},{i},{label}", ",image_id,label"), "column 'label' of 6 rows; files in 'image_id'"),
        (
            rows("{n},{i},{label}", "Unnamed: 0,Image ID,label"),
            "column 'label' of 6 rows; files in 'Image ID'",
        ),
        (rows("{n},{i}.png,{label}", "id,photo,kind"), "column 'kind' of 6 rows; files in 'photo'"),
        (rows('"{m}","{i}.png","{label}"', '"","photo","kind"'), "column 'kind' of 6 rows; files in 'photo'"),
        (rows('"{m}","{i}.png","{label}"', '"photo","kind"'), "column 'kind' of 6 rows; files in 'photo'"),
        (rows("{i},{label}", "id,kind"), "column 'kind' of 6 rows; files in 'id'"),
        (rows("{label},/data/{i}.png,{i}", "kind,where,number"), "column 'kind' of 6 rows; files in 'where'"),
        (rows("{i}.png,{label},,", "photo,kind,,"), "column 'kind' of 6 rows; files in 'photo'"),
        (rows("{i}.png,{label},", "photo,kind,remarks"), "column 'kind' of 6 rows; files in 'photo'"),
        (rows("{i}.png;{label}", "photo;kind"), "column 'kind' of 6 rows; files in 'photo'"),
        (rows("{i}.png,{label}"), "column 2 of 6 rows; files in column 1; there is no header"),
        (rows("{n},{i}.png,{label}"), "column 3 of 6 rows; files in column 2; there is no header"),
        (rows("{label},{i}"), "column 1 of 6 rows; files in column 2; there is no header"),
    ],
)
def test_the_columns_are_found_by_what_is_in_them(table, text, said):
    found = read_labels(table(text), NAMES)
    assert names_of(found) == TRUTH
    assert found.said.startswith(f"labels.csv: {said}")


def test_the_first_line_is_a_row_where_it_is_written_as_one(table):
    for first in ("9.png", "9"):
        ending = first.removeprefix("9")
        with pytest.raises(
            UsageError, match=rf"line 1: no sample is called '{first}'.*not taken for a header"
        ):
            read_labels(table(f"{first},lo\n" + rows(f"{{i}}{ending},{{label}}")), NAMES)
        found = read_labels(table(f"{first},lo\n" + rows(f"{{i}}{ending},{{label}}")), NAMES, ["9.png"])
        assert names_of(found) == TRUTH


def test_a_title_that_is_also_a_sample_is_a_title(table):
    found = read_labels(table("image,label\n1,hi\n2,lo\n"), ["1.png", "2.png", "image.png"])
    assert names_of(found) == ["hi", "lo", ""]
    found = read_labels(table("image,hi\n1,hi\n2,lo\n"), ["1.png", "2.png", "image.png"])
    assert names_of(found) == ["hi", "lo", "hi"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            rows("{i}.png,{sex},{label}", "image_id,sex,diagnosis"),
            r"several columns that may have the labels \(sex, diagnosis\): name one with --label-column",
        ),
        (rows("{i}.png,{sex},{label}"), r"may have the labels \(2, 3\): name one with --label-column"),
        ("file,label,class\n0.png,0,a\n1.png,1,b\n2.png,1,a\n", r"may have the labels \(label, class\)"),
        (
            "left,right,label\n0.png,1.png,a\n2.png,3.png,b\n",
            r"may name the samples \(left, right\): name one with --file-column",
        ),
        (rows("{n},IMG{i}.png,{label}", ",photo,label"), "column 1 counts the rows, .* with --file-column"),
        (rows("{n},7{i},{label}", "id,age,kind"), "column 'id' counts the rows, .* with --file-column"),
        (rows("{n},IMG{i}.png,{label}", ",image_id,label"), "line 2: no sample is called 'IMG3.png'"),
        ("id,a,b\n0,2,x\n2,1,y\n1,0,z\n", r"may name the samples \(id, a\)"),  # either may be the files
        (
            "train,kind\ntrain/1.png,a\ntest/1.png,a\n",
            "lines 2 and 3 name two files, .* only '1.png' is there",
        ),
    ],
)
def test_what_can_be_meant_in_two_ways_is_refused_in_one_line(table, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_labels(table(text), NAMES)
    assert "\n" not in str(caught.value)


def test_columns_can_be_named(table):
    path = table(rows("{i}.png,{sex},{label},{n}.png", "image_id,sex,Diagnosis,other"))
    for word in ("Diagnosis", "diagnosis", "3"):
        assert names_of(read_labels(path, NAMES, label_column=word, file_column="image_id")) == TRUTH
    found = read_labels(path, NAMES, label_column="Diagnosis", file_column="other")
    assert names_of(found) == [TRUTH[i] for i in ORDER]
    assert found.said == "labels.csv: column 'Diagnosis' of 6 rows; files in 'other'"
    assert found.file_column == "other"
    for option in ("label_column", "file_column"):
        with pytest.raises(
            UsageError, match=r"no column 'diagnoses'; did you mean 'Diagnosis'.*it has image_id"
        ):
            read_labels(path, NAMES, **{option: "diagnoses"})
    with pytest.raises(UsageError, match="column 'image_id' has the files: name another"):
        read_labels(path, NAMES, label_column="image_id", file_column="image_id")
    path = table(rows("{n},7{i},{label}", "id,age,kind"))
    assert names_of(read_labels(path, NAMES, label_column="kind", file_column="id")) == [
        TRUTH[i] for i in ORDER
    ]
    path = table(rows("{i}.png,{sex},{label}"))
    assert names_of(read_labels(path, NAMES, label_column="3")) == TRUTH
    with pytest.raises(UsageError, match="'2' is the title of one column and the number of another"):
        read_labels(table("file,3,2\n0.png,1,a\n1.png,5,b\n"), NAMES, label_column="2")


HOT = "image,MEL,NV,BCC\n0,1.0,0.0,0.0\n1,0,0,1\n2,0,1,0\n3,,,\n"


def test_one_hot_columns(table):
    found = read_labels(table(HOT), NAMES)
    assert names_of(found) == ["MEL", "BCC", "NV", "", "", ""]
    assert found.said.startswith(
        "labels.csv: one-hot columns MEL, NV, BCC of 4 rows; files in 'image'; 1 row unlabelled"
    )
    assert names_of(read_labels(table(HOT), NAMES, label_column="NV")) == ["0", "0", "1", "", "", ""]
    path = table("image,None,NV,age\n0,1,0,70\n1,0,1,1\n")  # a class that is called so
    assert names_of(read_labels(path, NAMES, label_column="None, NV"))[:2] == ["None", "NV"]
    with pytest.raises(UsageError, match=r"may have the labels \(None, NV, age\)"):
        read_labels(path, NAMES)
    assert names_of(read_labels(table("image,a,b\n0,1,0\n1,0,1\n"), NAMES))[:2] == ["a", "b"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("4,0,0,0", "line 6: none of the columns MEL, NV, BCC has a 1, and one-hot classes have a single 1"),
        ("4,1,0,1", "line 6: 2 of the columns MEL, NV, BCC have a 1"),
    ],
)
def test_a_row_of_no_class_or_of_several_is_refused(table, row, message):
    with pytest.raises(UsageError, match=message):
        read_labels(table(HOT + row), NAMES)


@pytest.mark.parametrize("word", ["NA", "n/a", "nan", "NaN", "None", "null", "?", "-1", "-1.0", "", "<NA>"])
def test_words_for_no_label(table, word):
    found = read_labels(table(f"file,label\n0.png,{word}\n1.png,2.0\n2.png,10\n0.png,NULL\n"), NAMES)
    assert found.classes == ("2", "10")
    assert found.labels.tolist() == [-1, 0, 1, -1, -1, -1]
    assert "; 2 rows unlabelled (" in found.said
    assert "; if that is a class, rename it); 3 of 6 samples have no row" in found.said


def test_a_class_may_be_called_none(table):
    found = read_labels(table("file,label\n0.png,none\n1.png,mild\n2.png,None\n"), NAMES)
    assert found.classes == ("mild", "none")
    assert found.labels.tolist() == [1, 0, -1, -1, -1, -1]
    assert "; 1 row unlabelled ('None'; if that is a class, rename it)" in found.said
    groups = read_groups(table("file,group\n0.png,none\n1.png,none\n2.png,a\n"), NAMES).groups
    assert groups[0] != groups[1]


def test_groups_and_values_are_found_likewise(table):
    path = table("idx,photo,case\n0,1.png,a\n1,0.png,b\n2,3.png,a\n3,2.png,\n4,4.png,NA\n")
    groups, said, _ = read_groups(path, NAMES)
    assert groups[1] == groups[3]
    assert len(np.unique(groups)) == 5  # an empty cell joins nobody
    assert said == (
        "labels.csv: column 'case' of 5 rows; files in 'photo'; 2 rows without a group (empty, 'NA'; if that "
        "is a group, rename it); 1 of 6 samples have no row"
    )
    with pytest.raises(
        UsageError, match=r"may have the groups \(sex, case\): call the one that has them 'group'"
    ):
        read_groups(table("photo,sex,case\n0.png,m,a\n1.png,f,b\n"), NAMES)
    path = table(",photo,sex,years\n0,3.png,m,30\n1,1.png,f,None\n2,0.png,f,7\n")
    values, said, _ = read_values(path, NAMES)
    np.testing.assert_array_equal(values, [7, np.nan, np.nan, 30, np.nan, np.nan])
    assert said.startswith(
        "labels.csv: column 'years' of 3 rows; files in 'photo'; 1 row without a value ('None')"
    )


def test_a_pattern_finds_the_same_group_in_either_spelling():
    groups = read_groups("re:^(é|b)", ["e\u0301 1.png", "\u00e9 2.png", "b 3.png"]).groups
    assert groups[0] == groups[1] != groups[2]
    with pytest.raises(UsageError, match=r"finds nothing in 'b 3\.png'"):
        read_groups("re:(a)?b", ["ab.png", "b 3.png"])  # or all that have no group would be one


def test_a_class_in_two_spellings_is_one(table):
    found = read_labels(table("file,label\n0.png,caf\u00e9\n1.png,cafe\u0301\n"), NAMES)
    assert found.classes == ("caf\u00e9",)
    assert found.labels.tolist() == [0, 0, -1, -1, -1, -1]


def test_folders_before_the_name_are_left_aside_and_that_is_said(table):
    found = read_labels(table(rows("/home/me/{i}.png,{label}", "file,label")), NAMES)
    assert names_of(found) == TRUTH
    assert "folders before the name were left aside in 6 rows ('/home/me/3.png' is '3.png')" in found.said
