from __future__ import annotations

import re

import pytest
from deepsquare.workflow import from_dict

KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
S3 = {
    "region": "eu-central-1",
    "bucketUrl": "s3://bucket",
    "path": "/results",
    "accessKeyId": "id",
    "secretAccessKey": "hidden-value",
    "endpointUrl": "https://s3.example.org",
}
PEER = {"publicKey": KEY, "allowedIPs": ["0.0.0.0/0", "::/0"], "endpoint": "[2001:db8::1]:51820"}


def _network(**fields: object) -> dict:
    return {"run": {"network": "pasta"} | fields}


def _interface(**fields: object) -> dict:
    return _network(customNetworkInterfaces=[fields])


def _use(source: str) -> dict:
    return {"steps": [{"use": {"source": source}}]}


@pytest.mark.parametrize(
    "change",
    [
        {"input": {"http": {"url": "https://example.org/a?b=c#d"}}, "inputMode": 0},
        {"input": {}, "output": {"s3": S3}, "continuousOutputSync": True, "inputMode": 511},
        {"virtualNetworks": [{"name": "net", "gatewayAddress": "fd00::1/64"}]},
        _network(dns=["1.1.1.1", "2001:db8::53"], mapUid=0, mapGid=2**31 - 1),
        _interface(wireguard={"privateKey": KEY}),
        _interface(wireguard={"privateKey": KEY, "address": ["10.0.0.2/24"], "peers": [PEER | {"preSharedKey": KEY}]}),
        _interface(bore={"boreAddress": "bore.example.org:2200", "targetPort": 80}),
        _interface(bore={"address": "10.0.0.1", "port": 1, "targetPort": 65535, "secret": "s"}),
        {"run": {"mpi": "pmix_v4", "network": "host"}},
        _use("github.com/example/modules"),
        _use("git.example.org:8443/a/b/c/d@v1.2+x/y"),
        {"steps": [{"use": {"source": "a.b/c/d@0123abc", "args": [{"key": "A", "value": ""}], "exportEnvAs": "X_1"}}]},
    ],
)
def test_what_is_allowed(change: dict, job) -> None:
    plain = job(**change)
    assert from_dict(plain).to_dict() == plain


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"input": {"http": {"url": "ftp://example.org"}}}, "input.http.url", "https://"),
        ({"input": {"http": {"url": "https://exa mple.org"}}}, "input.http.url", "%20"),
        ({"input": {"http": {"url": "https://"}}}, "input.http.url", "https://"),
        ({"input": {"http": {"url": "https://a/"}, "s3": S3}}, "input", "choose one"),
        ({"output": {"s3": S3 | {"bucketUrl": "s3://bucket/"}}}, "output.s3.bucketUrl", "without / at the end"),
        ({"output": {"s3": S3 | {"bucketUrl": "https://bucket"}}}, "output.s3.bucketUrl", "s3://NAME"),
        ({"output": {"s3": S3 | {"bucketUrl": "s3://b/c"}}}, "output.s3.bucketUrl", "belongs in path"),
        ({"output": {"s3": S3 | {"bucketUrl": "s3://b"}}}, "output.s3.bucketUrl", "2 to 255 characters"),
        ({"output": {"s3": S3 | {"bucketUrl": "s3://-b"}}}, "output.s3.bucketUrl", "begin with a letter"),
        ({"output": {"s3": S3 | {"bucketUrl": "s3://b c"}}}, "output.s3.bucketUrl", "may have letters"),
        ({"output": {"s3": S3 | {"path": "results"}}}, "output.s3.path", "begins with /"),
        ({"output": {"s3": S3 | {"endpointUrl": "s3.example.org"}}}, "output.s3.endpointUrl", "https://"),
        ({"inputMode": 512}, "inputMode", "is 512, but must be less than 512"),
        ({"inputMode": -1}, "inputMode", "greater than or equal to 0"),
        (
            {"virtualNetworks": [{"name": "n", "gatewayAddress": "10.0.0.1"}]},
            "virtualNetworks[0].gatewayAddress",
            "prefix",
        ),
        (
            {"virtualNetworks": [{"name": "n", "gatewayAddress": "10.0.0.1/8"}] * 2},
            "virtualNetworks[1].name",
            "an earlier one",
        ),
        (
            {"virtualNetworks": [{"name": "n", "gatewayAddress": "10.0.0.1/255.255.255.0"}]},
            "virtualNetworks[0].gatewayAddress",
            "such as 10.0.0.2/24",
        ),
        (_network(network="slirp"), "steps[0].run.network", "did you mean slirp4netns?"),
        (_network(dns=["dns.example"]), "steps[0].run.dns[0]", "'dns.example' is not an IP address"),
        (_network(dns=["fe80::1%x\n"]), "steps[0].run.dns[0]", "is not an IP address"),
        (_network(dns=["1.1.1.1\n"]), "steps[0].run.dns[0]", "is not an IP address"),
        ({"steps": [{"if": " \n"}]}, "steps[0].if", "is blank: write a test of bash"),
        (_network(mapUid=-1), "steps[0].run.mapUid", "greater than or equal to 0"),
        (_interface(), "steps[0].run.customNetworkInterfaces[0]", "one of wireguard, bore and vnet"),
        (
            _interface(vnet={"name": "n", "address": "10.0.0.2/8"}),
            "steps[0].run.customNetworkInterfaces[0].vnet.name",
            "'n' is none of the job's virtualNetworks: it has none",
        ),
        (
            _interface(wireguard={"privateKey": "hidden-value"}),
            "steps[0].run.customNetworkInterfaces[0].wireguard.privateKey",
            "wg genkey",
        ),
        (
            _interface(wireguard={"privateKey": KEY, "peers": [PEER | {"publicKey": f"{KEY}\nPostUp = touch x"}]}),
            "steps[0].run.customNetworkInterfaces[0].wireguard.peers[0].publicKey",
            "wg pubkey",
        ),
        (
            _interface(wireguard={"privateKey": KEY, "peers": [PEER | {"endpoint": "vpn.example"}]}),
            "steps[0].run.customNetworkInterfaces[0].wireguard.peers[0].endpoint",
            "HOST:PORT",
        ),
        (
            _interface(wireguard={"privateKey": KEY, "peers": [PEER | {"allowedIPs": ["10.0.0.0/8\nPostUp = x"]}]}),
            "steps[0].run.customNetworkInterfaces[0].wireguard.peers[0].allowedIPs[0]",
            "prefix",
        ),
        (_interface(bore={"targetPort": 80}), "steps[0].run.customNetworkInterfaces[0].bore", "needs boreAddress"),
        (
            _interface(bore={"targetPort": 80, "boreAddress": "a:1", "port": 2}),
            "steps[0].run.customNetworkInterfaces[0].bore",
            "leave out port",
        ),
        (
            _interface(bore={"targetPort": 0, "boreAddress": "a:1"}),
            "steps[0].run.customNetworkInterfaces[0].bore.targetPort",
            "greater than or equal to 1",
        ),
        ({"run": {"mpi": "openmpi"}}, "steps[0].run.mpi", "'pmix_v4'"),
        ({"run": {"shell": "bash"}}, "steps[0].run.shell", "did you mean /bin/bash?"),
        ({"run": {"shell": "ENTRYPOINT"}}, "steps[0].run.shell", "a container's"),
        (_use("https://github.com/a/b"), "steps[0].use.source", "HOST/OWNER/REPOSITORY"),
        (_use("github.com/a"), "steps[0].use.source", "HOST/OWNER/REPOSITORY"),
        (_use("github.com/a/b@-v1"), "steps[0].use.source", "HOST/OWNER/REPOSITORY"),
        (_use("github.com/a/b/../../c@v1"), "steps[0].use.source", "HOST/OWNER/REPOSITORY"),
        (_use("me:secret@github.com/a/b"), "steps[0].use.source", "HOST/OWNER/REPOSITORY"),
    ],
)
def test_what_is_not_allowed_is_named_with_its_place(change: dict, path: str, words: str, job, problems_of) -> None:
    (problem,) = problems_of(job(**change))
    assert problem.path == path
    assert words in problem.message
    assert "hidden-value" not in problem.message


