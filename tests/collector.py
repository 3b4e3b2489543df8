"""A collector of traces on loopback, which reads OTLP with somebody else's decoder."""

from __future__ import annotations

import base64
import json

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from upstream import Upstream

TAKEN = {"body": b"{}"}


class Collector(Upstream):
    """Takes what comes; ``orders`` are as an upstream's. Where none is left it answers as a collector does."""

    async def _answer(self, line, body, writer):
        order = self.orders.popleft() if self.orders else {}
        self.orders.appendleft(TAKEN | order)
        return await super()._answer(line, body, writer)

    @property
    def requests(self) -> list[ExportTraceServiceRequest]:
        return [decoded(got["body"]) for got in list(self.got)]

    @property
    def spans(self) -> list[Span]:
        return [span for request in self.requests for span in spans_of(request)]


def decoded(body: bytes) -> ExportTraceServiceRequest:
    """An OTLP request in JSON. Of protobuf's own JSON it differs in that ids are in hex, which is put right here; a
    field that the protocol does not have is an error."""
    document = json.loads(body)
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in ("traceId", "spanId", "parentSpanId"):
                    if name in span:
                        span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return json_format.ParseDict(document, ExportTraceServiceRequest())


def spans_of(request: ExportTraceServiceRequest) -> list[Span]:
    return [span for found in request.resource_spans for scope in found.scope_spans for span in scope.spans]


def attributes(thing) -> dict:
    """The attributes of a span or a resource, as values of Python's."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in thing.attributes}
