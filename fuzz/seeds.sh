#!/usr/bin/env bash
# Makes a seed corpus of each target from the recordings that are shipped: fuzz/seeds/TARGET/.
set -euo pipefail
cd "$(dirname "$0")"
rm -rf seeds && mkdir -p seeds/{script,strace,faults,maps}
# One script a file; every tenth is enough to begin with.
gzip -dc ../data/scripts.jsonl.gz | awk '
    /^{"profile"/ { n++ }
    n % 10 == 0 { print > ("seeds/script/" n ".jsonl") }'
cut_in() { # pieces of 200 lines
    gzip -dc "$1" | split -l 200 -a 4 - "$2"
}
for program in ../data/programs/*/; do
    name=$(basename "$program")
    cut_in "$program/calls.strace.gz" "seeds/strace/$name-"
    cut_in "$program/faults.txt.gz" "seeds/faults/$name-"
    for maps in "$program"/*.maps.gz; do
        cut_in "$maps" "seeds/maps/$name-$(basename "$maps" .maps.gz)-"
    done
done
cargo run --quiet --release --bin seeds -- seeds/ops