@pytest.mark.parametrize(
    ("gateway", "address", "words"),
    [
        ("10.1.2.1/24", "10.1.2.1/24", "is that of the virtual network's gateway"),
        ("10.1.2.1/24", "10.1.3.2/16", "is not in the virtual network, 10.1.2.0/24"),
        ("10.1.2.1/24", "fd00::2/64", "is not in the virtual network"),
        ("fd00::1/64", "fd00:0::1/64", "gateway"),
        ("fd00::1/64", "fd00::2/64", ""),
        ("10.1.2.1/24", "10.1.2.254/24", ""),
    ],
)
def test_an_address_is_one_of_its_virtual_network(gateway: str, address: str, words: str, job, problems_of) -> None:
    plain = job(
        **_interface(vnet={"name": "n", "address": address}),
        virtualNetworks=[{"name": "n", "gatewayAddress": gateway}],
    )
    if not words:
        from_dict(plain)
        return
    (problem,) = problems_of(plain)
    assert problem.path == "steps[0].run.customNetworkInterfaces[0].vnet.address"
    assert words in problem.message


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"image": "docker://b"}, "image", "scheme"),
        ({"image": "a/../../b", "deepsquareHosted": True}, "image", ".."),
        ({"image": "/../b"}, "image", ".."),
        ({"image": "Upper/Case"}, "image", "apptainer: true"),
        ({"image": "a", "username": "o ne", "password": "p"}, "username", "apptainer: true"),
        ({"image": "a", "username": "u", "password": "$(hidden-value)"}, "password", "apptainer: true"),
        ({"image": "a", "username": "u", "password": "hidden-value\n"}, "password", "apptainer: true"),
        ({"image": "a", "registry": "https://ghcr.io"}, "registry", "HOST:PORT"),
        (
            {"image": "a", "mounts": [{"hostDir": "/a", "containerDir": "b", "options": "ro"}]},
            "mounts[0].containerDir",
            "/",
        ),
        (
            {"image": "a", "mounts": [{"hostDir": "/a", "containerDir": "/b", "options": "rx"}]},
            "mounts[0].options",
            "'ro'",
        ),
    ],
)
def test_what_a_container_can_not_be(change: dict, path: str, words: str, job, problems_of) -> None:
    (problem,) = problems_of(job(run={"container": change}))
    assert problem.path == f"steps[0].run.container.{path}"
    assert words in problem.message
    assert "hidden-value" not in problem.message


