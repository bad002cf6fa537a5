"""Prints three documents, as the modules behind the demo collections print thousands."""

from __future__ import annotations

import json
import sys

from searchapp.ingest.extract.records import ExtractedDocument, as_json

for name in ("os.path.join", "json.dumps", "re.sub"):
    text = f"{name}(…)\n\nWhat {name} does in a sentence or two."
    document = ExtractedDocument(path=name, title=name, text=text, metadata={"kind": "function"})
    sys.stdout.write(json.dumps(as_json(document)) + "\n")
