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
    max_attempts: Annotated[int, Field(ge=1, le=14)] = 10
    """How often a request to S3 is made in all. The first retry is immediate, then the waits
    double from 0.05 s: ten attempts wait 13 s together, fourteen 205 s."""
    connect_timeout_s: PositiveFloat = 5.0
    """Seconds in which a connection must stand."""
    request_timeout_s: Annotated[float, Field(ge=1.0)] = 30.0
    """Seconds of silence after which a request to S3 is made again."""
    retry_limit_s: PositiveInt = 120
    """Seconds for which a request to Google Cloud Storage is retried; it counts no attempts."""
