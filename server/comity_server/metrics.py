"""What the relay counts, in the text form that Prometheus reads.

Names are ``comity_<noun>_<unit>_total``. No label ever names a desk, a State, a device or an
envelope: whoever reads the metrics learns how busy the relay is, not who is busy with whom.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one relay process, in a registry of its own."""

    def __init__(self) -> None:
        """Start all counters at zero."""
        registry = self._registry = CollectorRegistry()
        self.requests: Final = Counter(
            "comity_http_requests", "Requests answered", ["method", "status"], registry=registry
        )
        self.problems: Final = Counter(
            "comity_http_problems", "Refusals by their stable code", ["code"], registry=registry
        )
        self.request_seconds: Final = Histogram(
            "comity_http_request_seconds",
            "Time from a request's header to its answer, long polls left out",
            buckets=_SECONDS,
            registry=registry,
        )
        self.accepted: Final = Counter(
            "comity_objects_accepted", "Objects durably accepted", ["kind"], registry=registry
        )
        self.accepted_bytes: Final = Counter(
            "comity_objects_accepted_bytes", "Bytes durably accepted", registry=registry
        )
        self.batch_rows: Final = Histogram(
            "comity_commit_batch_rows",
            "Envelopes and receipts in one commit",
            buckets=_ROWS,
            registry=registry,
        )
        self.commit_seconds: Final = Histogram(
            "comity_commit_seconds", "Time of one commit", buckets=_SECONDS, registry=registry
        )
        self.queue_entries: Final = Gauge(
            "comity_queue_entries", "Uploads that wait for the committer", registry=registry
        )
        self.sockets: Final = Gauge("comity_sockets_open", "Open WebSockets", registry=registry)
        self.sockets_closed: Final = Counter(
            "comity_sockets_closed", "WebSockets that the relay closed", ["code"], registry=registry
        )
        self.log_size: Final = Gauge("comity_log_leaves", "Leaves in the log", registry=registry)
        self.checkpoint_size: Final = Gauge(
            "comity_checkpoint_leaves", "Leaves under the witnessed checkpoint", registry=registry
        )
        self.checkpoint_at: Final = Gauge(
            "comity_checkpoint_published_timestamp_seconds",
            "When the newest witnessed checkpoint was published",
            registry=registry,
        )
        self.checkpoints: Final = Counter(
            "comity_checkpoints_published", "Witnessed checkpoints published", registry=registry
        )
        self.witness_answers: Final = Counter(
            "comity_witness_answers", "Answers of witnesses", ["outcome"], registry=registry
        )
        self.signer_refusals: Final = Counter(
            "comity_signer_refusals", "Heads that the signer would not sign", registry=registry
        )
        self.copies_erased: Final = Counter(
            "comity_copies_erased",
            "Copies of envelopes taken away by age or by a tombstone",
            ["by"],
            registry=registry,
        )
        self.scrub_due: Final = Gauge(
            "comity_scrub_due",
            "1 while what was erased may still be readable in the database's files",
            registry=registry,
        )
        self.parked: Final = Counter(
            "comity_rows_parked", "Pending rows that could not be integrated", registry=registry
        )

        self.vacancies: Final = Gauge(
            "comity_repair_vacancies",
            "Entries of a restored database for which nothing came back yet",
            registry=registry,
        )

    def text(self) -> bytes:
        """Give the page that Prometheus reads."""
        return generate_latest(self._registry)
