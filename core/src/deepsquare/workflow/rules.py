"""Rules that span more than one field."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import PurePosixPath

from deepsquare.workflow.models import Resources, Workflow
from deepsquare.workflow.problems import Location
from deepsquare.workflow.run import Container, EnvVar, Run

# What Enroot takes (its `docker://[USER@][REGISTRY#]IMAGE[:TAG]`).
_ENROOT_IMAGE = re.compile(r"[a-z0-9._/-]+(:[A-Za-z0-9._-]+)?")
# Linux gives arguments and variables a quarter of the stack's limit, usually 2 MiB; the rest is for those that others set.
_ENVIRONMENT_BYTES = 3 << 19
_ENROOT_USER = re.compile(r"[A-Za-z0-9_.!~'()%;:&=+$,-]+")


def broken_rules(workflow: Workflow) -> Iterator[tuple[Location, str, str]]:
    """What is wrong with a workflow whose fields are valid one by one, the first hundred: the place, why, and the rule's name."""
    return itertools.islice(_all_broken_rules(workflow), 100)


def _all_broken_rules(workflow: Workflow) -> Iterator[tuple[Location, str, str]]:
    yield from ((place, text, "resources") for place, text in _excesses(workflow))
    yield from ((place, text, "handle") for place, text in _wrong_handles(workflow))
    yield from ((place, text, "network") for place, text in _wrong_networks(workflow))
    yield from ((place, text, "size") for place, text in _large_environments(workflow))
    for place, run in workflow.located_runs():
        if run.container is not None:
            yield from (((*place, *inner), text, "container") for inner, text in _wrong_image(run, run.container))
        elif run.shell == "ENTRYPOINT":
            yield (*place, "shell"), "ENTRYPOINT is a container's, and this step has none", "container"


def _wrong_handles(workflow: Workflow) -> Iterator[tuple[Location, str]]:
    """The handles that are launched twice, or waited for and launched by no earlier step of the same list."""
    for place, steps in workflow.located_lists():
        # By their names in small letters.
        known: dict[str, str] = {}
        titles = {step.name for step in steps}
        for number, step in enumerate(steps):
            for index, name in enumerate(step.depends_on):
                if name.lower() not in known:
                    allowed = f"launched before are {_some(known.values())}" if known else "none is launched before"
                    text = f"{name} is no handle that an earlier step of the same list launches: {allowed}"
                    if name in titles:
                        text += (
                            ". It is a step's name: steps run in order anyway, and only what launch starts has a handle"
                        )
                    yield (*place, number, "dependsOn", index), text
            if step.launch is not None and step.launch.handle_name is not None:
                name = step.launch.handle_name
                if name.lower() in known:
                    text = f"{name} is the handle of an earlier step of the same list; choose another"
                    yield (*place, number, "launch", "handleName"), text
                known[name.lower()] = name


def _some(names: Collection[str]) -> str:
    """The first names, for a message."""
    shown = list(itertools.islice(names, 10))
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")


def _excesses(workflow: Workflow) -> Iterator[tuple[Location, str]]:
    """The steps that ask for more than the job has, each with the first thing that is too much."""
    for place, run in workflow.located_runs():
        for what, step, job in _compared(run, workflow.resources):
            if step > job:
                yield (*place, "resources"), f"asks for {step} {what}, but the job has {job}"
                break


def _compared(run: Run, job: Resources) -> Iterator[tuple[str, int, int]]:
    asked = run.resources
    tasks = asked.tasks or 1
    cpus = tasks * (asked.cpus_per_task or job.cpus_per_task)
    yield "CPUs (tasks x cpusPerTask)", cpus, job.tasks * job.cpus_per_task
    yield (
        "MB of memory (tasks x cpusPerTask x memPerCpu)",
        cpus * (asked.mem_per_cpu or job.mem_per_cpu),
        job.tasks * job.cpus_per_task * job.mem_per_cpu,
    )
    yield "GPUs (tasks x gpusPerTask)", tasks * (asked.gpus_per_task or 0), job.gpus


