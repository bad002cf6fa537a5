"""What a run of the pipeline is told: a TOML file, or the same tables made in code.

docs/zelo.md shows a whole recipe with a comment on each key.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rerank.errors import BadRecipe, TrainingFailed
from rerank.tables import FLAG, TABLE, TEXT, VARIABLE, Check, checked, number, one_of, whole
from rerank.training.settings import Settings, settings_from

from .links import LINKS
from .mining import Mining
from .offsets import DEFAULT_OFFSET_RIDGE
from .recipe_data import ANY_TEXT, PATH, PATHS, Data, existing, read_data, read_mining
from .scoring import DEFAULT_RIDGE
from .stages import DEFAULT_BRIDGE_DEGREE, DEFAULT_DEGREE

CHAT_KINDS = ("openai", "anthropic", "gemini")
JUDGE_KINDS = (*CHAT_KINDS, "qrels", "people", "model")


@dataclass(frozen=True)
class PairSettings:
    """`degree`: comparisons of each document. `bridge_degree`: of each query with others; 0 for
    none. `gold`, `gold_bridge_degree`: what the judges are asked where a pairwise model answers the
    rest."""

    degree: int = DEFAULT_DEGREE
    bridge_degree: int = DEFAULT_BRIDGE_DEGREE
    gold: int = 1
    gold_bridge_degree: int = 2


@dataclass(frozen=True)
class JudgeRecipe:
    """`kind`: one of JUDGE_KINDS. `path`: of people's file, qrels (None where they are yet to be
    mined) or a model. `options`: the other
    keys of its table, as judges of that kind take them."""

    kind: str
    path: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "path": str(self.path or ""), "options": dict(self.options)}


@dataclass(frozen=True)
class Judging:
    """`budget`: the most judging may cost in one directory, all starts of the run together, in the
    currency of the prices; None where there is none."""

    calibrate: bool = True
    budget: float | None = None


@dataclass(frozen=True)
class Fit:
    link: str = "thurstone"
    offsets: bool = True
    ridge: float = DEFAULT_RIDGE
    offset_ridge: float = DEFAULT_OFFSET_RIDGE
    mean_target: float = 0.5


@dataclass(frozen=True)
class Training:
    """`base`: a model's name or directory, "" for the built-in body. `method`: full or lora.
    `max_tokens`: of one row, 0 for what the base takes. `seeds`: one training each; the best by its
    held-out queries is kept."""

    base: str = ""
    method: str = "full"
    lora_rank: int = 16
    dtype: str = "float32"
    max_tokens: int = 0
    seeds: tuple[int, ...] = (0,)
    settings: Settings = field(default_factory=Settings)

    def as_json(self) -> dict[str, Any]:
        """What a stage depends on; the seed is each training's own."""
        settings = {k: v for k, v in asdict(self.settings).items() if k != "seed"}
        own = {k: v for k, v in asdict(self).items() if k not in {"settings", "seeds"}}
        return {**own, "settings": settings}


@dataclass(frozen=True)
class SecondPass:
    """`rounds`: 0 for none. `worst_rank`: a query fails when its best human-judged document stands
    below this rank."""

    rounds: int = 0
    worst_rank: int = 3


@dataclass(frozen=True)
class Evaluation:
    """BEIR folders to measure on; `queries`: at most the first so many of each, 0 for all."""

    folders: tuple[Path, ...] = ()
    split: str = "test"
    queries: int = 0


@dataclass(frozen=True)
class Recipe:
    """`pairwise` None: the judges answer the whole graph. `pointwise` None: the run ends with
    targets."""

    data: Data
    judges: tuple[JudgeRecipe, ...]
    name: str = "zelo"
    seed: int = 0
    device: str = "auto"
    pairs: PairSettings = field(default_factory=PairSettings)
    judging: Judging = field(default_factory=Judging)
    pairwise: Training | None = None
    fit: Fit = field(default_factory=Fit)
    pointwise: Training | None = None
    second_pass: SecondPass = field(default_factory=SecondPass)
    evaluation: Evaluation = field(default_factory=Evaluation)
    mining: Mining = field(default_factory=Mining)

    def with_qrels(self, mined: Path) -> Recipe:
        """Human judgments that are mined with the candidates: where they will lie."""
        judges = [
            replace(each, path=mined) if each.kind == "qrels" and each.path is None else each
            for each in self.judges
        ]
        return replace(self, data=replace(self.data, qrels=mined), judges=tuple(judges))


def _is_address(value: str) -> bool:
    """Whether it can be asked; "" stands for the vendor's own."""
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return not value or (parts.scheme in {"http", "https"} and bool(parts.netloc))


