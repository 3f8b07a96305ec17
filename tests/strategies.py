"""Any valid workflow, with any of the language's fields, as plain data."""

from __future__ import annotations

import shlex
from typing import Any

from hypothesis import strategies as st

KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="

# No program can be given a NUL.
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30) | st.lists(
    st.sampled_from(
        [
            "'",
            '"',
            "\n",
            "$(",
            ")",
            "`",
            "END_OF_FILE_0\n",
            "END_OF_FILE_1",
            "\\",
            "#",
            "<<'EOF'\n",
            "((",
            "{",
            "__NAME__",
        ]
    ),
    max_size=8,
).map("".join)
name = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
env_key = st.from_regex(r"K_[A-Za-z0-9_]{0,8}", fullmatch=True)
env = st.lists(st.fixed_dictionaries({"key": env_key, "value": text}), max_size=3)
path = text.map("/{}".format)
port = st.integers(1, 65535)
cidr = st.sampled_from(["10.0.0.2/24", "fd00::2/64", "0.0.0.0/0"])
url = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), max_size=20).map("https://example.org/{}".format)
small = st.integers(0, 2**31 - 1)


def table(optional: dict[str, st.SearchStrategy[Any]], **needed: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(needed, optional=optional)


_peer = table(
    {
        "preSharedKey": st.just(KEY),
        "allowedIPs": st.lists(cidr, max_size=2),
        "endpoint": st.sampled_from(["vpn.example:51820", "[2001:db8::1]:1"]),
        "persistentKeepalive": st.integers(0, 65535),
    },
    publicKey=st.just(KEY),
)
_interface = (
    table({"address": st.lists(cidr, max_size=2), "peers": st.lists(_peer, max_size=2)}, privateKey=st.just(KEY)).map(
        lambda wireguard: {"wireguard": wireguard}
    )
    | table({"secret": text}, targetPort=port, boreAddress=st.just("bore.example:2200")).map(
        lambda bore: {"bore": bore}
    )
    | st.sampled_from([("net", "10.0.0.2/24"), ("net6", "fd00::2/64")]).map(
        lambda vnet: {"vnet": {"name": vnet[0], "address": vnet[1]}}
    )
)
_container = table(
    {
        "registry": st.sampled_from(["ghcr.io", "registry.example:5000"]),
        "username": text,
        "password": text,
        "x11": st.booleans(),
        "mountHome": st.booleans(),
        "readOnlyRootFS": st.booleans(),
        "mounts": st.lists(
            table({}, hostDir=path, containerDir=path, options=st.sampled_from(["", "ro", "rw"])), max_size=2
        ),
    },
    image=text.map("i{}".format).filter(lambda image: "://" not in image),
    apptainer=st.just(True),
) | table(
    {"username": name, "password": name, "mountHome": st.booleans(), "readOnlyRootFS": st.booleans()},
    image=st.sampled_from(["library/alpine:3.20", "busybox"])
    | text.map("/i{}".format).filter(lambda it: "/.." not in it),
)
_run = table(
    {
        "shell": st.sampled_from(["/bin/bash", "/bin/ash", "/bin/sh"]),
        "workDir": path,
        "env": env,
        "disableCpuBinding": st.booleans(),
        "resources": table({"tasks": st.just(1), "gpusPerTask": st.just(0)}),
        "mpi": st.sampled_from(["none", "pmix_v4", "pmi2"]),
        "network": st.sampled_from(["host", "slirp4netns", "pasta"]),
        "dns": st.lists(st.sampled_from(["1.1.1.1", "2001:db8::53"]), max_size=2),
        "customNetworkInterfaces": st.lists(_interface, max_size=3),
        "mapUid": small,
        "mapGid": small,
        "container": _container,
    },
    command=text,
) | table(
    {"env": env},
    command=st.lists(text, max_size=3).map(shlex.join),
    shell=st.just("ENTRYPOINT"),
    container=_container,
)
_around = {"name": text, "if": text.filter(str.strip)}


def _lists(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    steps = st.lists(inner, max_size=3)
    guarded = _around | {"catch": steps, "finally": steps}
    source = table({}, items=st.lists(text, max_size=3)) | table(
        {}, range=table({"increment": st.sampled_from([-2, 1, 3])}, begin=st.integers(-9, 9), end=st.integers(-9, 9))
    )
    loop = st.tuples(source, st.booleans(), steps).map(lambda it: it[0] | {"parallel": it[1], "steps": it[2]})
    launch = table(
        {
            "handleName": st.uuids().map(lambda it: it.hex),
            "signalOnParentStepExit": st.sampled_from([0, 1, 2, 3, 9, 15]),
        },
        steps=steps,
    )
    return (
        table(guarded, steps=st.lists(inner, min_size=1, max_size=3))
        | table(guarded, **{"for": loop})
        | table(guarded, launch=launch)
        | table(guarded, run=_run)
    )


_step = st.recursive(table(_around | {"run": _run}), _lists, max_leaves=6)
_s3 = table(
    {"deleteSync": st.booleans()},
    region=text,
    bucketUrl=st.sampled_from(["s3://bucket", "s3://other.bucket-1"]),
    path=path,
    accessKeyId=text,
    secretAccessKey=text,
    endpointUrl=url,
)
_data = table({"s3": _s3}) | table({"http": table({}, url=url)})
_number = st.integers(1, 2**31 - 1)

workflows = table(
    {
        "env": env,
        "enableLogging": st.booleans(),
        "input": _data,
        "inputMode": st.integers(0, 511),
        "output": _data,
        "continuousOutputSync": st.booleans(),
    },
    resources=table({}, tasks=_number, cpusPerTask=_number, memPerCpu=_number, gpus=small),
    steps=st.lists(_step, min_size=1, max_size=3),
    virtualNetworks=st.just(
        [{"name": "net", "gatewayAddress": "10.0.0.1/24"}, {"name": "net6", "gatewayAddress": "fd00::1/64"}]
    ),
)
"""Plain data of workflows that are valid, without modules."""