def test_the_words_of_an_entry_point_are_those_of_a_shell(job, problems_of) -> None:
    run = {"command": "'", "shell": "ENTRYPOINT", "container": {"image": "a"}}
    (problem,) = problems_of(job(run=run))
    assert (problem.path, "split" in problem.message) == ("steps[0].run.command", True)


def test_a_step_is_either_a_command_or_steps(job, problems_of) -> None:
    (problem,) = problems_of(job(steps=[{}, {"run": {"command": "a"}, "steps": [{"run": {"command": "b"}}]}]))
    assert problem.path == "steps[1]"
    assert problem.message == "a step has one of run and steps; make a step of each"


def test_a_step_may_be_nothing(job) -> None:
    assert from_dict(job(steps=[{}, {"name": "later"}, {"steps": []}])).runs() == []


def test_a_job_has_steps(job, problems_of) -> None:
    (problem,) = problems_of(job(steps=[]))
    assert (problem.path, problem.message) == ("steps", "must not be empty")


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/ash", "/bin/sh", "ENTRYPOINT"])
def test_shells(shell: str, job) -> None:
    from_dict(job(run={"shell": shell, "container": {"image": "image"}}))


@pytest.mark.parametrize("shell", ["bash", "/bin/zsh", "", "/bin/bash -x", "entrypoint", 1])
def test_what_is_no_shell_is_told_with_those_that_are(shell: object, job, problems_of) -> None:
    (problem,) = problems_of(job(run={"shell": shell}))
    assert problem.path == "steps[0].run.shell"
    assert all(name in problem.message for name in ("/bin/bash", "/bin/ash", "/bin/sh", "ENTRYPOINT"))