_DEGREE = Check(
    "0, or a whole number from 2 to 1000",
    lambda value: type(value) is int and (value == 0 or 2 <= value <= 1000),
)
_SEEDS = Check(
    "a list of one or more different whole numbers",
    lambda value: (
        isinstance(value, list)
        and all(type(each) is int and each >= 0 for each in value)
        and 0 < len(value) == len(set(value))
    ),
)
_TABLES = Check(
    "written as [[judges]] tables",
    lambda value: isinstance(value, list) and all(isinstance(each, dict) for each in value),
)
_RECIPE_CHECKS = {
    "name": TEXT,
    "seed": whole(0, 2**32 - 1),
    "device": TEXT,
    "judges": _TABLES,
    **dict.fromkeys(
        (
            "data",
            "mining",
            "pairs",
            "judging",
            "pairwise",
            "fit",
            "pointwise",
            "second_pass",
            "evaluate",
        ),
        TABLE,
    ),
}
_PAIR_CHECKS = {
    "degree": whole(2, 1000),
    "bridge_degree": _DEGREE,
    "gold": whole(1, 10_000),
    "gold_bridge_degree": _DEGREE,
}
_CHAT_CHECKS = {
    "model": TEXT,
    "url": Check(
        "an address that begins with http:// or https://",
        lambda value: isinstance(value, str) and _is_address(value),
        shown=False,
    ),
    "key_env": VARIABLE,
    "name": TEXT,
    "input_price": number(0, 1e6),
    "output_price": number(0, 1e6),
    "answer_tokens": whole(1, 100_000),
    "timeout_seconds": number(0.05, 3600),
    "max_retries": whole(0, 20),
    "parallel": whole(1, 256),
    "document_characters": whole(20, 10**7),
    "max_answer_tokens": whole(1, 100_000),
    "hard": FLAG,
    "extra": TABLE,
}
_JUDGE_CHECKS = {
    **dict.fromkeys(CHAT_KINDS, _CHAT_CHECKS),
    "qrels": {
        "name": TEXT,
        "file": PATH,
        "unjudged": one_of(("irrelevant", "abstain")),
    },
    "people": {"name": TEXT, "file": PATH},
    "model": {"directory": PATH},
}
_TRAINING_CHECKS = {
    "base": ANY_TEXT,
    "method": one_of(("full", "lora")),
    "lora_rank": whole(1, 4096),
    "dtype": TEXT,
    "max_tokens": Check(
        "0, or a whole number from 32 to 1000000",
        lambda value: type(value) is int and (value == 0 or 32 <= value <= 10**6),
    ),
    "seeds": _SEEDS,
}


def read_recipe(path: Path) -> Recipe:
    """Its paths start at its own folder. Raises BadRecipe."""
    try:
        # Some editors put a mark before the first letter.
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadRecipe(f"The recipe file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadRecipe(
            f"The recipe {path.name} is not UTF-8 text. Save it as UTF-8 and try again."
        ) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadRecipe(f"The recipe {path.name} is not TOML: {error}.") from error
    return recipe_of({"name": path.stem, **table}, path.parent, f"The recipe {path.name}")


def recipe_of(table: Mapping[str, Any], folder: Path, where: str = "The recipe") -> Recipe:
    """The recipe in tables such as a TOML file gives. `folder`: where its paths start. Raises
    BadRecipe."""
    values = checked(where, table, _RECIPE_CHECKS, ("data", "judges"))
    data = read_data(f"{where}, [data]", values["data"], folder)
    mining = read_mining(where, values, data)
    tables = values["judges"]
    if not tables:
        raise BadRecipe(f"{where} names no judge: add a [[judges]] table.")
    judges = tuple(
        _judge(f"{where}, judge {at}", each, folder, data) for at, each in enumerate(tables, 1)
    )
    made = Recipe(
        data,
        judges,
        values.get("name", "zelo"),
        values.get("seed", 0),
        values.get("device", "auto"),
        PairSettings(**checked(f"{where}, [pairs]", values.get("pairs", {}), _PAIR_CHECKS, ())),
        _judging(f"{where}, [judging]", values.get("judging", {})),
        _training(f"{where}, [pairwise]", values.get("pairwise"), folder, ("pair_bce",)),
        _fit(f"{where}, [fit]", values.get("fit", {})),
        _training(
            f"{where}, [pointwise]", values.get("pointwise"), folder, ("mse", "bce", "listwise")
        ),
        _second_pass(f"{where}, [second_pass]", values.get("second_pass", {})),
        _evaluation(f"{where}, [evaluate]", values.get("evaluate", {}), folder),
        mining,
    )
    if made.pairwise is not None and len(made.pairwise.seeds) > 1:
        raise BadRecipe(f"{where}, [pairwise]: seeds must hold one seed; the model is one judge.")
    if made.pointwise is None and (made.second_pass.rounds or made.evaluation.folders):
        raise BadRecipe(
            f"{where} has no [pointwise] table, which [second_pass] and [evaluate] need."
        )
    if made.second_pass.rounds and data.qrels is None and not data.rows:
        raise BadRecipe(
            f"{where}: [second_pass] needs human judgments: set qrels in [data], or folder and "
            "split."
        )
    return made


