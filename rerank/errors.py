"""What can go wrong in the engine, by whose fault it is."""

from __future__ import annotations


class RerankError(Exception):
    """Base. The message is a sentence for the person who reads it."""


class ModelNotFound(RerankError):
    """No such model, or its files are incomplete."""


class WrongModel(RerankError):
    """The files hold a model of another kind, for example one without a trained scoring head."""


class BadInput(RerankError):
    """The caller's texts cannot be scored."""


class DeviceError(RerankError):
    """The device asked for is missing or out of memory."""


class Overloaded(RerankError):
    """More is waiting than can be answered in time; try again later."""


class Cancelled(RerankError):
    """Nobody waits for the answer any more, or its deadline has passed."""


class EndpointError(RerankError):
    """A remote reranker did not answer, or not as its contract says."""


class BadRecipe(RerankError):
    """A recipe file or address does not describe a reranker."""


class BadPreferences(RerankError):
    """Preferences between documents cannot become scores."""


class BadStage(RerankError):
    """A file that one stage of training hands to the next is missing, broken or of another run."""


class JudgingStopped(RerankError):
    """The judges failed, or would cost more than allowed. What they answered is kept."""


class TrainingFailed(RerankError):
    """Training cannot start or go on: wrong data or settings, a full disk, losses that are no
    numbers."""


class StageFailed(RerankError):
    """A stage of the pipeline cannot be done; the message begins with its name. The stages before
    it are kept."""
