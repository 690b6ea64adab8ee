"""Files of labels, values and groups beside the data, through `open_source`."""

import numpy as np
import pytest
from pictures import smooth
from PIL import Image

from tacit.data.open import open_source
from tacit.errors import UsageError


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(smooth(8, 8, i)).save(tmp_path / "photos" / f"{i}.png")
    (tmp_path / "table.csv").write_text(
        "photo,sex,kind,years,case\n0.png,m,a,7,x\n1.png,f,b,8,x\n2.png,f,a,9,y\n3.png,m,,,y\n"
    )
    return tmp_path / "photos"


def test_the_columns_are_named_and_the_source_says_what_was_read(photos):
    source = open_source(photos, labels="table.csv", label_column="kind")
    assert source.spec.classes == ("a", "b")
    assert source.labels.tolist() == [0, 1, 0, -1]
    note = "table.csv: column 'kind' of 4 rows; files in 'photo'; 1 row unlabelled (empty)"
    assert source.label_note == note
    assert source.group_note == ""
    part = source.subset(np.array([1, 2]))
    assert part.label_note == note
    assert open_source(source, labels="none").label_note == ""
    assert source.label_note == note
    valued = open_source(source, values="table.csv", column="years")
    assert valued.values.tolist()[:3] == [7, 8, 9]
    assert valued.label_note.startswith("table.csv: column 'years' of 4 rows")


def test_several_files_and_one_word_for_the_column_of_the_files(photos):
    (photos.parent / "groups.csv").write_text("left,right,group\n0.png,1.png,p\n2.png,3.png,q\n")
    with pytest.raises(UsageError, match=r"groups\.csv has several columns that may name the samples"):
        open_source(photos, groups="groups.csv")
    (photos.parent / "plain.csv").write_text("file,group\n0.png,p\n")
    asked = {"labels": "table.csv", "label_column": "kind", "groups": "groups.csv"}
    source = open_source(photos, **asked, file_column="right")  # of the groups alone
    assert source.groups[1] != source.groups[3]
    assert source.group_note.startswith("groups.csv: column 'group' of 2 rows; files in 'right'")
    assert source.label_note.startswith("table.csv: column 'kind' of 4 rows; files in 'photo'")
    with pytest.raises(UsageError, match=r"neither table\.csv nor plain\.csv has a column 'middle'"):
        open_source(photos, **asked | {"groups": "plain.csv"}, file_column="middle")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"label_column": "kind"}, "label_column 'kind' is of a file of labels: name the file with labels"),
        ({"label_column": "kind", "labels": "none"}, "label_column 'kind' is of a file of labels"),
        ({"label_column": "kind", "values": "table.csv"}, "or the column of the numbers with column"),
        ({"file_column": "photo"}, "file_column 'photo' is of a file of labels, values or groups"),
        ({"file_column": "photo", "groups": "re:."}, "file_column 'photo' is of a file"),
        ({"labels": "table.csv"}, r"may have the labels \(sex, kind, years, case\)"),
        ({"labels": "table.csv", "file_column": "file"}, "no column 'file'; .*it has photo, sex, kind"),
    ],
)
def test_words_that_do_not_fit(photos, words, message):
    with pytest.raises(UsageError, match=message):
        open_source(photos, **words)
