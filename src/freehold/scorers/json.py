"""JSON, field by field."""

from __future__ import annotations

import json
from typing import Any, Literal

from msgspec import field

from freehold.errors import BadTask
from freehold.names import shown
from freehold.scorers import base
from freehold.scorers.compare import Comparator, Way
from freehold.scorers.fields import Comparison, Document, Rules, Unreadable, read
from freehold.types import Answer, Sample, Score

BACKTRACKS = 1_000_000  # steps back that one pattern of a schema may take


class Settings(base.Settings):
    """``value``: ``all`` gives 1 where all fields are right; ``f1`` the share of fields that are; ``valid`` 1 where the
    JSON is readable and keeps the schema, whatever it says. ``schema``: a JSON Schema, as a file's path or a table.
    ``fence``: JSON inside ``` counts. ``fields``: the comparator of each dotted path; ``default``: that of all others.
    ``null_is_missing``: a field that is null, or an empty object, is the same as none."""

    value: Literal["all", "f1", "valid"] = "all"
    schema: str | dict[str, Any] = ""
    fence: bool = True
    fields: dict[str, Way | Comparator] = field(default_factory=dict)
    default: Way | Comparator = "exact"
    null_is_missing: bool = False


class Json(base.Scorer):
    """1 for JSON with every field of the reference, each right, and none besides; or the share of them."""

    kind = "json"

    def __init__(self, settings: Settings, files: dict[str, bytes]):
        super().__init__(settings, files)
        self._settings = settings
        self._schema = _validator(files["schema"]) if "schema" in files else _validator(settings.schema)
        self._rules = rules(settings.fields, settings.default, settings.null_is_missing)
        self.binary = settings.value != "f1"
        self.compares = settings.value != "valid"
        self.measures = _measures(settings)

    def _score(self, sample: Sample, answer: Answer, against: Answer) -> Score:
        try:
            ours = read(answer.text, fenced=self._settings.fence)
        except Unreadable as error:
            return base.yes_or_no(False, unreadable=f"It {error}.")
        faults = faults_of(self._schema, ours.value)
        if not self.compares:
            return base.yes_or_no(not faults, **_about(ours, faults))
        try:
            found = self._rules.compare(ours.value, read(against.text, fenced=self._settings.fence).value)
        except Unreadable as error:
            return base.failed(f"It cannot be compared, since one of the two {error}.")
        value = found.f1 if self._settings.value == "f1" else float(found.all_right)
        return Score(0.0 if faults else value, differences(found) | _about(ours, faults))


def rules(fields: dict[str, Way | Comparator], default: Way | Comparator, null_is_missing: bool) -> Rules:
    """The settings of a scorer as `fields.Rules`. Raises BadTask."""
    named = {path: _comparator(how) for path, how in fields.items()}
    return Rules(named, _comparator(default), null_is_missing=null_is_missing)


def differences(found: Comparison) -> dict[str, Any]:
    """What is not the same, by name, for a score's detail."""
    said = {
        "fields": found.reference,
        "equal": found.equal,
        "wrong": {path: {"reference": theirs, "answer": ours} for path, theirs, ours in found.wrong},
        "missing": list(found.missing),
        "additional": list(found.additional),
    }
    return {name: value for name, value in said.items() if value or isinstance(value, int)}


def faults_of(schema: Any, value: Any) -> list[str]:
    """Where a document does not keep a schema, at most a few; none where there is no schema."""
    faults: list[str] = []
    try:
        for error in schema.iter_errors(value) if schema else ():
            where = ".".join(map(str, error.instance_path))
            faults.append(shown(f"{where}: {error.message}" if where else error.message))
            if len(faults) == base.MAX_LISTED:
                break
    except ValueError as error:  # a key that is no Unicode; too deep
        faults.append(shown(f"cannot be checked: {error}"))
    return faults


def _about(ours: Document, faults: list[str]) -> dict[str, Any]:
    said = {"schema": faults, "duplicates": list(ours.duplicates)}
    return {name: value for name, value in said.items() if value}


def _comparator(how: Way | Comparator) -> Comparator:
    return how if isinstance(how, Comparator) else Comparator(how)


def _validator(schema: bytes | dict[str, Any] | str) -> Any:
    """Something with ``iter_errors``, or None. It fetches nothing, and its patterns give up rather than hang."""
    if not schema and not isinstance(schema, bytes):
        return None
    import jsonschema_rs  # 6 MB that nobody loads who names no schema

    try:
        value = json.loads(schema) if isinstance(schema, bytes) else schema
        patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACKS)
        return jsonschema_rs.validator_for(value, pattern_options=patterns, offline=True, mask="it")
    except (ValueError, TypeError, RecursionError, jsonschema_rs.ReferencingError) as error:
        first = str(error).partition("\n")[0]
        raise BadTask(f"The scorer's schema is none: {shown(first)}.", hint="Mend it.") from None


def _measures(settings: Settings) -> str:
    valid = ", valid by the task's schema," if settings.schema else ""
    if settings.value == "valid":
        return f"The share of answers that are readable JSON{valid.rstrip(',')}."
    if settings.value == "all":
        return f"The share of answers that are JSON{valid} with every field of the reference right and none besides."
    return f"The mean F1 over the reference's fields, where an answer that is not JSON{valid} counts 0."
