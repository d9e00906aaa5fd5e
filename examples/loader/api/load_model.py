# Copyright The aegis-oci Authors
# SPDX-License-Identifier: Apache-2.0
"""A model loader that opens nothing which does not verify.

    python3 load_model.py --key release.pub --ref registry.example.com/models/vad:v1 /models/vad

The directory is one that ``aegis-oci pull`` has filled, such as an init
container's volume, mounted read-only into the container of the loader: then
nobody can change a file between the check and the reading.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys

from model_signing import ModelRejectedError, ModelSigningError, verify_model_artifact


def load(directory: pathlib.Path, key: str, reference: str, program: str) -> dict[str, bytes]:
    """Return the model's files by name, after everything has been verified."""
    verify_model_artifact(reference, directory=directory, key=key, program=program)
    files = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        if path.is_file() and name.parts[0] != ".aegis":
            files[name.as_posix()] = path.read_bytes()
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description="Load a model that verifies.")
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--key", required=True, help="a Transit key, or a PEM file")
    parser.add_argument("--ref", required=True, help="what the directory must hold")
    options = parser.parse_args()
    try:
        files = load(options.directory, options.key, options.ref, os.environ.get("AEGIS_OCI", "aegis-oci"))
    except ModelRejectedError as err:
        print(f"refused: {err}", file=sys.stderr)
        return 3
    except ModelSigningError as err:
        print(f"not loaded: {err}", file=sys.stderr)
        return 4
    for name, content in files.items():
        print(f"loaded {name} ({len(content)} bytes)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
