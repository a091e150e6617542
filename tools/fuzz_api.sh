#!/usr/bin/env bash
# Fuzzes the HTTP API along its own description: tools/fuzz_api.sh [SECONDS] [OPTION OF schemathesis run…]
#
# Starts target/release/wushi with tiny models, holds /openapi.json to OpenAPI's rules, sends requests made from it for
# so many seconds (120 if not said), and looks whether the server is as it was: nothing held, nothing running, and it
# ends with 0 when told to. Needs Python 3.10 or newer with venv; what it installs stays below target/.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-120}
[ $# -gt 0 ] && shift

binary=target/release/wushi
[ -x "$binary" ] || {
    echo "no $binary: cargo build --release" >&2
    exit 1
}

environment=target/fuzz-api
wanted='openapi-spec-validator==0.9.0 schemathesis==4.32.5'
if [ "$(cat "$environment/installed" 2>/dev/null)" != "$wanted" ]; then
    python3 -m venv --clear "$environment"
    # Unquoted: two packages.
    "$environment/bin/pip" install --quiet $wanted
    echo "$wanted" >"$environment/installed"
fi

folder=$(mktemp -d)
models=tests/fixtures/models
# Contexts so short that no answer takes long.
WUSHI_HOME=$folder "$binary" serve tiny=$models/llama-tiny-q4_1.gguf bert=$models/bert-tiny.gguf \
    --port 0 --ctx 64 --quiet >"$folder/address" 2>"$folder/log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
until [ -s "$folder/address" ]; do
    kill -0 "$server" || {
        cat "$folder/log" >&2
        exit 1
    }
    sleep 0.1
done
address=$(cat "$folder/address")
until curl -sf "$address/ready" >/dev/null; do sleep 0.1; done

curl -sf "$address/openapi.json" >"$folder/openapi.json"
"$environment/bin/python" -m openapi_spec_validator "$folder/openapi.json"

status=0
# In a folder of its own, for what schemathesis leaves behind. No schema says that a token is in the vocabulary, or
# that a grammar can be made of another schema: what is as described may still be refused, with 400.
(cd "$folder" && "$OLDPWD/$environment/bin/schemathesis" run "$address/openapi.json" \
    --max-time "$seconds" --continue-on-failure --warnings off \
    --exclude-checks positive_data_acceptance "$@") || status=$?

held=$(curl -sf "$address/metrics" | awk '/^wushi_(requests_running|requests_waiting|kv_pages_used)\{/ { sum += $2 } END { print sum + 0 }')
[ "$held" = 0 ] || {
    echo "the server still holds something: $held sequences and pages" >&2
    status=1
}
kill -TERM "$server"
wait "$server" || {
    echo "the server ended with $?" >&2
    status=1
}
grep -i 'panicked' "$folder/log" >&2 && status=1
exit "$status"
