#!/bin/sh
# Recipe dialogues: the commands that a user would type, in order. Each continues where an earlier run stopped.
#   sh cluster/jobs/recipe_dialogue/demo.sh [--teacher FOLDER_OR_HUB_NAME] [--data COOKDIAL_FOLDER_OR_WIZARD_OF_TASKS_JSON]
# SEEDS="0 1 2" trains the distilled student and its baseline with several seeds; the report then shows mean, lowest and
# highest.
# TUNE=1 tunes the teacher on training turns first (low-rank adapters; some 10 minutes on 2 cores).
set -eu; folder=runs/recipe; . "$(dirname "$0")/../steps.sh"
base=${teacher:-runs/teachers/SmolLM2-135M-Instruct}
tuned=$base

# The data set, as options of every job that builds examples.
set --
if [ -d "$data/dialog" ]; then
    set -- --set task.data=cookdial --set "task.path=$data"
elif [ -n "$data" ]; then
    set -- --set task.data=wizard_of_tasks --set "task.path=$data"
fi

[ -n "$teacher" ] || model smollm2
model minilm
step "1/11 prompts that ask the teacher to improve training turns" examples $jobs/augmentation.toml "$@"
step "2/11 the teacher writes better questions, better answers and follow-ups" capture $jobs/augment.toml \
    --set "teacher.model=$base"
step "3/11 what it wrote, as examples" examples $jobs/augmented.toml "$@"
step "4/11 turns with passages: parent documents and contextual compression" examples $jobs/examples.toml "$@"
step "5/11 the same turns without passages" examples $jobs/plain.toml "$@"
if [ -n "${TUNE:-}" ]; then
    tuned=runs/recipe/teacher/model
    step "the teacher is tuned on training turns" train $jobs/teacher.toml --set "model.pretrained=$base"
    trainings="teacher = \"runs/recipe/teacher\""
fi
step "6/11 the teacher's distributions of the answers" capture $jobs/capture.toml --set "teacher.model=$tuned"
step "7/11 the same of test recipes" capture $jobs/heldout.toml --set "teacher.model=$tuned"
# A small teacher may write nothing that can be used; then there is no student with the augmentation.
students="kd ce"
if [ -s runs/recipe/augmented_examples/train.jsonl ]; then
    students="kd ce kd_augmented"
    step "8/11 the same of the augmentation, which the teacher answers too" capture $jobs/capture_augmented.toml \
        --set "teacher.model=$tuned"
fi

# student NAME JOB TITLE [OPTION ...]: train a student that begins as 8 layers of the generalist.
student() {
    output=$folder/${1}_$seed job=$jobs/$2.toml title="9/11 student $seed, $3"
    shift 3
    step "$title" train "$job" --set "output=$output" --set "run.seed=$seed" --set "model.pretrained=$base" "$@"
}

for seed in $seeds; do
    student kd student "distilled: KL at T = 2 and cross-entropy"
    student ce student "baseline: cross-entropy alone, same examples in the same order" \
        --set 'loss={ objective = "hard_label" }'
    trained kd_$seed
    trained ce_$seed
done
# The other comparisons have one seed, the first.
seed=${seeds%% *}
if [ "$students" != "kd ce" ]; then
    student kd_augmented student_augmented "distilled, with the augmentation"
    trained kd_augmented_$seed
fi
student ce_plain student_plain "cross-entropy without retrieval"
plain="ce_plain_$seed = \"runs/recipe/ce_plain_$seed/model\""
trainings="$trainings, ce_plain_$seed = \"runs/recipe/ce_plain_$seed\""
set --
step "10/11 evaluation: agreement, the triad and retrieval" evaluate $jobs/evaluate.toml --set "models={ teacher = \"$tuned\", $models }" \
    --set "judge.teacher.model=$base"
step "10/11 evaluation without retrieval" evaluate $jobs/evaluate_plain.toml --set "models={ $plain }"
[ "$students" != "kd ce" ] || set -- --set 'captures={ augmentation = "runs/recipe/augmented" }'
step "11/11 report" report $jobs/report.toml "$@" --set "trainings={ $trainings }" \
    --set "groups=$(groups kd ce)"
