"""Keeps the site's policy: judges a job when it is submitted, and again when its container is made.

In between the file system may have changed: a folder became a link to another one. What the engine gets are
the real paths of the second look.
"""

import os
import pwd
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from topod.errors import JobRejectedError, TopodError
from topod.model.job import JobSpec
from topod.model.policy import ANY, CALLER, HostPaths, JobPolicy, Submitter, judge, takes_gpus
from topod.shell.config_file import JobPolicySection

ENGINE_PATHS: Final = (
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/containerd",
    "/run/podman",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/proc",
    "/sys",
    "/dev",
)
"""Who has one of these inside a container has the host."""

Vet = Callable[[JobSpec], JobSpec]
"""Returns the job as it may run; raises `PolicyError`. May block on the file system and the user database."""


class PolicyError(TopodError):
    """The host's policy forbids what the job asks for. Exit status 77 (EX_NOPERM)."""

    code = "policy"
    exit_status = 77


class UnknownUserError(PolicyError):
    """The user database does not know the job's user, or not just now."""


def policy_of(section: JobPolicySection) -> JobPolicy:
    """Return the policy for the core."""
    return JobPolicy(
        images=section.images,
        require_digest=section.require_digest,
        mounts=section.mounts,
        mounts_read_only=section.mounts_read_only,
        secrets=section.secrets,
        users=section.users,
        networks=section.networks,
        capabilities=section.capabilities,
        devices=section.devices,
        ulimits=section.ulimits,
        max_gpus=section.max_gpus,
        no_new_privileges=section.no_new_privileges,
        drop_capabilities=section.drop_capabilities,
    )


def vetter(section: JobPolicySection | None, protected: Iterable[Path]) -> Vet:
    """Return what judges jobs by a policy.

    `protected` are paths that no job may have, beside the engine's. With or without a policy nobody takes a
    GPU past topod.
    """
    policy = None if section is None else policy_of(section)
    whole = tuple(dict.fromkeys(os.path.realpath(path) for path in (*ENGINE_PATHS, *map(str, protected))))
    paths = HostPaths(real=os.path.realpath, protected=whole)

    def vet(spec: JobSpec) -> JobSpec:
        try:
            if gpu := takes_gpus(spec, paths):
                raise PolicyError(f"device {gpu} is for topod to give: ask for GPUs with --gpus")
            if policy is None:
                return spec
            who = submitter(spec.user)
            if who.uid is None and CALLER in policy.users and ANY not in policy.users:
                raise UnknownUserError(f"this host does not know user {spec.user}, as whom the job would run")
            verdict = judge(policy, spec, who, paths)
        except (OSError, ValueError) as error:
            raise PolicyError(f"a path of this job cannot be looked at: {error}") from None
        if verdict.refusals:
            text = "; ".join(verdict.refusals)
            raise PolicyError(f"not allowed by this host's policy: {text}", hint="ask an administrator")
        return verdict.spec

    return vet


def allow(spec: JobSpec) -> JobSpec:
    """Judge nothing."""
    return spec


def at_create(vet: Vet, spec: JobSpec) -> JobSpec:
    """Judge a job whose container is about to be made or started.

    Raises `JobRejectedError`: it cannot run like this; `UnknownUserError`: it may later, a directory service
    can be away.
    """
    try:
        return vet(spec)
    except UnknownUserError:
        raise
    except PolicyError as error:
        raise JobRejectedError(error.message) from None


def submitter(name: str) -> Submitter:
    """Return the numbers of a user of this host; a name that is a number stands for itself."""
    try:
        found = pwd.getpwnam(name)
    except (KeyError, ValueError):
        return Submitter(name=name, uid=int(name) if name.isascii() and name.isdecimal() else None)
    gids = frozenset(os.getgrouplist(name, found.pw_gid))
    return Submitter(name=name, uid=found.pw_uid, gid=found.pw_gid, gids=gids)
