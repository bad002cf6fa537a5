"""Versioned search configs: one open draft per collection, activation with a reason, roll back.

Every change of the active version is a ConfigActivation row. Functions that may be refused return
the refusal as a sentence; they raise only for a caller's mistake (a config of another collection).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from searchapp.models import Checkpoint, CheckpointState, Collection, ConfigActivation, SearchConfig
from searchapp.models.configs import Fusion, Variant
from searchapp.models.corpus import AnyUser
from searchapp.models.training import checkpoint_number

MAX_INSTRUCTION_CHARACTERS = 4000
MAX_GLOSSARY_ROWS = 100
MAX_TERM_CHARACTERS = 100
MAX_MEANING_CHARACTERS = 400
MAX_REASON_CHARACTERS = 1000

# Field -> its name on pages, in the order of the form and of every diff.
FIELDS = {
    "instruction": "Instruction",
    "glossary": "Glossary",
    "fusion": "Fusion",
    "dense_weight": "Weight of meaning",
    "rrf_k": "Constant k of reciprocal ranks",
    "lexical_depth": "Depth by words",
    "dense_depth": "Depth by meaning",
    "bm25_variant": "BM25 variant",
    "bm25_k1": "BM25 k1",
    "bm25_b": "BM25 b",
    "rerank_depth": "Rerank depth",
    "model": "Reranker",
    "threshold": "Threshold",
}
# Field -> (smallest, largest, whole number)
RANGES: dict[str, tuple[float, float, bool]] = {
    "dense_weight": (0, 1, False),
    "rrf_k": (1, 1000, True),
    "lexical_depth": (0, 1000, True),
    "dense_depth": (0, 1000, True),
    "bm25_k1": (0, 10, False),
    "bm25_b": (0, 1, False),
    "rerank_depth": (0, 200, True),
    "threshold": (0, 1, False),
}


@dataclass(frozen=True)
class Outcome:
    """What became of an activation: the recorded act, or in `problem` why there is none."""

    activation: ConfigActivation | None
    problem: str = ""


@dataclass(frozen=True)
class Change:
    """One field of a diff, as a page shows it."""

    field: str
    name: str
    before: str
    after: str


# --- drafts ------------------------------------------------------------------------------------


def open_draft(collection: Collection) -> SearchConfig | None:
    """The collection's draft: its newest version that is not frozen yet."""
    return collection.configs.filter(frozen_at=None).order_by("-version").first()


def draft_for(
    collection: Collection, user: AnyUser, based_on: SearchConfig | None = None
) -> SearchConfig:
    """The open draft, or a new one with the values of `based_on` (else of the active version).

    An open draft is returned as it is, so that nobody's work is replaced; discard it first.
    """
    if based_on is not None and based_on.collection_id != collection.pk:
        raise ValueError(f"{based_on} is no version of {collection.slug}")
    with transaction.atomic():
        locked = _locked(collection)
        draft = open_draft(locked)
        if draft is not None:
            return draft
        last = locked.configs.aggregate(last=Max("version"))["last"] or 0
        source = based_on or locked.active_config
        return SearchConfig.objects.create(
            collection=locked,
            version=last + 1,
            created_by_id=_id_of(user),
            **(values(source) if source is not None else {}),
        )


def save_draft(
    draft: SearchConfig, changes: Mapping[str, Any], seen: str | None = None
) -> dict[str, str]:
    """Writes the changed fields. Returns a sentence per field that is wrong; empty when saved.

    `seen` is the `fingerprint` of the draft that the author started from. Key "" of the answer
    holds a refusal that concerns the whole draft.
    """
    unknown = set(changes) - set(FIELDS)
    if unknown:
        raise ValueError(f"no fields of a search config: {sorted(unknown)}")
    with transaction.atomic():
        row = SearchConfig.objects.select_for_update().filter(pk=draft.pk).first()
        if row is None:
            return {"": "Somebody discarded this draft in the meantime; saving starts a new one."}
        if row.frozen_at is not None:
            return {"": f"Version {row.version} is in use and can no longer be changed."}
        if seen is not None and seen != fingerprint(row):
            return {"": "Somebody saved this draft in the meantime. Saving again replaces it."}
        for name, value in changes.items():
            setattr(row, name, value)
        row.glossary = clean_glossary(row.glossary)
        found = problems(row)
        if not found:
            row.save(update_fields=list(FIELDS))
            for name, value in values(row).items():
                setattr(draft, name, value)
        return found


def discard_draft(collection: Collection) -> bool:
    """Deletes the open draft; False when there was none."""
    deleted, _ = collection.configs.filter(frozen_at=None).delete()
    return bool(deleted)


