"""Traces by OpenTelemetry, an extra: request -> job -> stages, though they are in different processes.

The context goes with the job: `facts["traceparent"]` of its row, in the form of W3C's trace context. Without
`ServeSettings.telemetry` nothing here does anything. Where traces are sent is said by OpenTelemetry's own variables
(`OTEL_EXPORTER_OTLP_ENDPOINT` ...).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wanimate.errors import InputError
from wanimate.events import Event, StageFinished, StageStarted

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span, Tracer

PARENT = "traceparent"
_tracer: Tracer | None = None


def set_up(process: str, processor: SpanProcessor | None = None) -> None:
    """Begin to trace in this process. `process`: what it is called in traces. `processor`: where spans go; by default they are
    sent by OTLP over HTTP.

    Raises:
        InputError: the extra is not installed.
    """
    global _tracer
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        if processor is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            processor = BatchSpanProcessor(OTLPSpanExporter())
    except ModuleNotFoundError as error:
        rule = f"the package {error.name} is not installed"
        raise InputError("serve.telemetry", True, rule, "Install wanimate[telemetry].") from error
    provider = TracerProvider(resource=Resource.create({"service.name": f"wanimate-{process}"}))
    provider.add_span_processor(processor)
    _tracer = provider.get_tracer("wanimate")


def stop() -> None:
    """Trace no more in this process."""
    global _tracer
    _tracer = None


@contextmanager
def span(name: str, parent: Mapping[str, Any] | None = None, **attributes: str | int | float) -> Iterator[Span | None]:
    """A span around the block; None where nothing is traced. `parent`: what `carried` returned, perhaps in another process."""
    if _tracer is None:
        yield None
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    known = {PARENT: str(parent[PARENT])} if parent and parent.get(PARENT) else None
    context = None if known is None else TraceContextTextMapPropagator().extract(known)
    with _tracer.start_as_current_span(name, context, attributes=attributes) as made:
        yield made


def carried() -> dict[str, str]:
    """The span at hand in a form that goes with a job; empty where nothing is traced."""
    if _tracer is None:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return {name: value for name, value in carrier.items() if name == PARENT}


class Stages:
    """Spans of the stages of a job, from its events, within the span at hand. To be closed at its end."""

    def __init__(self) -> None:
        self._open: Span | None = None

    def note(self, event: Event) -> None:
        if _tracer is None:
            return
        if isinstance(event, (StageStarted, StageFinished)):
            self.close()
        if isinstance(event, StageStarted):
            attributes = {} if event.segment is None else {"segment": event.segment}
            self._open = _tracer.start_span(f"stage {event.stage.value}", attributes=attributes)

    def close(self) -> None:
        if self._open is not None:
            self._open.end()
        self._open = None
