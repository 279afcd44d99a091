#!/bin/sh
# run-demo.sh PROGRAM WORKDIR - the main job on real input: `make run` calls it.
#
# (a) the trained character model of the notebook's architecture answers prompts of its four
#     tasks, and its greedy accuracy over the fixed list of held-out prompts is counted;
# (b) the notebook's own example runs on ids (10, 32) and is timed.
set -eu

t2=$1
work=$2
chars=runtime/models/t2-chars
example=$work/example

echo "== A trained Transformer2 model: reverse (R), sort (S), shift (C), add (A)"
echo "(a base model, half-trained on purpose, to be adapted later; its experts are still neutral)"
"$t2" eval "$chars" --tasks "$chars/heldout.tsv" --show 4

echo
echo "== The notebook's example: Transformer2Model(1000, 256, 4, 8, 0.1, 4, 3) on ids (10, 32)"
mkdir -p "$work"
[ -e "$example/model.safetensors" ] ||
    "$t2" init "$example" --vocab-size 1000 --embed-size 256 --num-layers 4 --heads 8 \
        --dropout 0.1 --forward-expansion 4 --num-experts 3 --seed 0
# 32 sequences of 10 ids below 1000, the same on every machine.
awk 'BEGIN { x = 1; for (n = 0; n < 32; n++) { s = "";
    for (l = 0; l < 10; l++) { x = (x * 16807) % 2147483647; s = s " " x % 1000 }
    print s } }' > "$work/ids.txt"
"$t2" run "$example" --ids "$work/ids.txt" --repeat 50
"$t2" run "$example" --ids "$work/ids.txt" --repeat 50 --threads 1
