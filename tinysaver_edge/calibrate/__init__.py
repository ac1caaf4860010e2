"""Calibration: from models and labelled samples to a saver, a threshold and a bundle.

settings, options  every option: its flag, its place in a recipe and in the plan
planning           settings become a plan: the files they name are found
recipe             settings in a TOML file
plan, targets      what is measured, and what is asked of it
variants           one model file at several sizes and precisions
run                from a plan to a bundle, through all that follows
gathered           the first part of it: all that was measured, or read
measured/          every model's outputs and times on the user's data
problem            all models' answers on the same samples: what there is to choose from
costs              what each cascade of them costs
methods/           thresholds proposed and proven
chosen/            the best that keeps every limit, written as a bundle
calibration        the result
report/            the page about it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinysaver_edge._support.packages import lazy_exports

__all__ = [
    "AnswerWord",
    "Asked",
    "Bets",
    "Budgets",
    "Calibration",
    "Candidate",
    "Certificate",
    "CodecCost",
    "CutEpochs",
    "DataSource",
    "DeviceProfile",
    "EvidenceKind",
    "Figures",
    "ImageInput",
    "Interview",
    "Jpeg",
    "LeftOut",
    "Method",
    "MethodRow",
    "ModelFile",
    "Objective",
    "Plan",
    "Policy",
    "PredictedLatency",
    "Progress",
    "Question",
    "QuestionPlan",
    "RecordInput",
    "Reference",
    "ReuseFigures",
    "Sample",
    "Targets",
    "TriedCombination",
    "WalkStep",
    "calibrate",
    "load_profile",
    "plan_questions",
]

if TYPE_CHECKING:
    from tinysaver_edge._support.progress import Progress
    from tinysaver_edge.calibrate.calibration import (
        Calibration,
        Candidate,
        CodecCost,
        MethodRow,
        PredictedLatency,
        QuestionPlan,
        TriedCombination,
    )
    from tinysaver_edge.calibrate.plan import (
        Asked,
        CutEpochs,
        ImageInput,
        ModelFile,
        Plan,
        RecordInput,
    )
    from tinysaver_edge.calibrate.run import calibrate, plan_questions
    from tinysaver_edge.calibrate.targets import Budgets, Method, Objective, Reference, Targets
    from tinysaver_edge.certificate.certificate import Certificate, WalkStep
    from tinysaver_edge.certificate.p_values import Bets, EvidenceKind
    from tinysaver_edge.codec import Jpeg
    from tinysaver_edge.data.images import LeftOut
    from tinysaver_edge.data.source import DataSource, Sample
    from tinysaver_edge.deciding.figures import Figures, ReuseFigures
    from tinysaver_edge.deciding.policy import Policy
    from tinysaver_edge.hardware.profile import DeviceProfile, load_profile
    from tinysaver_edge.questions.book import AnswerWord
    from tinysaver_edge.questions.interview import Interview
    from tinysaver_edge.questions.known import Question
else:
    # A worker of a calibration needs a small part of all this, and starts often.
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "tinysaver_edge._support.progress": ("Progress",),
            "calibration": (
                "Calibration",
                "Candidate",
                "CodecCost",
                "MethodRow",
                "PredictedLatency",
                "QuestionPlan",
                "TriedCombination",
            ),
            "plan": (
                "Asked",
                "CutEpochs",
                "ImageInput",
                "ModelFile",
                "Plan",
                "RecordInput",
            ),
            "run": ("calibrate", "plan_questions"),
            "targets": ("Budgets", "Method", "Objective", "Reference", "Targets"),
            "tinysaver_edge.certificate.certificate": ("Certificate", "WalkStep"),
            "tinysaver_edge.certificate.p_values": ("Bets", "EvidenceKind"),
            "tinysaver_edge.codec": ("Jpeg",),
            "tinysaver_edge.data.images": ("LeftOut",),
            "tinysaver_edge.data.source": ("DataSource", "Sample"),
            "tinysaver_edge.deciding.figures": ("Figures", "ReuseFigures"),
            "tinysaver_edge.deciding.policy": ("Policy",),
            "tinysaver_edge.hardware.profile": ("DeviceProfile", "load_profile"),
            "tinysaver_edge.questions.book": ("AnswerWord",),
            "tinysaver_edge.questions.interview": ("Interview",),
            "tinysaver_edge.questions.known": ("Question",),
        },
    )
