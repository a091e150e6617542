#!/usr/bin/env bash
# Prepares the peer that Wushi is measured against, llama.cpp, and prints the directory of its programs.
#
#     benches/peer.sh                 # into target/peer, or $WUSHI_PEER_DIR
#     benches/peer.sh --avx2          # for AVX2, FMA and F16C alone, beside the other
#     WUSHI_PEER_JOBS=1 nice benches/peer.sh
#
# The source is what the Python package llama-cpp-python carries, fetched with the user's own package client, so
# that a mirror is honoured; it is built as llama.cpp recommends for the machine at hand (Release, native
# instructions, everything else at its default). About 15 minutes on 2 cores; a second run builds nothing.
# To be run by hand; neither tests nor CI use it.
set -euo pipefail

version=0.3.36
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
targets=(llama-bench llama-batched-bench llama-completion llama-perplexity llama-tokenize llama-server)

cd "$(dirname "$0")/.."
dir=${WUSHI_PEER_DIR:-target/peer}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
archive=$dir/llama_cpp_python-$version.tar.gz
source=$dir/llama_cpp_python-$version/vendor/llama.cpp
build=$dir/build-$version
native=(-DGGML_NATIVE=ON)
case "$*" in
"") ;;
--avx2)
    build=$build-avx2
    native=(-DGGML_NATIVE=OFF -DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON
        -DGGML_AVX_VNNI=OFF -DGGML_AVX512=OFF)
    ;;
*)
    echo "usage: benches/peer.sh [--avx2]" >&2
    exit 2
    ;;
esac
say() { echo "peer: $*" >&2; }

if [ ! -x "$dir/venv/bin/ninja" ]; then
    say "installing cmake and ninja into $dir/venv"
    python3 -m venv "$dir/venv"
    "$dir/venv/bin/pip" install --quiet cmake ninja >&2
fi
export PATH=$dir/venv/bin:$PATH

if [ ! -f "$archive" ]; then
    say "downloading llama-cpp-python $version"
    pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$dir" "llama-cpp-python==$version" >&2
fi
if ! echo "$sha256  $archive" | sha256sum --check --status; then
    say "$archive is not the archive this script was written for (SHA-256 $sha256): delete it and try again"
    exit 1
fi
if [ ! -f "$source/.unpacked" ]; then
    tar -xzf "$archive" -C "$dir"
    touch "$source/.unpacked"
fi

# GCC before 13 takes the stores of AMX's tile configuration for dead, and what it then builds dies of an illegal
# instruction on processors that have AMX.
flags=()
if grep -qsw amx_tile /proc/cpuinfo && [ "$(c++ -dumpversion | cut -d . -f 1)" -lt 13 ]; then
    flags=(-DCMAKE_CXX_FLAGS='-fno-dse -fno-tree-dse')
fi

say "building $(IFS=' '; echo "${targets[*]}") in $build"
cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release "${native[@]}" \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_UI=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF \
    -DLLAMA_USE_PREBUILT_UI=OFF "${flags[@]}" >"$dir/configure.log" 2>&1 || { tail -n 20 "$dir/configure.log" >&2; exit 1; }
ninja -C "$build" ${WUSHI_PEER_JOBS:+-j "$WUSHI_PEER_JOBS"} "${targets[@]}" >&2
echo "$build/bin"
