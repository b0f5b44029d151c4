#!/usr/bin/env bash
# The workflow docs/ci/github-hosted.yml as jobs without anything that this machine has: each in a mount namespace with
# an empty cache folder, a home and an environment of its own. Needs root (unshare); compiles llama.cpp three times.
#
#   benchmarks/gate/hosted.sh FOLDER OLD NEW      # releases of llama-cpp-python
#
# save: a job with OLD stores a baseline, which is committed. empty: a pull request with NEW, and no cache. full: the
# same pull request again, with the folders that the workflow's cache keeps.
set -euo pipefail
checkout=$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel)
folder=$(realpath -m "$1") old=$2 new=$3
export CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"

job() { # NAME RELEASE CACHE ARGUMENTS: one job; what the workflow's cache would keep of it goes to FOLDER/cache-NAME
    unshare -m bash -euo pipefail -c '
        checkout=$1 folder=$2 name=$3 release=$4 cache=$5
        shift 5
        mount -t tmpfs none "${XDG_CACHE_HOME:-$HOME/.cache}"
        export HOME=$folder/home-$name
        unset XDG_CACHE_HOME
        mkdir -p "$HOME/.cache"
        [ -z "$cache" ] || cp -a "$cache/." "$HOME/.cache/"
        cd "$folder/project"
        python3 -m venv "$HOME/venv"
        start=$SECONDS
        "$HOME/venv/bin/python" -m pip install -q "$checkout" "llama-cpp-python==$release"
        echo "$name: installed in $((SECONDS - start)) s"
        start=$SECONDS
        "$HOME/venv/bin/python" -m pytest --rwkv-backend=llama-cpp --rwkv-threads=1 --rwkv-workload=pp128,tg32 "$@"
        echo "$name: the gate took $((SECONDS - start)) s"
        kept=$folder/cache-$name/pytest-rwkvperf
        mkdir -p "$kept"
        for part in environments models oracle; do
            [ ! -d "$HOME/.cache/pytest-rwkvperf/$part" ] || cp -a "$HOME/.cache/pytest-rwkvperf/$part" "$kept/"
        done
        cp -a "$HOME/.cache/pip" "$folder/cache-$name/"
    ' job "$checkout" "$folder" "$@"
}

mkdir -p "$folder/project"
git -C "$folder/project" init -q
job save "$old" "" --rwkv-save-baseline
git -C "$folder/project" add baselines
git -C "$folder/project" -c user.name=gate -c user.email=gate@localhost commit -qm "Store a baseline"
job empty "$new" "" --rwkv-strict=skip,no-baseline --rwkv-budget=300
job full "$new" "$folder/cache-empty" --rwkv-strict=skip,no-baseline --rwkv-budget=300
