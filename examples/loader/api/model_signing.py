# Copyright The aegis-oci Authors
# SPDX-License-Identifier: Apache-2.0
"""Sign and verify models with aegis-oci from Python.

Two functions, each one run of the ``aegis-oci`` program: its JSON comes back as a
dataclass, its refusal as an exception with the error's stable code. There is no
third way out: a function that returns has signed, or has verified.

Vault and registry are found as the program finds them, in the environment
(``VAULT_ADDR``, ``AEGIS_VAULT_AUTH``, ``AEGIS_REGISTRY_CONFIG`` and so on). No
secret is ever put on a command line, where other processes could read it.

Needs Python 3.9 and nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence, Union

__all__ = [
    "ModelRejectedError",
    "ModelSigningError",
    "SignedModel",
    "VerifiedModel",
    "sign_model_artifact",
    "verify_model_artifact",
]

PathLike = Union[str, "os.PathLike[str]"]

_REJECTED = 3
_DEFAULT_TIMEOUT = 600.0


class ModelSigningError(Exception):
    """aegis-oci did not do what was asked.

    ``code`` is stable ("vault_denied", "registry_unreachable", "usage"),
    ``message`` is for people, ``exit_code`` is the program's, and ``retryable``
    says that the same call may succeed later.
    """

    def __init__(self, code: str, message: str, exit_code: int, retryable: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.exit_code = exit_code
        self.retryable = retryable


class ModelRejectedError(ModelSigningError):
    """The model was judged and must not be loaded.

    It is unsigned, signed by another key, expired, changed, or not what the
    policy allows. Trying again does not help.
    """


@dataclass(frozen=True)
class SignedModel:
    """What was signed. ``reference`` is ``REGISTRY/REPOSITORY@DIGEST``."""

    reference: str
    digest: str
    signatures: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class VerifiedModel:
    """What was verified: a reference, or with ``path`` a directory.

    ``signatures`` are those that count, with their signed claims.
    """

    reference: str
    digest: str
    signatures: Sequence[Mapping[str, Any]]
    path: Optional[str] = None


def sign_model_artifact(
    reference: str,
    key: str,
    *,
    annotations: Optional[Mapping[str, str]] = None,
    expiry: Optional[str] = None,
    program: PathLike = "aegis-oci",
    env: Optional[Mapping[str, str]] = None,
    timeout: float = _DEFAULT_TIMEOUT,
) -> SignedModel:
    """Sign the manifest that ``reference`` names and attach the signature.

    ``key`` is a Transit key such as ``hashivault://aegis-model-sign``,
    ``annotations`` become signed claims, and ``expiry`` is how long the signature
    holds ("2160h"). ``env``, when given, is the program's whole environment.

    Raises ModelSigningError.
    """
    args = [f"--key={key}"]
    args += [f"--annotation={name}={value}" for name, value in sorted((annotations or {}).items())]
    if expiry is not None:
        args.append(f"--expiry={expiry}")
    result = _run(program, ["sign", *args], [reference], env, timeout)
    signatures = result.get("signatures")
    if not isinstance(signatures, list) or not signatures:
        raise ModelSigningError("malformed", "aegis-oci named no signature", 0)
    return SignedModel(_text(result, "reference"), _text(result, "digest"), signatures)


def verify_model_artifact(
    reference: Optional[str] = None,
    *,
    directory: Optional[PathLike] = None,
    key: Optional[str] = None,
    policy: Optional[PathLike] = None,
    annotations: Optional[Mapping[str, str]] = None,
    program: PathLike = "aegis-oci",
    env: Optional[Mapping[str, str]] = None,
    timeout: float = _DEFAULT_TIMEOUT,
) -> VerifiedModel:
    """Verify a reference, or a directory that ``aegis-oci pull`` has filled.

    With ``directory`` no registry is asked: the signatures kept beside the model
    are verified again and every file is hashed. ``reference`` then says what the
    directory should hold, which a policy needs. ``key`` is a Transit key or a PEM
    file, ``policy`` a trust policy; one of them must be given.

    Raises ModelRejectedError when the model must not be loaded, and
    ModelSigningError when that could not be found out. Only a return is an
    acceptance.
    """
    args = []
    if key is not None:
        args.append(f"--key={key}")
    if policy is not None:
        args.append(f"--policy={os.fspath(policy)}")
    args += [f"--annotation={name}={value}" for name, value in sorted((annotations or {}).items())]
    positional: list[str] = []
    if directory is not None:
        args.append(f"--dir={os.fspath(directory)}")
        if reference is not None:
            args.append(f"--ref={reference}")
    elif reference is not None:
        positional.append(reference)
    result = _run(program, ["verify", *args], positional, env, timeout)
    if result.get("verified") is not True:
        raise ModelSigningError("malformed", "aegis-oci does not say that it verified", 0)
    return VerifiedModel(
        reference=str(result.get("reference", "")),
        digest=_text(result, "digest"),
        signatures=result.get("signatures") or [],
        path=result.get("path"),
    )


def _run(
    program: PathLike,
    args: Sequence[str],
    positional: Sequence[str],
    env: Optional[Mapping[str, str]],
    timeout: float,
) -> Mapping[str, Any]:
    """Run the program once and return its result, or raise."""
    # Looked up in this process's PATH, whatever env holds.
    found = shutil.which(program)
    if found is None:
        raise ModelSigningError("not_installed", f"there is no program {os.fspath(program)}", 1)
    # A reference that begins with a dash must not turn into a flag.
    command = [found, *args, "--format=json", "--quiet", "--", *positional]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if env is None else dict(env),
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelSigningError("timeout", f"aegis-oci gave no answer in {timeout} s", 4, True) from None
    except OSError as err:
        raise ModelSigningError("not_installed", f"{found} cannot be run: {err.strerror}", 1) from err
    result = _parse(done.stdout)
    if done.returncode != 0:
        raise _failure(done.returncode, result, done.stderr)
    if result is None:
        raise ModelSigningError("malformed", "aegis-oci printed no JSON", 0)
    return result


def _parse(stdout: bytes) -> Optional[Mapping[str, Any]]:
    try:
        value = json.loads(stdout)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _failure(exit_code: int, result: Optional[Mapping[str, Any]], stderr: bytes) -> ModelSigningError:
    error = (result or {}).get("error")
    if not isinstance(error, dict):
        lines = stderr.decode("utf-8", "replace").strip().splitlines()
        error = {"code": "internal", "message": lines[0] if lines else "aegis-oci failed"}
    kind = ModelRejectedError if exit_code == _REJECTED else ModelSigningError
    return kind(
        str(error.get("code", "internal")),
        str(error.get("message", "")),
        exit_code,
        error.get("retryable") is True,
    )


def _text(result: Mapping[str, Any], name: str) -> str:
    value = result.get(name)
    if not isinstance(value, str) or not value:
        raise ModelSigningError("malformed", f"aegis-oci's result has no {name}", 0)
    return value
