# Supernets of CIFAR-10 with one thing changed each, and how each ranks the networks of docs/results/fidelity-cifar10-5MMACs.json.
#
#     bash benchmarks/levers.sh CIFAR10 FOLDER [AT_A_TIME]
#
# Each is trained by revision f05f005 with a patch of benchmarks/levers/, in a clone of its own in FOLDER, for about as much compute as the 20,000
# updates of `cifar_cpu` (but for half and double): 25 to 50 minutes of one thread. Its scores come to FOLDER/scores/NAME.json,
# and at the end all to FOLDER/levers.json, with their table. The same command goes on where it stopped.
export DATA=$(realpath "$1") FOLDER=$(realpath -m "$2") HERE=$(realpath "$(dirname "$0")") OMP_NUM_THREADS=1 NO_COLOR=1
mkdir -p "$FOLDER/scores"

one() { # NAME PATCH [LEV_...=VALUE ...] [option of train ...]
  name=$1 patch=$2; shift 2
  while [[ $1 == LEV_* ]]; do export "${1?}"; shift; done
  scores=$FOLDER/scores/$name.json clone=$FOLDER/$patch
  [ -e "$scores" ] && return
  export PYTHONPATH=$clone
  cd "$clone" && python launch.py train --data "$DATA" --space cifar_small --recipe cifar_cpu --run "lev-$name" "$@" &&
    python "$HERE/supernet_scores.py" "$scores" --run "lev-$name" --name "$name"
}
export -f one

for patch in plain norm width momentum rate fewshot distill pada masked sharing; do
  [ -e "$FOLDER/$patch" ] && continue
  new=$FOLDER/new # a clone without its patch would be trained as if it had it
  rm -rf "$new" && git clone -q "$HERE/.." "$new" && git -C "$new" checkout -q f05f005 || exit 1
  [ $patch = plain ] || git -C "$new" apply "$HERE/levers/$patch.patch" || exit 1
  mv "$new" "$FOLDER/$patch"
done

# seed1: the same with another seed, which tells what is noise. lr4, lr8: two and four times the rate. few0 to few2: three supernets for 2 and 3,
# 4, 5 and 6 blocks, which have 10,000 updates of all networks in common and a third of the other 10,000 each. distill: a teacher's pass takes a
# quarter of the compute.
xargs -P "${3:-2}" -I{} bash -c 'one {} >> "$FOLDER/levers.log" 2>&1' <<LEVERS || exit 1
seed1 plain --budget 5MMACs --seed 1
few0 fewshot LEV_GROUP=0 LEV_COMMON=10000 --budget 5MMACs --steps 13333
few1 fewshot LEV_GROUP=1 LEV_COMMON=10000 --budget 5MMACs --steps 13333
few2 fewshot LEV_GROUP=2 LEV_COMMON=10000 --budget 5MMACs --steps 13333
norm norm --budget 5MMACs
width width --budget 5MMACs
momentum momentum --budget 5MMACs
deep rate LEV_FAST=deep LEV_FACTOR=2 --budget 5MMACs
masked masked --budget 5MMACs
distill distill --budget 5MMACs --steps 15000
lr4 plain --budget 5MMACs --lr 4e-3
lr8 plain --budget 5MMACs --lr 8e-3
rate rate LEV_FAST=conv,s2_shift LEV_FACTOR=2 --budget 5MMACs
pada pada --budget 5MMACs
nobudget plain
sharing sharing --budget 5MMACs
double plain --budget 5MMACs --steps 40000
half plain --budget 5MMACs --steps 10000
LEVERS
export PYTHONPATH=$(realpath "$HERE/..")
python "$HERE/supernet_scores.py" "$FOLDER/levers.json" --gather "$FOLDER/scores" && python "$HERE/supernet_scores.py" "$FOLDER/levers.json"
