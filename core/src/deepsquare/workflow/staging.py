"""The language's data: what a job fetches before its steps, and sends away after them."""

from __future__ import annotations

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from deepsquare.workflow.fields import AbsolutePath, BucketUrl, Model, Secret, Text, WebUrl


class HttpData(Model):
    """A file of the web."""

    # It may have a token in it.
    url: WebUrl = Field(repr=False, description="http://... or https://...")


class S3Data(Model):
    """A folder of an S3 bucket."""

    region: Text = Field(description="Such as us-east-2.")
    bucket_url: BucketUrl = Field(description="s3://NAME, without / at the end.")
    path: AbsolutePath = Field(description="A folder or the beginning of names in the bucket; / is all.")
    access_key_id: Secret = Field(description="The key's id.")
    secret_access_key: Secret = Field(description="The key.")
    endpoint_url: WebUrl = Field(
        repr=False, description="Where the store is, such as https://s3.us-east-2.amazonaws.com."
    )
    delete_sync: bool | None = Field(
        default=None, description="Remove from the bucket's folder what the job's output has not."
    )


class TransportData(Model):
    """Where data comes from, or goes to."""

    http: HttpData | None = Field(default=None, description="The web: a download, unpacked if packed; or an upload.")
    s3: S3Data | None = Field(default=None, description="An S3 bucket.")

    @model_validator(mode="after")
    def _one_way(self) -> TransportData:
        if self.http is not None and self.s3 is not None:
            raise PydanticCustomError("kind", "has http and s3; choose one")
        return self
