"""Names of masks that people use, and what is said where a name is not known."""

import nibabel as nib
import numpy as np
import pytest
from scans import classes, save, scan

from tacit.data.open import open_source
from tacit.data.volume.bids import bids_owners
from tacit.data.volume.layout import lay_out
from tacit.data.volume.mistaken import taken_for_volumes
from tacit.errors import BadFile, UsageError


def pairs(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    layout = lay_out(folder)
    assert layout.bad == []
    root = folder.resolve()
    return {case.name: case.mask and case.mask.relative_to(root).as_posix() for case in layout.cases}


@pytest.mark.parametrize(
    ("volume", "mask"),
    [
        ("images/x.nii.gz", "masks/images/x.nii.gz"),
        ("images/x.nii.gz", "images/masks/x.nii.gz"),
        ("masks/images/x.nii.gz", "masks/labels/x.nii.gz"),
        ("Images/X.NII.GZ", "LABELS/X.nii"),
        ("x.nii.gz", "x_SEG.NII.GZ"),
        ("x.nii.gz", "x-mask.nii.gz"),
        ("x.nii.gz", "x.label.nii.gz"),
        ("p1/p1_frame01.nii.gz", "p1/p1_frame01_gt.nii.gz"),
        ("img/x.nii", "label/x.nii"),
        ("imagesVa/x.nii", "labelsVa/x.nii"),
        ("scans/x.nii", "annotations/x.nii"),
        ("images/L1_img.nii.gz", "masks/L1_msk.nii.gz"),
        ("L1_image.nii", "L1_seg.nii"),
        ("imgs_train/x.nii", "ground_truth/x.nii"),
        ("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T1w_seg.nii.gz"),
        ("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_dseg.nii.gz"),
        ("sub-01/anat/sub-01_T1w.nii.gz", "derivatives/hand/sub-01/anat/sub-01_desc-x_dseg.nii.gz"),
        ("sub-01_ses-2_T1w.nii.gz", "sub-01_ses-2_label-lesion_mask.nii.gz"),
    ],
)
def test_pairs_that_are_found(tmp_path, volume, mask):
    assert pairs(tmp_path, volume, mask) == {volume: mask}


def test_other_sessions_are_other_volumes():
    stems = {"a": "sub-1_ses-1_T1w", "b": "sub-1_ses-2_T1w", "c": "sub-1_ses-1_desc-brain_T1w", "d": "case_1"}
    assert bids_owners("sub-1_ses-2_dseg", stems) == ["b"]
    assert bids_owners("sub-1_ses-1_dseg", stems) == ["a"]
    assert bids_owners("sub-1_ses-1_desc-brain_dseg", stems) == ["c"]
    assert bids_owners("sub-1_dseg", stems) == []
    assert bids_owners("case_1_seg", stems) == []


def test_a_segmentation_of_two_contrasts_is_not_guessed(tmp_path):
    with pytest.raises(UsageError, match=r"the mask sub-01_dseg\.nii fits 2 volumes \(sub-01_T1w"):
        pairs(tmp_path, "sub-01_T1w.nii", "sub-01_T2w.nii", "sub-01_dseg.nii")


def test_validation_folders_of_a_challenge(tmp_path):
    for part in ("Tr", "Va"):
        save(tmp_path / f"images{part}" / f"{part}.nii", scan())
        save(tmp_path / f"labels{part}" / f"{part}.nii", classes())
    source = open_source(tmp_path)
    assert source.labels.tolist() == [0, 0]
    assert {name: part.tolist() for name, part in source.splits.items()} == {"train": [0], "val": [1]}


@pytest.mark.parametrize(
    ("volume", "mask", "like"),
    [
        ("case1.nii.gz", "case1_roi.nii.gz", "case1.nii.gz"),
        ("p/case1.nii.gz", "p/case1-tumour.nii.gz", "p/case1.nii.gz"),
        ("ct/a.nii.gz", "drawn/a.nii.gz", "ct/a.nii.gz"),
        ("case_0/imaging.nii.gz", "case_0/segmentation.nii.gz", "one"),
        ("volume-0.nii", "segmentation-0.nii", "one"),
    ],
)
def test_an_unknown_name_of_a_mask_names_those_that_are_known(tmp_path, volume, mask, like):
    save(tmp_path / volume, scan())
    save(tmp_path / mask, classes())
    with pytest.raises(BadFile) as caught:
        open_source(tmp_path)
    told = str(caught.value)
    assert told.startswith(
        f"{mask}: it holds 3 different whole numbers, as a mask does, and is called like {like}: "
    )
    for word in ("_seg", "_mask", "_label", "_gt", "labels/", "--masks"):
        assert word in told
    assert "\n" not in told
    source = open_source(tmp_path, on_bad_file="skip")
    assert (list(source.names), [bad.name for bad in source.skipped]) == ([volume], [mask])


def test_pictures_of_few_values_are_volumes_and_said(tmp_path):
    save(tmp_path / "a.nii", scan())
    save(tmp_path / "phantom.nii", classes())
    source = open_source(tmp_path)
    assert list(source.names) == ["a.nii", "phantom.nii"]
    assert source.notes == ("phantom.nii has few different values, as masks have, and will be learned from",)
    (tmp_path / "a.nii").unlink()
    save(tmp_path / "phantom2.nii", classes(seed=1))  # all are so: nothing is mixed
    assert open_source(tmp_path).notes == ()


def test_what_is_called_like_a_volume_and_holds_fractions_is_said(tmp_path):
    save(tmp_path / "a.nii", scan())
    save(tmp_path / "a_probability.nii", (scan(low=0) / 1000).astype(np.float32))
    save(tmp_path / "a_roi.nii", classes())
    source = open_source(tmp_path, on_bad_file="skip")
    assert [bad.name for bad in source.skipped] == ["a_roi.nii"]
    (note,) = source.notes
    assert note.startswith("a_probability.nii is taken for a volume: if it is the mask of a.nii, let it end")


def test_what_looks_like_a_mask():
    many = {"a.nii": 0, "a_brain.nii": 101, "lesion.nii": 64, "mask7.nii": 65, "unmasked.nii": 3}
    reasons, doubtful = taken_for_volumes(many)
    assert (list(reasons), doubtful) == (["lesion.nii"], ["unmasked.nii"])


def test_files_that_are_not_read_are_named(tmp_path):
    nib.save(nib.MGHImage(scan().astype(np.int32), np.eye(4)), tmp_path / "y.mgz")
    with pytest.raises(UsageError, match=r"1 file, \.mgz; FreeSurfer: convert them with mri_convert"):
        open_source(tmp_path)
    save(tmp_path / "x.nii", scan())
    (tmp_path / "readme.txt").write_text("x")
    assert open_source(tmp_path).notes == (
        "1 .mgz not read (FreeSurfer: convert them with mri_convert, or nibabel)",
    )


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a.nrrd", "a.seg.nrrd"], r"2 files, all \.nrrd; convert them to \.nii\.gz with SimpleITK"),
        (["s/1.dcm", "s/2.dcm"], r"2 files, all \.dcm; DICOM: convert each series with dcm2niix"),
        (["a.hdr", "a.img"], r"1 \.img.*Analyze or NIfTI pairs: save each as one \.nii\.gz"),
        (["a.mhd", "a.raw"], "SimpleITK"),
        (["a.img.gz", "a.hdr.gz"], r"2 files, all \.gz; Analyze or NIfTI pairs"),
    ],
)
def test_folders_of_other_kinds_say_what_to_do(tmp_path, names, told):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UsageError, match=told) as caught:
        open_source(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [("x.nrrd", "SimpleITK"), ("X.DCM", "dcm2niix"), ("x.mgz", "mri_convert"), ("x.img.gz", "Analyze")],
)
def test_a_file_of_another_kind_says_what_to_do(tmp_path, name, told):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UsageError, match=f"{name} is nothing that is read: .*; .*{told}"):
        open_source(tmp_path / name)


