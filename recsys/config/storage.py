"""How object stores are reached."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from recsys.config.section import Section


class StorageConfig(Section):
    """How `s3://` and `gs://` are reached. Credentials are never settings: they come from the
    environment (AWS_ACCESS_KEY_ID and the like), the user's profile or the machine's role."""

    endpoint: Annotated[str, Field(pattern="^https?://[^/@?]+$")] | None = None
    """An S3 service other than AWS, such as `http://minio:9000`; None asks AWS_ENDPOINT_URL."""
    region: str | None = None
    """Region of the S3 buckets; None asks the bucket, or, behind an endpoint, AWS_REGION."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 30
    """How often a request to S3 is made in all, rounded up to fives above five. Five are made
    within 0.35 s; then the whole operation is done again after a random wait of up to 1 s, then
    2, 4, 8, 16 and 20 s: thirty attempts wait 33 s together at most, a hundred 318 s."""
    connect_timeout_s: PositiveFloat = 5.0
    """Seconds in which a connection must stand."""
    request_timeout_s: Annotated[float, Field(ge=1.0)] = 30.0
    """Seconds of silence after which a request to S3 is made again."""
    retry_limit_s: PositiveInt = 120
    """Seconds for which a request to Google Cloud Storage is retried; it counts no attempts."""
