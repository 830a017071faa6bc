# Shared by the scripts beside it. Sourced from the root of the repository; `make setup` comes first.
#
# A unit is one training. When it is finished its result is a line of $LINES (see record.py), and a script that is called
# again skips it. Models that later units start from are trained again where their folder is not there any more.
set -euo pipefail
export PATH="$PWD/.venv/bin:$PATH" PYTHONPATH="$PWD:${PYTHONPATH:-}"
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

recorded() { [ -f "$LINES" ] && grep -q "\"unit\": \"$1\"" "$LINES"; }

# record NAME [MODEL]: the last model of a run, or the model in a folder, asked about the photos of $VAL.
record() { recorded "$1" || python docs/results/record.py "$LINES" "$1" "${2:-$RUNS/$1/last}" "$VAL"; }

# unit NAME ARGUMENTS...: train it and record it, unless it is recorded.
unit() {
    recorded "$1" && return
    train "$@"
    record "$1"
}

# paired KIND OTHER SEEDS...: over the same photos and seeds.
paired() { python docs/results/paired.py "$LINES" "$@"; }

# deploy NAME SHARDS: the last model of a run in every format, int8 calibrated on the photos of training, behind the gate.
deploy() {
    python -m models.export --model "$RUNS/$1/last" --out "$RUNS/exported_$1" --int8 --storage uint8 \
        --calibrate "$2/train" --data "$2/val" --gate 0.01 || echo "$1 misses the gate"
}
