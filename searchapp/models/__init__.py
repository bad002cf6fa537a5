"""The tables. One file per noun family; everything is importable from here."""

from .api_keys import ApiKey, ApiUsage, Family, Scope
from .attributes import DocumentAttribute
from .configs import ConfigActivation, SavedQuery, SearchConfig
from .corpus import (
    LANGUAGES,
    Collection,
    Document,
    DocumentStatus,
    DocumentText,
    Membership,
    Passage,
    Role,
)
from .judgments import Calibration, CalibrationState, Grade, Judgment
from .postings import Posting, Segment
from .traces import Trace
from .training import Checkpoint, CheckpointState, TrainingJob, TrainingState
from .uploads import OPEN_STATES, Upload, UploadBatch, UploadState
from .vectors import Generation, GenerationState, PendingVector

__all__ = [
    "LANGUAGES",
    "OPEN_STATES",
    "ApiKey",
    "ApiUsage",
    "Calibration",
    "CalibrationState",
    "Checkpoint",
    "CheckpointState",
    "Collection",
    "ConfigActivation",
    "Document",
    "DocumentAttribute",
    "DocumentStatus",
    "DocumentText",
    "Family",
    "Generation",
    "GenerationState",
    "Grade",
    "Judgment",
    "Membership",
    "Passage",
    "PendingVector",
    "Posting",
    "Role",
    "SavedQuery",
    "Scope",
    "SearchConfig",
    "Segment",
    "Trace",
    "TrainingJob",
    "TrainingState",
    "Upload",
    "UploadBatch",
    "UploadState",
]
