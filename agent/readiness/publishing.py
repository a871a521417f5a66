"""The document as it is handed out: built once, written down once, recognised by its ETag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from shared.canonical import canonical_json, sha256_hex
from shared.readiness import ReadinessDocument, encode_evidence


@dataclass(frozen=True)
class Published:
    """`evidence` is what each probe read, by id: the bytes behind the document's `evidence_sha256`."""

    document: ReadinessDocument
    evidence: Mapping[str, bytes]

    @cached_property
    def body(self) -> bytes:
        return self.document.model_dump_json().encode()

    @cached_property
    def tag(self) -> str:
        """Of a weak ETag (RFC 9110, 8.8.1): two documents have the same where they say the same of the node. Times,
        ages and measured numbers alone are not another document, so who asks again and again is answered 304."""
        document = self.document
        said = [
            document.schema_version,
            document.node,
            document.platform,
            document.status,
            document.reason,
            document.ready_probe_sha256,
            [
                [check.id, check.status, check.reason, check.inconclusive]
                for check in document.checks
            ],
        ]
        return sha256_hex(canonical_json(said))[:32]

    @cached_property
    def etag(self) -> str:
        return f'W/"{self.tag}"'

    def verbose(self) -> ReadinessDocument:
        return self.document.model_copy(update={"evidence": encode_evidence(self.evidence)})
