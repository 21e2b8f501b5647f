"""Metrics of sessions in a Prometheus registry; needs ``pip install 'trtinfer[prometheus]'``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.registry import Collector

from trtinfer.metric_families import Families
from trtinfer.session import Session


class SessionCollector(Collector):
    """Counters, latencies and batch sizes of sessions, read when they are asked for.

    ``prometheus_client.REGISTRY.register(SessionCollector({"resnet": session}))`` adds them to what
    a program exposes already. The names are those of `trtinfer serve`; ``trtinfer_requests_total``
    has one series for each outcome, refusals included.
    """

    def __init__(self, sessions: Mapping[str, Session]) -> None:
        """Make a collector: one for all sessions of a registry, which takes a name only once.

        Args:
            sessions: By the value of their label ``model``. Sessions may be added and removed
                later on.
        """
        self._sessions = sessions

    def collect(self) -> Iterator[Metric]:
        """Yield what each session has counted."""
        families = Families()
        for model, session in list(self._sessions.items()):
            families.add_session({"model": model}, session.stats())
        for family in families.all():
            metric = Metric(family.name.removesuffix("_total"), family.help, family.kind)
            for suffix, labels, value in family.samples:
                metric.add_sample(family.name + suffix, dict(labels), value)
            yield metric
