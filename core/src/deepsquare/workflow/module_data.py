"""What the template of a module sees of a job and of a step: the names that Go's structures of the language have."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from deepsquare.workflow.fields import Model
from deepsquare.workflow.templates import Record

# The others begin with a capital letter, and are else as in files.
_NAMES = {
    "cpusPerTask": "CPUsPerTask",
    "memPerCpu": "MemPerCPU",
    "gpus": "GPUs",
    "gpusPerTask": "GPUsPerTask",
    "url": "URL",
    "bucketUrl": "BucketURL",
    "endpointUrl": "EndpointURL",
    "accessKeyId": "AccessKeyID",
    "http": "HTTP",
    "dns": "DNS",
    "mapUid": "MapUID",
    "mapGid": "MapGID",
    "disableCpuBinding": "DisableCPUBinding",
}
_KINDS = {"Workflow": "Job"}


def template_data(value: Any, *, with_secrets: bool) -> Any:
    """A value of the language for templates; secrets are empty unless they are wanted."""
    if isinstance(value, Model):
        model = type(value)
        fields: dict[str, Any] = {}
        names: dict[str, str] = {}
        for name, information in model.model_fields.items():
            file_name = information.alias or name
            field = _NAMES.get(file_name) or file_name[0].upper() + file_name[1:]
            item = getattr(value, name)
            if name in value.model_fields_set:
                names[field] = file_name
            elif isinstance(item, Model):
                # In Go, what was left out is nil.
                item = None
            fields[field] = template_data(item, with_secrets=with_secrets)
        return Record(_KINDS.get(model.__name__, model.__name__), fields, names)
    if isinstance(value, tuple):
        return [template_data(item, with_secrets=with_secrets) for item in value]
    if isinstance(value, SecretStr):
        return value.get_secret_value() if with_secrets else ""
    return value
