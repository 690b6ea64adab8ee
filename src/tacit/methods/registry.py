"""All methods by slug, without importing any of them until one is wanted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from tacit.errors import TacitError, unknown

if TYPE_CHECKING:
    from tacit.methods.base import Method

ENTRY_POINTS = "tacit.methods"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the list of methods. `where` is `module:Class`."""

    where: str
    title: str
    family: str
    modality: str
    learns_from: str = "unlabelled"
    paper: str = ""


METHODS: dict[str, Entry] = {
    "simclr": Entry(
        "tacit.methods.contrastive.simclr:SimCLR",
        "Contrastive learning of two views (InfoNCE)",
        "contrastive",
        "image",
        paper="arXiv 2002.05709",
    ),
    "dcl": Entry(
        "tacit.methods.contrastive.dcl:DCL",
        "Decoupled contrastive learning",
        "contrastive",
        "image",
        paper="arXiv 2110.06848",
    ),
    "dclw": Entry(
        "tacit.methods.contrastive.dcl:DCLW",
        "Decoupled contrastive learning, weighted",
        "contrastive",
        "image",
        paper="arXiv 2110.06848",
    ),
    "moco": Entry(
        "tacit.methods.contrastive.moco:MoCo",
        "Momentum contrast with a queue of keys (v2)",
        "contrastive",
        "image",
        paper="arXiv 2003.04297",
    ),
    "nnclr": Entry(
        "tacit.methods.contrastive.nnclr:NNCLR",
        "Nearest neighbours as positives",
        "contrastive",
        "image",
        paper="arXiv 2104.14548",
    ),
    "swav": Entry(
        "tacit.methods.clustering.swav:SwAV",
        "Views predict each other's prototypes",
        "clustering",
        "image",
        paper="arXiv 2006.09882",
    ),
    "deepcluster": Entry(
        "tacit.methods.clustering.deepcluster:DeepClusterV2",
        "Clusters of one epoch are the classes of the next (v2)",
        "clustering",
        "image",
        paper="arXiv 2006.09882",
    ),
    "semixup": Entry(
        "tacit.methods.classification.semixup:Semixup",
        "Consistency in and out of the manifold, for grading",
        "semi-supervised",
        "image",
        learns_from="both",
        paper="arXiv 2003.01944",
    ),
    "supervised": Entry(
        "tacit.methods.classification.supervised:Supervised",
        "The labels alone, the same steps: the baseline",
        "baseline",
        "image",
        learns_from="labels",
    ),
    "pseudo-label": Entry(
        "tacit.methods.classification.pseudo_label:PseudoLabel",
        "Confident predictions become labels",
        "semi-supervised",
        "image",
        learns_from="both",
        paper="Lee, 2013",
    ),
    "pi-model": Entry(
        "tacit.methods.classification.pi_model:PiModel",
        "Two views, one prediction",
        "semi-supervised",
        "image",
        learns_from="both",
        paper="arXiv 1610.02242",
    ),
    "mean-teacher": Entry(
        "tacit.methods.classification.mean_teacher:MeanTeacher",
        "The student follows its own average",
        "semi-supervised",
        "image",
        learns_from="both",
        paper="arXiv 1703.01780",
    ),
    "ict": Entry(
        "tacit.methods.classification.ict:ICT",
        "Predictions between samples are interpolated",
        "semi-supervised",
        "image",
        learns_from="both",
        paper="arXiv 1903.03825",
    ),
    "mixmatch": Entry(
        "tacit.methods.classification.mixmatch:MixMatch",
        "Sharpened guesses, everything mixed",
        "semi-supervised",
        "image",
        learns_from="both",
        paper="arXiv 1905.02249",
    ),
    "fixmatch": Entry(
        "tacit.methods.classification.fixmatch:FixMatch",
        "A weak view labels the strong one",
        "semi-supervised",
        "image",
        learns_from="both",
        paper="arXiv 2001.07685",
    ),
    "flexmatch": Entry(
        "tacit.methods.classification.fixmatch:FlexMatch",
        "FixMatch with a threshold per class",
        "semi-supervised",
        "image",
        learns_from="both",
        paper="arXiv 2110.08263",
    ),
    "freematch": Entry(
        "tacit.methods.classification.freematch:FreeMatch",
        "FixMatch with thresholds that adapt",
        "semi-supervised",
        "image",
        learns_from="both",
        paper="arXiv 2205.07246",
    ),
    "softmatch": Entry(
        "tacit.methods.classification.freematch:SoftMatch",
        "FixMatch with weights, no threshold",
        "semi-supervised",
        "image",
        learns_from="both",
        paper="arXiv 2301.10921",
    ),
    "tracoco": Entry(
        "tacit.methods.segmentation.tracoco:TraCoCo",
        "Shifted patches agree, two networks teach each other",
        "segmentation",
        "volume",
        learns_from="both",
        paper="arXiv 2203.14523",
    ),
    "cps": Entry(
        "tacit.methods.segmentation.cps:CPS",
        "Cross pseudo supervision of two networks",
        "segmentation",
        "volume",
        learns_from="both",
        paper="arXiv 2106.01226",
    ),
    "mean-teacher-segmentation": Entry(
        "tacit.methods.segmentation.mean_teacher_segmentation:MeanTeacherSegmentation",
        "The student follows its own average, for masks",
        "segmentation",
        "volume",
        learns_from="both",
        paper="arXiv 1703.01780",
    ),
    "ua-mt": Entry(
        "tacit.methods.segmentation.mean_teacher_segmentation:UAMT",
        "Mean Teacher where the teacher is sure",
        "segmentation",
        "volume",
        learns_from="both",
        paper="arXiv 1907.07034",
    ),
    "urpc": Entry(
        "tacit.methods.segmentation.urpc:URPC",
        "The scales of one network agree",
        "segmentation",
        "volume",
        learns_from="both",
        paper="arXiv 2012.07042",
    ),
    "supervised-segmentation": Entry(
        "tacit.methods.segmentation.supervised_segmentation:SupervisedSegmentation",
        "The masks alone: the baseline, and fine-tuning",
        "baseline",
        "volume",
        learns_from="labels",
    ),
    "alice": Entry(
        "tacit.methods.distillation.alice.alice:Alice",
        "The same place in another patient is the positive",
        "volumes",
        "volume",
        paper="arXiv 2302.05615",
    ),
    "joint-image-volume": Entry(
        "tacit.methods.clustering.joint_image_volume.joint_image_volume:JointImageVolume",
        "Slices and images are clustered, slices guessed, volumes clustered",
        "volumes",
        "volume",
        paper="arXiv 2212.01893",
    ),
}


def all_methods() -> dict[str, Entry]:
    """Ours and those of installed packages with an entry point in the group `tacit.methods`.

    A third party's class may describe itself with class attributes `title`, `family`, `paper`; they
    are read only when the class is loaded, so that listing imports nothing.
    """
    others = {
        point.name: Entry(point.value, f"from {point.dist.name if point.dist else 'a plugin'}", "-", "-")
        for point in entry_points(group=ENTRY_POINTS)
    }
    return {**others, **METHODS}


def method_class(slug: str) -> type[Method]:
    """The class of a method: of a slug, or of `module:Class` for one that is not registered.

    Raises:
        UsageError: no method has this slug.
        TacitError: a plugin's class cannot be imported or is no Method.
    """
    methods = all_methods()
    if slug not in methods and not re.fullmatch(r"\w[\w.]*:\w+", slug):
        raise unknown("method", slug, methods)
    where = methods[slug].where if slug in methods else slug
    module, _, name = where.partition(":")
    from tacit.methods.base import Method

    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise TacitError(f"method '{slug}' ({where}) cannot be loaded: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise TacitError(f"method '{slug}' ({where}) is no tacit.Method")
    return found
