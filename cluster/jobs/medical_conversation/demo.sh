#!/bin/sh
# Medical conversations: the commands that a user would type, in order. Each continues where an earlier run stopped.
#   sh cluster/jobs/medical_conversation/demo.sh [--teacher FOLDER_OR_HUB_NAME] [--data MTS_DIALOG_FOLDER]
# --teacher: writes and extracts in the place of SmolLM2. --data: MTS-Dialog's CSV files; its demo runs after the other.
set -eu; folder=runs/medical; . "$(dirname "$0")/../steps.sh"
writer=${teacher:-runs/teachers/SmolLM2-135M-Instruct}

[ -n "$teacher" ] || model smollm2
step "1/12 prompts for conversations, by topic, mood and exchanges" examples $jobs/prompts.toml
step "2/12 the generalist writes the conversations" capture $jobs/write.toml --set "teacher.model=$writer"
step "3/12 validation: what is a conversation, and what is left out" examples $jobs/records.toml
step "4/12 the generalist extracts records, guided by the schema" capture $jobs/extract.toml \
    --set "teacher.model=$writer"
if [ ! -e runs/medical/extracted.jsonl ]; then
    printf '\n== its records as instruction, input and output\n'
    printf '   logitbank export runs/medical/extracted runs/medical/extracted.jsonl --format instruction\n'
    python -m cluster.commands.main export runs/medical/extracted runs/medical/extracted.jsonl --format instruction
fi
step "5/12 labelled conversations of a grammar" examples $jobs/examples.toml
step "6/12 the extraction teacher, trained on them" train $jobs/teacher.toml
step "7/12 one capture for all students" capture $jobs/capture.toml
step "8/12 the held-out conversations" capture $jobs/heldout.toml
step "9/12 student: Llama" train $jobs/student_llama.toml
step "9/12 its baseline: hard labels, same examples in the same order" train $jobs/student_llama.toml \
    --set output=runs/medical/llama_labels --set loss.objective=hard_label
step "10/12 student: GPT-2" train $jobs/student_gpt2.toml
step "10/12 student: T5" train $jobs/student_t5.toml
step "11/12 evaluation on held-out conversations" evaluate $jobs/evaluate.toml
step "12/12 report" report $jobs/report.toml
[ -z "$data" ] || sh $jobs/mts_dialog/demo.sh --data "$data"