def _wrong_networks(workflow: Workflow) -> Iterator[tuple[Location, str]]:
    gateways: dict[str, IPv4Interface | IPv6Interface] = {}
    for number, network in enumerate(workflow.virtual_networks):
        if network.name in gateways:
            yield ("virtualNetworks", number, "name"), "is the name of an earlier one; choose another"
        gateways.setdefault(network.name, ip_interface(network.gateway_address))
    for place, run in workflow.located_runs():
        for number, interface in enumerate(run.custom_network_interfaces):
            if interface.vnet is None:
                continue
            gateway = gateways.get(interface.vnet.name)
            if gateway is None:
                known = f"they are {_some(sorted(map(repr, gateways)))}" if gateways else "it has none"
                text = f"{interface.vnet.name!r} is none of the job's virtualNetworks: {known}"
                yield (*place, "customNetworkInterfaces", number, "vnet", "name"), text
            elif (run.resources.tasks or 1) > 1:
                text = "is an address for one, but the step has more than one task; make a step of each"
                yield (*place, "customNetworkInterfaces", number, "vnet", "address"), text
            elif text := _wrong_address(interface.vnet.address, gateway):
                yield (*place, "customNetworkInterfaces", number, "vnet", "address"), text


def _wrong_address(address: str, gateway: IPv4Interface | IPv6Interface) -> str:
    """Why an address can't be one of a virtual network; empty if it can."""
    own = ip_interface(address).ip
    if own not in gateway.network:
        return f"is not in the virtual network, {gateway.network}"
    return "is that of the virtual network's gateway; choose another" if own == gateway.ip else ""


def _large_environments(workflow: Workflow) -> Iterator[tuple[Location, str]]:
    """The environments with which no program could be started."""
    most = "more than 1.5 MiB, with which no program can be started; use files"
    job = _sizes(workflow.env)
    of_job = sum(job.values())
    if of_job > _ENVIRONMENT_BYTES:
        yield ("env",), f"has {most}"
        return
    for place, run in workflow.located_runs():
        own = _sizes(run.env)
        if of_job + sum(size - job.get(key, 0) for key, size in own.items()) > _ENVIRONMENT_BYTES:
            yield (*place, "env"), f"has, with the job's env, {most}"


def _sizes(env: Iterable[EnvVar]) -> dict[str, int]:
    """The bytes of each variable by its name; of those with the same name the last counts."""
    return {variable.key: len(f"{variable.key}={variable.value}\0".encode()) for variable in env}


def _wrong_image(run: Run, container: Container) -> Iterator[tuple[Location, str]]:
    image: Location = ("container", "image")
    is_path = container.deepsquare_hosted or container.image.startswith("/")
    if "://" in container.image:
        yield image, "has a scheme, which images don't have here: write IMAGE alone, and its registry in registry"
    elif is_path and ".." in PurePosixPath(container.image).parts:
        yield image, "the path of an image can't have .."
    elif container.runtime == "enroot" and not is_path:
        if not _ENROOT_IMAGE.fullmatch(container.image):
            text = "is no image for Enroot: NAME:TAG in small letters, or with apptainer: true any that registries have"
            yield image, text
        yield from _wrong_credentials(container)
    if run.shell == "ENTRYPOINT":
        try:
            shlex.split(run.command)
        except ValueError as error:
            yield ("command",), f"can't be split into the arguments of the image's entry point: {error}"


def _wrong_credentials(container: Container) -> Iterator[tuple[Location, str]]:
    """What Enroot would misread in its file of credentials, or run."""
    remedy = "Enroot can't be given it; set apptainer: true, which can"
    if container.username is not None and not _ENROOT_USER.fullmatch(container.username.get_secret_value()):
        yield ("container", "username"), f"has characters that no account has; {remedy}"
    if container.password is not None:
        text = container.password.get_secret_value()
        if not text or text[0] in "$\"'#" or not text.isprintable() or " " in text or "\\" in text:
            what = "is empty, has a space, a \\ or a control character, or begins with $, # or a quote"
            yield ("container", "password"), f"{what}; {remedy}"
