"""JSON Schemas of a row's record, a model's card and a model folder, made from the types that check these files.

example:
  python -m tools.schemas
"""

from __future__ import annotations

import argparse
import ast
import copy
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.rows import schema as rows
from zoo.cards import Card
from zoo.files.atomic import write_text
from zoo.models import ModelConfig

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "schema"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

# Key of a record -> the type of its section, which says more than the record's own type does.
SECTIONS: dict[str, Any] = {
    "config": rows.ConfigSection,
    "dataset": rows.DatasetSection,
    "backbone": rows.BackboneSection,
    "head": rows.PartSection,
    "seconds": rows.SecondsSection,
    "environment": rows.EnvironmentSection,
    "training": list[rows.TrainingSection],
}
SPLIT: dict[str, Any] = {"metrics": rows.Metrics, "confusion": rows.Confusion}
ADDED = ("fitted", "diagnosis")  # keys that older records lack


def schema_of(kind: Any, title: str, extra: tuple[Any, ...] = ()) -> dict[str, Any]:
    """The JSON Schema of a type, with the documentation of its keys.

    Args:
        kind: TypedDict or dataclass.
        title: of the file.
        extra: further types whose definitions are needed.
    """
    (main, *_), definitions = msgspec.json.schema_components([kind, *extra], ref_template="#/$defs/{name}")
    for name, documented in _documented([kind, *extra]).items():
        for key, words in documented.items():
            if key in definitions.get(name, {}).get("properties", {}):
                definitions[name]["properties"][key]["description"] = words
    return {"$schema": DIALECT, "title": title, **main, "$defs": dict(sorted(definitions.items()))}


def record_schema() -> dict[str, Any]:
    """The schema of `result.json`, its sections included."""
    kinds = (*SECTIONS.values(), *SPLIT.values())
    found = schema_of(rows.Result, "result.json: the record of a row", kinds)
    (parts, _) = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    definitions = found["$defs"]
    for (key, _), part in zip([*SECTIONS.items(), *SPLIT.items()], parts, strict=True):
        owner = definitions["Split" if key in SPLIT else "Result"]
        described = {name: text for name, text in owner["properties"][key].items() if name == "description"}
        owner["properties"][key] = copy.deepcopy(part) | described
    result = definitions["Result"]
    of_members = {"$ref": "#/$defs/PartSection", "required": ["of"]}  # in an ensemble or a reference row
    backbone = result["properties"]["backbone"]
    result["properties"]["backbone"] = {"anyOf": [{"$ref": backbone.pop("$ref")}, of_members], **backbone}
    result["required"] = [key for key in result["required"] if key not in ADDED]
    result["properties"]["schema"]["const"] = rows.SCHEMA
    return found


def _documented(kinds: list[Any]) -> dict[str, dict[str, str]]:
    """Class -> key -> the text below the key, in the modules of some types."""
    found: dict[str, dict[str, str]] = {}
    for module in {inspect.getmodule(kind) for kind in kinds if inspect.isclass(kind)}:
        assert module is not None
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if not isinstance(node, ast.ClassDef):
                continue
            for field, below in zip(node.body, node.body[1:], strict=False):
                text = getattr(getattr(below, "value", None), "value", None) if isinstance(below, ast.Expr) else None
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, str):
                    found.setdefault(node.name, {})[field.target.id] = " ".join(text.split())
    return found


def schemas() -> dict[str, dict[str, Any]]:
    """Name of the file -> schema."""
    from benchmarks.evaluation import diagnosis

    record = record_schema()
    for name, documented in _documented([diagnosis.Calibration]).items():
        for key, words in documented.items():
            record["$defs"][name]["properties"][key]["description"] = words
    return {
        "record.schema.json": record,
        "card.schema.json": schema_of(Card, "card.json: the card of a model"),
        "model.schema.json": schema_of(ModelConfig, "config.json of a model folder"),
    }


def text_of(schema: dict[str, Any]) -> str:
    """A schema as its file has it."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the files."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for name, schema in schemas().items():
        write_text(FOLDER / name, text_of(schema))
        print(FOLDER / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