def values(config: SearchConfig) -> dict[str, Any]:
    """The tunable fields of a version."""
    return {name: getattr(config, name) for name in FIELDS}


def fingerprint(config: SearchConfig) -> str:
    """Sixteen hexadecimal characters that change whenever a tunable field does."""
    text = json.dumps(values(config), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def clean_glossary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Rows with their spaces in order, wholly empty ones dropped."""
    cleaned = [
        {key: " ".join(str(row.get(key) or "").split()) for key in ("term", "meaning")}
        for row in rows
    ]
    return [row for row in cleaned if row["term"] or row["meaning"]]


# --- checking ----------------------------------------------------------------------------------


def problems(config: SearchConfig) -> dict[str, str]:
    """Field -> what is wrong with it, a sentence for the reader of the page."""
    found: dict[str, str] = {}
    for name, (smallest, largest, whole) in RANGES.items():
        value = getattr(config, name)
        if name == "threshold" and value is None:
            continue
        kind = "a whole number" if whole else "a number"
        fits = isinstance(value, int | float) and smallest <= value <= largest
        if not fits or (whole and value != int(value)):
            found[name] = f"{FIELDS[name]} must be {kind} from {smallest:g} to {largest:g}."
    if len(config.instruction) > MAX_INSTRUCTION_CHARACTERS:
        found["instruction"] = (
            f"The instruction has {len(config.instruction)} characters; "
            f"it may have up to {MAX_INSTRUCTION_CHARACTERS}."
        )
    if config.fusion not in Fusion.values:
        found["fusion"] = f"“{config.fusion}” is no way to merge the two legs."
    if config.bm25_variant not in Variant.values:
        found["bm25_variant"] = f"“{config.bm25_variant}” is no variant of BM25."
    if not config.model.strip():
        found["model"] = "Name a reranker, or write default for the configured one."
    elif sentence := _checkpoint_problem(config):
        found["model"] = sentence
    if "lexical_depth" not in found and not config.lexical_depth and not config.dense_depth:
        found["lexical_depth"] = (
            "A search needs at least one leg: give words or meaning a depth above 0."
        )
    glossary = _glossary_problem(config.glossary)
    if glossary:
        found["glossary"] = glossary
    return found


def _glossary_problem(rows: Sequence[Mapping[str, str]]) -> str:
    if len(rows) > MAX_GLOSSARY_ROWS:
        return f"The glossary has {len(rows)} rows; it may have up to {MAX_GLOSSARY_ROWS}."
    for row in rows:
        if not row["term"] or not row["meaning"]:
            return "Each row of the glossary needs both a term and its meaning."
        if len(row["term"]) > MAX_TERM_CHARACTERS or len(row["meaning"]) > MAX_MEANING_CHARACTERS:
            return (
                f"“{row['term'][:40]}” is too long for the glossary: terms take up to "
                f"{MAX_TERM_CHARACTERS} characters, meanings up to {MAX_MEANING_CHARACTERS}."
            )
    terms = [row["term"].casefold() for row in rows]
    twice = next((row["term"] for row in rows if terms.count(row["term"].casefold()) > 1), "")
    return f"“{twice}” stands in the glossary twice." if twice else ""


def _checkpoint_problem(config: SearchConfig) -> str:
    """A reranker trained here serves its own collection, once its owner has activated it."""
    number = checkpoint_number(config.model)
    if number is None:
        return ""
    checkpoint = Checkpoint.objects.named(config.model, config.collection_id)
    if checkpoint is None:
        return f"This collection has no checkpoint {number}."
    if checkpoint.state == CheckpointState.RETIRED:
        return f"The files of checkpoint {number} were deleted: it cannot serve any more."
    if checkpoint.state != CheckpointState.ACTIVE:
        return f"Checkpoint {number} was not activated yet: that is decided on the training page."
    return ""


# --- activation --------------------------------------------------------------------------------


def activate(
    config: SearchConfig, user: AnyUser, reason: str, seen_active_id: int | None = None
) -> Outcome:
    """Makes `config` the active version of its collection, freezes it and records the act.

    `seen_active_id` is the version that was active when the user decided; when another one is
    active by now, nothing happens and the outcome says so. None skips that check.
    """
    reason = reason.strip()
    if not reason:
        return Outcome(None, "Give a reason: it is what the history shows to the next person.")
    if len(reason) > MAX_REASON_CHARACTERS:
        return Outcome(None, f"The reason may have up to {MAX_REASON_CHARACTERS} characters.")
    with transaction.atomic():
        collection = _locked(config.collection)
        row = SearchConfig.objects.select_for_update().filter(pk=config.pk).first()
        if row is None:
            return Outcome(None, "This version was discarded in the meantime.")
        if seen_active_id is not None and collection.active_config_id != seen_active_id:
            return Outcome(None, _overtaken(collection))
        if collection.active_config_id == row.pk:
            return Outcome(None, f"Version {row.version} is active already.")
        wrong = problems(row)
        if wrong:
            return Outcome(None, next(iter(wrong.values())))
        if row.frozen_at is None:
            row.frozen_at = timezone.now()
            row.save(update_fields=["frozen_at"])
        activation = ConfigActivation.objects.create(
            collection=collection,
            config=row,
            previous_id=collection.active_config_id,
            activated_by_id=_id_of(user),
            reason=reason,
        )
        collection.active_config = row
        collection.save(update_fields=["active_config"])
    config.frozen_at = row.frozen_at
    return Outcome(activation)


def activate_changed(
    collection: Collection,
    changes: Mapping[str, Any],
    user: AnyUser,
    reason: str,
    seen_active_id: int | None = None,
) -> Outcome:
    """A new version at once: the active one with `changes`. An open draft stays as it is."""
    with transaction.atomic():
        locked = _locked(collection)
        last = locked.configs.aggregate(last=Max("version"))["last"] or 0
        config = SearchConfig.objects.create(
            collection=locked,
            version=last + 1,
            created_by_id=_id_of(user),
            **{**(values(locked.active_config) if locked.active_config else {}), **changes},
        )
        outcome = activate(config, user, reason, seen_active_id)
        if outcome.activation is None:
            transaction.set_rollback(True)
    return outcome


def roll_back(
    collection: Collection,
    to_config: SearchConfig,
    user: AnyUser,
    reason: str,
    seen_active_id: int | None = None,
) -> Outcome:
    """Activates a version that was active before."""
    if to_config.collection_id != collection.pk:
        raise ValueError(f"{to_config} is no version of {collection.slug}")
    if not to_config.activations.exists():
        return Outcome(None, f"Version {to_config.version} was never active.")
    return activate(to_config, user, reason, seen_active_id)


def diff(before: SearchConfig | None, after: SearchConfig) -> list[Change]:
    """The fields in which two versions differ, in the order of the form; None has no fields."""
    if before is None:
        return []
    return [
        Change(name, label, shown(before, name), shown(after, name))
        for name, label in FIELDS.items()
        if getattr(before, name) != getattr(after, name)
    ]


def shown(config: SearchConfig, name: str) -> str:
    """A field's value in words."""
    value = getattr(config, name)
    if name == "glossary":
        return "\n".join(f"{row['term']}: {row['meaning']}" for row in value) or "empty"
    if name in {"fusion", "bm25_variant"}:
        return str(getattr(config, f"get_{name}_display")())
    if value is None or value == "":
        return "none"
    if name == "model" and value == "default":
        return "the configured reranker"
    if name == "model" and checkpoint_number(value) is not None:
        return f"checkpoint {checkpoint_number(value)}, trained here"
    if name == "rerank_depth" and not value:
        return "0 (off)"
    return f"{value:g}" if isinstance(value, float) else str(value)


def rendered_instruction(config: SearchConfig, override: str | None = None) -> str:
    """The text the reranker is given beside the query; "" means none.

    `override` replaces the config's instruction for one search: None keeps it, "" turns
    instruction and glossary off. Glossary rows follow as `term: meaning` under a `Glossary:` line.
    """
    if override is not None and not override.strip():
        return ""
    instruction = (config.instruction if override is None else override).strip()
    rows = [f"{row['term']}: {row['meaning']}" for row in config.glossary]
    parts = [instruction] if instruction else []
    if rows:
        parts.append("\n".join(["Glossary:", *rows]))
    return "\n\n".join(parts)


def _overtaken(collection: Collection) -> str:
    last = collection.activations.select_related("activated_by", "config").first()
    if last is None:
        return "Another version was made active in the meantime. Look at it, then decide again."
    who = last.activated_by.get_username() if last.activated_by else "Somebody"
    return (
        f"{who} made version {last.config.version} active in the meantime "
        f"(“{last.reason[:200]}”). Look at it, then decide again."
    )


def _locked(collection: Collection) -> Collection:
    """The row itself, held until the transaction ends: changes of versions happen one by one."""
    return Collection.objects.select_for_update(of=("self",)).get(pk=collection.pk)


def _id_of(user: AnyUser) -> int | None:
    return user.pk if user is not None and user.is_authenticated else None
