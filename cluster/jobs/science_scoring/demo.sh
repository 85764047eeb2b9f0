#!/bin/sh
# Science scoring: graded answers -> a tuned teacher -> its law over the grades -> networks of 0.03 M parameters.
#   sh cluster/jobs/science_scoring/demo.sh [--teacher FOLDER_OR_HUB_NAME] [--data FOLDER]
# --data: a folder with train.tsv and test_*.tsv in the form of Beetle. Without it the answers are synthetic.
# --teacher: the model that is tuned to grade, and then captured, in place of SmolLM2-135M-Instruct.
# TUNE=0 captures that model as it is. LIMIT=N takes so many answers that nobody graded (1200).
# SEEDS="0 1 2" trains each network with several seeds; the report then shows mean, lowest and highest.
set -eu
folder=runs/science
. "$(dirname "$0")/../steps.sh"
fail() {
    echo "demo: $1" >&2
    exit 2
}

if [ -n "$data" ]; then
    [ -e "$data/train.tsv" ] || fail "$data: no file train.tsv; give a folder in the form of Beetle"
    [ -n "$(ls "$data"/test_*.tsv 2> /dev/null)" ] || fail "$data: no file test_*.tsv, such as test_unseen_answers.tsv"
fi

base=$teacher
if [ -z "$base" ]; then
    model smollm2
    base=runs/teachers/SmolLM2-135M-Instruct
fi
model minilm
if [ -n "$data" ]; then
    tests= table=
    for file in "$data"/test_*.tsv; do
        name=$(basename "$file" .tsv)
        tests="$tests $name"
        table="$table${table:+, }${name#test_} = \"$file\""
    done
    step "examples: Beetle, with the grades of 800 answers" examples $jobs/beetle.toml \
        --set "task.train=$data/train.tsv" --set "task.tests={ $table }"
else
    tests="test_unseen_answers test_unseen_questions"
    step "examples: synthetic answers from a grammar of facts" examples $jobs/examples.toml
fi
first=${tests# }
first=${first%% *}
if [ "${TUNE:-1}" = 0 ]; then
    tuned=$base
    models="teacher = \"$base\""
else
    # A model of the user's may be large: low-rank adapters, with their own learning rate.
    step "teacher: the generalist learns to grade" train $jobs/teacher.toml --set "model.pretrained=$base" \
        ${teacher:+--set "model.lora={ rank = 16, alpha = 32 }" --set optimizer.lr=0.001}
    tuned=runs/science/teacher/model
    trained teacher
fi
step "capture: its law over the grades of graded answers" capture $jobs/capture.toml --set "teacher.model=$tuned"
step "capture: of answers that nobody graded" capture $jobs/capture.toml --set "teacher.model=$tuned" \
    --set examples=runs/science/examples/transfer.jsonl --set "limit=${LIMIT:-1200}"
step "capture: of answers for early stopping" capture $jobs/capture.toml --set "teacher.model=$tuned" \
    --set examples=runs/science/examples/dev.jsonl --set store=runs/science/dev
step "encoder: MiniLM, fine-tuned on the same grades" train $jobs/encoder.toml
trained encoder
for seed in $seeds; do
    step "kd, seed $seed: the teacher's probabilities, of all answers" train $jobs/student.toml \
        --set output=runs/science/kd_$seed --set run.seed=$seed
    step "soft, seed $seed: the teacher's probabilities, of graded answers" train $jobs/student.toml \
        --set output=runs/science/soft_$seed --set run.seed=$seed --set 'data.where={ source = "graded" }'
    step "ce, seed $seed: the true grades, of graded answers" train $jobs/student.toml \
        --set output=runs/science/ce_$seed --set run.seed=$seed --set 'data.where={ source = "graded" }' \
        --set loss.objective=hard_label
    step "hard, seed $seed: the teacher's most probable grades, of all answers" train $jobs/student.toml \
        --set output=runs/science/hard_$seed --set run.seed=$seed --set loss.objective=hard_label \
        --set classes.hard_labels=teacher
    for name in ce soft hard kd; do
        trained ${name}_$seed
    done
done
more=
for name in $tests; do
    step "evaluation: $name" evaluate $jobs/evaluate.toml --set "output=runs/science/evaluation_$name" \
        --set "examples=runs/science/examples/$name.jsonl" --set "models={ $models }"
    [ "$name" = "$first" ] || more="$more${more:+, }${name#test_} = \"runs/science/evaluation_$name\""
done
step "report" report $jobs/report.toml --set "evaluation=runs/science/evaluation_$first" --set "evaluations={ $more }" \
    --set "trainings={ $trainings }" --set "groups=$(groups ce soft hard kd)"
