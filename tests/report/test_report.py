import numpy as np
import yaml
from PIL import Image

from tacit.report.neighbours import draw_neighbours
from tacit.report.page import write_report

SETTINGS = {
    "method": {"name": "dcl", "temperature": 0.1},
    "data": "<photos> & more",
    "record": {"data": {"samples": 1234, "labelled": 5, "skipped": 6}},
}


def test_the_page_shows_what_the_files_say(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(SETTINGS))
    (tmp_path / "metrics.csv").write_text("step,lr,loss,knn\n1,0.1,2.5,\n2,0.1,1.25,0.75\n")
    page = write_report(tmp_path).read_text()
    assert "dcl on &lt;photos&gt; &amp; more" in page
    assert "<photos>" not in page
    for word in ("1,234 samples", "5 of them", "6 files skipped", "1.25", "0.75", "method.temperature"):
        assert word in page
    assert page.count("<svg") == 1
    assert 'id="axes_2"' in page  # loss and knn have a panel each
    assert 'id="axes_3"' not in page  # the learning rate has none


def test_a_run_without_rows_has_a_page(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(SETTINGS))
    (tmp_path / "metrics.csv").write_text("step,loss\n")
    assert "<svg" not in write_report(tmp_path).read_text()


def test_neighbours_of_another_class_are_framed_red(tmp_path):
    images = np.zeros((4, 1, 8, 8), np.uint8)
    labels, queries = np.array([0, 0, 1, 1]), np.array([0, 2])
    right = {"good": np.array([[1], [3]])}
    wrong = {"bad": np.array([[2], [1]])}
    reds = []
    for name, neighbours in (("right.png", right), ("wrong.png", wrong)):
        draw_neighbours(tmp_path / name, images, labels, queries, neighbours)
        picture = np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)
        reds.append(((picture[..., 0] > 200) & (picture[..., 1] < 80)).sum())
    assert reds[0] == 0
    assert reds[1] > 50
