"""Writes docs/readiness.schema.json from the model: `python -m scripts.schema`. A test compares the two."""

from __future__ import annotations

import json
from pathlib import Path

from shared.readiness import document_schema

PAGE = Path(__file__).resolve().parent.parent / "docs" / "readiness.schema.json"


def page() -> str:
    return json.dumps(document_schema(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
