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