@pytest.mark.parametrize("path", ["data", "./data", "", "~", "$STORAGE_PATH/data"])
def test_a_working_directory_is_absolute(path: str, job, problems_of) -> None:
    (problem,) = problems_of(job(run={"workDir": path}))
    assert (problem.path, problem.tag) == ("steps[0].run.workDir", "path")


@pytest.mark.parametrize("value", [1, "yes", "true", None])
def test_logging_is_on_off_or_left_out(value: object, job, problems_of) -> None:
    assert from_dict(job(enableLogging=False)).enable_logging is False
    if value is None:
        assert from_dict(job(enableLogging=value)).enable_logging is None
    else:
        assert [problem.message for problem in problems_of(job(enableLogging=value))] == [
            f"must be true or false, not {'a number' if value == 1 else 'text'}"
        ]


def _in_container(**fields: object) -> dict:
    return {"run": {"container": {"image": "image"} | fields}}


TEXTS = {
    "steps[0].name": lambda text: {"steps": [{"name": text}]},
    "steps[0].run.command": lambda text: {"run": {"command": text}},
    "steps[0].run.workDir": lambda text: {"run": {"workDir": f"/{text}"}},
    "env[0].value": lambda text: {"env": [{"key": "A", "value": text}]},
    "steps[0].run.container.image": lambda text: _in_container(image=text),
    "steps[0].run.container.username": lambda text: _in_container(username=text),
    "steps[0].run.container.password": lambda text: _in_container(password=text),
    "input.http.url": lambda text: {"input": {"http": {"url": f"https://a/{text}"}}},
    "output.s3.secretAccessKey": lambda text: {"output": {"s3": S3 | {"secretAccessKey": text}}},
    "steps[0].run.container.mounts[0].hostDir": lambda text: _in_container(
        mounts=[{"hostDir": f"/{text}", "containerDir": "/a", "options": "ro"}]
    ),
}


@pytest.mark.parametrize("path", TEXTS)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("a\0b", "NUL", id="NUL"),
        pytest.param("a\ud800b", "surrogate|unicode", id="surrogate"),
        pytest.param("é" * (1 << 19) + "x", "longer than 1 MiB", id="long"),
    ],
)
def test_text_that_no_program_can_be_given_is_refused_everywhere(
    path: str, text: str, words: str, job, problems_of
) -> None:
    (problem,) = problems_of(job(**TEXTS[path](text)))
    assert problem.path == path
    assert re.search(words, problem.message)


def test_an_image_has_a_name(job, problems_of) -> None:
    (problem,) = problems_of(job(**_in_container(image="")))
    assert (problem.path, problem.message) == ("steps[0].run.container.image", "must not be empty")


@pytest.mark.parametrize(
    "change",
    [
        {"env": None, "input": None, "continuousOutputSync": None, "virtualNetworks": None},
        {"run": {"env": None, "dns": None, "resources": None, "container": None, "network": None}},
        {"steps": [{"run": {"command": "true"}, "dependsOn": None, "steps": None, "catch": None, "finally": None}]},
    ],
)
def test_null_is_as_good_as_left_out(change: dict, job) -> None:
    assert from_dict(job(**change)) == from_dict(job())


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"resources": {"gpusPerTask": 1}}, "resources.gpusPerTask", "it is an old name: write gpus"),
        ({"run": {"image": "alpine"}}, "steps[0].run.image", "it belongs in container"),
        ({"steps": [{"network": "host"}]}, "steps[0].network", "it belongs in run"),
    ],
)
def test_what_stands_in_a_wrong_place_is_shown_the_right_one(
    change: dict, path: str, words: str, job, problems_of
) -> None:
    (problem,) = problems_of(job(**change))
    assert problem.path == path
    assert words in problem.message