def test_files_in_gz_beside_volumes_are_named(tmp_path):
    save(tmp_path / "x.nii", scan())
    (tmp_path / "y.img.gz").write_bytes(b"x")
    (tmp_path / "notes.txt.gz").write_bytes(b"x")
    assert open_source(tmp_path).notes == (
        "1 .img.gz not read (Analyze or NIfTI pairs: save each as one .nii.gz with nibabel)",
    )


def test_an_analyze_header_is_named(tmp_path):
    nib.save(nib.AnalyzeImage(scan(), np.eye(4)), tmp_path / "y.img")
    (tmp_path / "y.hdr").rename(tmp_path / "y.nii")
    with pytest.raises(BadFile, match=r"y\.nii: the header of a \.hdr and \.img pair"):
        open_source(tmp_path)


def test_dicom_without_an_extension(tmp_path):
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(UsageError, match="without an extension; DICOM: convert each series"):
        open_source(tmp_path)
    (tmp_path / "IM0001").write_bytes(b"\0" * 140)
    with pytest.raises(UsageError, match=r"without an extension$"):
        open_source(tmp_path)


def test_numbers_that_32_bits_cannot_tell_apart(tmp_path):
    voxels = scan(low=0).astype(np.int64) + 2**40
    nib.save(nib.Nifti1Image(voxels, np.eye(4), dtype=np.int64), tmp_path / "x.nii")
    with pytest.raises(BadFile, match="32 bits cannot tell them apart; subtract an offset"):
        open_source(tmp_path)


