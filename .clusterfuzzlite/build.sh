#!/bin/bash -eu
# Builds the targets and their seeds where OSS-Fuzz and ClusterFuzzLite look for them.
cd "$SRC/emmu"
fuzz/seeds.sh
cargo fuzz build -O
for target in fuzz/fuzz_targets/*.rs; do
    name=$(basename "$target" .rs)
    cp "fuzz/target/x86_64-unknown-linux-gnu/release/$name" "$OUT/"
    if [ -d "fuzz/seeds/$name" ]; then
        (cd "fuzz/seeds/$name" && zip -q -r "$OUT/${name}_seed_corpus.zip" .)
    fi
done
