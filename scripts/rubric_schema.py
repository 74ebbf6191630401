"""Writes the JSON Schema of rubric files to docs/rubric.schema.json, or checks that the file is what it would write.

    python scripts/rubric_schema.py
    python scripts/rubric_schema.py --check     # writes nothing; exits with 1 if the file differs

Editors complete and check a rubric by it where the rubric names it in its first line:

    # yaml-language-server: $schema=PATH/TO/docs/rubric.schema.json

It knows keys and types. What it cannot know, such as that names differ, `Rubric.from_yaml` checks.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from langchain_rain.rubrics.rubric import RubricFile

PATH = Path(__file__).resolve().parent.parent / "docs" / "rubric.schema.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"  # what pydantic writes
DEFAULT_KIND = "question"


def rubric_schema() -> dict[str, Any]:
    """The schema of what `Rubric.from_yaml` reads."""
    schema = RubricFile.model_json_schema()
    for definition in schema["$defs"].values():
        kind = definition["properties"].get("kind")
        # Python fills in the kind of a class; a file that names none has a question.
        if kind is not None and kind["const"] != DEFAULT_KIND:
            definition["required"] = sorted({*definition["required"], "kind"})
    return {**schema, "$schema": DIALECT, "title": "Rubric of langchain-rain"}


def schema_text() -> str:
    """The text of the file."""
    return json.dumps(rubric_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def is_current(path: Path) -> bool:
    """Whether the file is there and says what would be written."""
    return path.exists() and path.read_text(encoding="utf-8") == schema_text()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the file differs")
    parser.add_argument("--path", type=Path, default=PATH, help="of the file")
    args = parser.parse_args(arguments)
    if not args.check:
        args.path.write_text(schema_text(), encoding="utf-8")
        return 0
    if is_current(args.path):
        return 0
    print(f"{args.path} is not what rubrics are now; run: python scripts/rubric_schema.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