def few(seed=0):
    return classes(seed=seed, count=40)


def test_volumes_of_few_values_beside_others_in_an_archive(tmp_path):
    volumes = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 16)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", train_images=volumes, test_images=volumes[:1] // 100)
    assert len(open_source(tmp_path / "a.npz")) == 4


@pytest.mark.parametrize(
    ("volume", "other"),
    [
        ("train/c.nii", "test/c.nii"),
        ("ct/images/c.nii", "mr/images/c.nii"),
        ("imagesTr/c.nii", "imagesTr/roi.nii"),
    ],
)
def test_volumes_of_few_values_where_volumes_belong(tmp_path, volume, other):
    save(tmp_path / volume, scan())
    save(tmp_path / other, few())
    source = open_source(tmp_path)
    assert set(source.names) == {volume, other}
    assert source.notes == (f"{other} has few different values, as masks have, and will be learned from",)


def test_a_volume_with_a_mask_is_none(tmp_path):
    for site, voxels in (("a", scan()), ("b", few())):
        save(tmp_path / site / "c.nii", voxels)
        save(tmp_path / site / "c_seg.nii", classes())
    source = open_source(tmp_path)
    assert source.labels.tolist() == [0, 0]
    assert source.notes == ()
    save(tmp_path / "a" / "c_late.nii", scan())
    assert open_source(tmp_path).notes[0].startswith("a/c_late.nii is taken for a volume")
    save(tmp_path / "a" / "c_late_seg.nii", classes())
    assert open_source(tmp_path).notes == ()


@pytest.mark.parametrize(
    ("folder", "cure"), [("", "put it into a folder images"), ("images/", "give it another name")]
)
def test_what_to_do_with_a_volume_that_is_called_like_a_mask(tmp_path, folder, cure):
    save(tmp_path / f"{folder}c.nii", scan())
    save(tmp_path / f"{folder}c_roi.nii", few())
    with pytest.raises(BadFile, match=rf"c_roi\.nii: .*; if it is a volume, {cure} \("):
        open_source(tmp_path)
    (tmp_path / "images").mkdir(exist_ok=True)
    (tmp_path / f"{folder}c_roi.nii").rename(tmp_path / "images" / "roi.nii")
    assert len(open_source(tmp_path)) == 2
