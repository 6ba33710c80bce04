#!/usr/bin/env bash
# Pin what pyproject.toml asks for, with hashes, for every platform:
#   runtime.txt  what the hub needs to run (no extras)
#   otel.txt     the same with what traces need
#   build.txt    what installs the checkout itself as a package
#   dev.txt      both, with every extra and all that tests and checks use
# Pins stay as they are unless they must change; `--upgrade` moves them to the newest that pyproject.toml allows.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v uv >/dev/null; then
  tools=$(mktemp -d)
  trap 'rm -rf "$tools"' EXIT
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check 'uv>=0.13,<0.14'
  PATH="$tools/bin:$PATH"
fi

pin() {
  local output=$1
  shift
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
    --output-file "requirements/$output" "$@"
}

pin runtime.txt pyproject.toml "$@"
pin otel.txt pyproject.toml --extra otel --constraint requirements/runtime.txt "$@"
pin build.txt --group pyproject.toml:build "$@"
# The others' pins are constraints, so that one version of a library is tested and run.
pin dev.txt pyproject.toml --all-extras --group pyproject.toml:build --group pyproject.toml:dev \
  --constraint requirements/runtime.txt --constraint requirements/otel.txt \
  --constraint requirements/build.txt "$@"
