#!/bin/sh
# The demo: the commands that a user would type, in order. Each continues where an earlier run stopped.
#   sh cluster/jobs/demo/demo.sh [--teacher FOLDER_OR_HUB_NAME]
set -eu
cd "$(dirname "$0")/../../.."
jobs=cluster/jobs/demo
own=runs/demo/teacher/model
teacher=$own
case "${1:-}" in
    "") ;;
    --teacher) teacher=${2:?--teacher needs a model folder or hub name}; shift 2 ;;
    *) echo "demo: unknown option $1; the only one is --teacher NAME" >&2; exit 2 ;;
esac
mkdir -p runs/demo
if [ -e runs/demo/teacher.name ] && [ "$(cat runs/demo/teacher.name)" != "$teacher" ]; then
    echo "demo: runs/demo holds the work of teacher $(cat runs/demo/teacher.name); run 'make clean-demo' first" >&2
    exit 2
fi
echo "$teacher" > runs/demo/teacher.name

step() {
    printf '\n== %s\n' "$1"
    shift
    printf '   logitbank %s\n' "$*"
    python -m cluster.commands.main "$@"
}

step "1/8 examples: pairs of real molecules whose properties differ as asked" examples $jobs/examples.toml
if [ "$teacher" = $own ]; then
    step "2/8 teacher: a small Llama, trained here" train $jobs/teacher.toml
else
    printf '\n== 2/8 teacher: %s, given\n' "$teacher"
    set -- --set 'trainings={ kd = "runs/demo/kd", ce = "runs/demo/ce" }'
fi
step "3/8 capture: two vLLM engines score and write" capture $jobs/capture.toml --set "teacher.model=$teacher"
step "4/8 capture: the held-out molecules" capture $jobs/heldout.toml --set "teacher.model=$teacher"
step "5/8 student, distilled: the teacher's distributions" train $jobs/student.toml
step "6/8 student, baseline: hard labels, same examples in the same order" train $jobs/student.toml \
    --set output=runs/demo/ce --set loss.objective=hard_label
step "7/8 evaluation on held-out molecules" evaluate $jobs/evaluate.toml --set "models.teacher=$teacher"
step "8/8 report" report $jobs/report.toml "$@"
