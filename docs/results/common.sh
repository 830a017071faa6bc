# Shared by the scripts beside it. Sourced from the root of the repository; `make setup` comes first.
set -euo pipefail
export PATH="$PWD/.venv/bin:$PATH"
RANKS="${RANKS:-2}"

# train NAME ARGUMENTS...: one training in $RUNS/NAME, unless it is finished; one that was cut off goes on.
train() {
    local name="$1"
    shift
    [ -f "$RUNS/$name/result.json" ] && return
    echo "$(date +%H:%M:%S) $name"
    mkdir -p "$RUNS/logs"
    horovodrun -np "$RANKS" python train/main.py "$@" run.dir="$RUNS/$name" tracking.wandb.mode=disabled \
        tracking.evaluate_every=4 tracking.log_every=200 > "$RUNS/logs/$name.log" 2>&1 ||
        { tail -20 "$RUNS/logs/$name.log"; echo "$name failed: $RUNS/logs/$name.log"; exit 1; }
}

# models FLAG KIND SEEDS...: prints --FLAG and the folder of the last (or pruned) model of each seed.
models() {
    local flag="$1" kind="$2" seed model
    shift 2
    for seed in "$@"; do model="$RUNS/$kind-$seed"; [ -d "$model/last" ] && model="$model/last"; printf -- "--%s %s " "$flag" "$model"; done
}

# compare NAME KIND OTHER DATA SEEDS...: paired, over the same photos and seeds.
compare() {
    local name="$1" kind="$2" other="$3" data="$4"
    shift 4
    echo "== $kind against $other, seeds $*"
    # shellcheck disable=SC2046
    python -m train.compare $(models model "$kind" "$@") $(models against "$other" "$@") --data "$data" --json "$RUNS/$name.json"
}

# deploy NAME SHARDS: the last model of a run in every format, int8 calibrated on the photos of training, behind the gate.
deploy() {
    python -m models.export --model "$RUNS/$1/last" --out "$RUNS/exported_$1" --int8 --storage uint8 \
        --calibrate "$2/train" --data "$2/val" --gate 0.01 || echo "$1 misses the gate"
}
