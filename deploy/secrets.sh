#!/bin/sh
# Make the secrets that compose.yaml reads, once: ./secrets.sh [DIRECTORY]. What is there is left as it is.
set -eu
umask 077
directory=${1:-"$(dirname "$0")/secrets"}
mkdir -p "$directory"

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
keep() {
  [ -e "$directory/$1" ] || printf '%s' "$2" >"$directory/$1"
  # The container's user reads it; who may enter the directory is decided by the directory.
  chmod 444 "$directory/$1"
}

keep secret_key "$(random)"
keep postgres_password "$(random)"
keep database_url "postgresql://tillgate:$(cat "$directory/postgres_password")@postgres:5432/tillgate"
chmod 700 "$directory"
echo "The secrets are in $directory. Keep a copy of secret_key: without it nobody opens the accounts' credentials."