def _judge(where: str, table: Mapping[str, Any], folder: Path, data: Data) -> JudgeRecipe:
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in JUDGE_KINDS:
        raise BadRecipe(f"{where}: kind must be one of {', '.join(JUDGE_KINDS)}, not {kind!r}.")
    rest = {key: value for key, value in table.items() if key != "kind"}
    required = ("model",) if kind in CHAT_KINDS else ()
    values = checked(where, rest, _JUDGE_CHECKS[kind], required)
    if kind in CHAT_KINDS:
        if ("input_price" in values) != ("output_price" in values):
            raise BadRecipe(f"{where}: input_price and output_price go together.")
        return JudgeRecipe(kind, None, values)
    key = "directory" if kind == "model" else "file"
    if key in values:
        return JudgeRecipe(kind, existing(where, key, values.pop(key), folder, key), values)
    if kind == "qrels" and (data.qrels is not None or data.rows):
        return JudgeRecipe(kind, data.qrels, values)
    if kind == "qrels":
        raise BadRecipe(
            f"{where}: the key file is missing, and [data] names no judgments either: set qrels "
            "there, or folder and split."
        )
    raise BadRecipe(f"{where}: the key {key} is missing.")


def _judging(where: str, table: Mapping[str, Any]) -> Judging:
    return Judging(**checked(where, table, {"calibrate": FLAG, "budget": number(0, 1e9)}, ()))


def _fit(where: str, table: Mapping[str, Any]) -> Fit:
    checks = {
        "link": one_of(tuple(LINKS)),
        "offsets": FLAG,
        "ridge": number(1e-9, 1e6),
        "offset_ridge": number(1e-9, 1e6),
        "mean_target": number(0.01, 0.99),
    }
    return Fit(**checked(where, table, checks, ()))


def _training(
    where: str, table: Mapping[str, Any] | None, folder: Path, losses: tuple[str, ...]
) -> Training | None:
    if table is None:
        return None
    settings = {key: value for key, value in table.items() if key not in _TRAINING_CHECKS}
    own = {key: value for key, value in table.items() if key in _TRAINING_CHECKS}
    values = checked(where, own, _TRAINING_CHECKS, ())
    if "seed" in settings:
        raise BadRecipe(f"{where}: write seeds, a list, instead of seed.")
    known = {*_TRAINING_CHECKS, *Settings.__dataclass_fields__} - {"seed"}
    for key in settings:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.85)
        if key not in known and near:
            raise BadRecipe(f"{where}: the key {key} is unknown; did you mean {near[0]}?")
    settings.setdefault("loss", losses[0])
    if settings["loss"] not in losses:
        raise BadRecipe(f"{where}: loss must be {' or '.join(losses)}.")
    if values.get("method") == "lora":
        settings.setdefault("rate", 1e-4)
    try:
        made = settings_from(settings)
    except TrainingFailed as error:
        raise BadRecipe(f"{where}: {error}") from error
    values["seeds"] = tuple(values.get("seeds", (0,)))
    if base := values.get("base"):
        values["base"] = _base(where, base, folder)
    return Training(**values, settings=made)


def _base(where: str, base: str, folder: Path) -> str:
    """A directory beside the recipe, or whatever else names a model."""
    path = folder / Path(base).expanduser()
    if path.is_dir():
        return str(path)
    if base.startswith((".", "/", "~")):
        raise BadRecipe(f"{where}: base names {path}, which does not exist.")
    return base


def _second_pass(where: str, table: Mapping[str, Any]) -> SecondPass:
    checks = {"rounds": whole(0, 10), "worst_rank": whole(1, 1000)}
    return SecondPass(**checked(where, table, checks, ()))


def _evaluation(where: str, table: Mapping[str, Any], folder: Path) -> Evaluation:
    checks = {"folders": PATHS, "split": TEXT, "queries": whole(0, 10**9)}
    values = checked(where, table, checks, ())
    named = values.get("folders", ())
    folders = [existing(where, "folders", each, folder, "folder") for each in named]
    if len({each.name for each in folders}) < len(folders):
        raise BadRecipe(f"{where}: two folders have the same name, which their rows are told by.")
    return Evaluation(**{**values, "folders": tuple(folders)})
