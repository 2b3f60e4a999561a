#!/bin/sh
# Prints, for every kernel of the CUDA library, what the compiler made of it for one architecture:
# registers, spilled bytes, shared and local memory, blocks that fit on a multiprocessor by them, and
# instructions (SASS when cuobjdump is there, else PTX). Needs nvcc, no GPU.
#
#   kernels/scripts/cuda-report.sh [ARCHITECTURE, default 90a] [FILE.cu ...]
set -eu

case ${1:-90a} in
  [1-9]*) ;;
  *)
    echo "Usage: cuda-report.sh [ARCHITECTURE, default 90a] [FILE.cu ...]" >&2
    exit 64
    ;;
esac
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
architecture=${1:-90a}
[ $# -eq 0 ] || shift
nvcc=$(command -v nvcc || command -v /usr/local/cuda/bin/nvcc) || {
  echo "nvcc is not on PATH and not in /usr/local/cuda; install the CUDA toolkit." >&2
  exit 1
}
cuobjdump=$(command -v cuobjdump || command -v "$(dirname "$nvcc")/cuobjdump" || true)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ $# -gt 0 ] || set -- "$root"/cuda/rng/*.cu "$root"/cuda/hash/*.cu "$root"/cuda/sparse/*.cu "$root"/cuda/codec/*.cu "$root"/cuda/engine/*.cu

count=PTX
[ -z "$cuobjdump" ] || count=SASS
printf '| kernel | threads | registers | spilled bytes | shared bytes | blocks on an SM | %s instructions |\n' "$count"
printf '|---|---|---|---|---|---|---|\n'
for file in "$@"; do
  [ -e "$file" ] || { echo "There is no $file." >&2; exit 1; }
  name=$(basename "$file" .cu)
  "$nvcc" -std=c++20 -O3 --fmad=false -I"$root/cuda" -I"$root/include" -I"$root/src" \
    -gencode "arch=compute_$architecture,code=sm_$architecture" -Xptxas -v --keep \
    --keep-dir "$work" -c "$file" -o "$work/$name.o" 2>"$work/$name.log" ||
    { cat "$work/$name.log" >&2; exit 1; }
  for ptx in "$work/$name".*ptx; do
    mv "$ptx" "$work/$name.kept"
  done
  if [ -n "$cuobjdump" ]; then
    # "Function : NAME", then lines of instructions that end in "; /* encoding */".
    "$cuobjdump" -sass "$work/$name.o" | awk '
      /Function : / { kernel = $NF }
      /;  *\/\*/ { count[kernel]++ }
      END { for (k in count) print k, count[k] }' >"$work/$name.count"
  else
    awk '
      /\.entry/ { kernel = $0; sub(/.*\.entry */, "", kernel); sub(/\(.*/, "", kernel) }
      /^\}/ { kernel = "" }
      kernel != "" && /^[ \t]+(@%?!?[a-z0-9]+ )?[a-z][a-z0-9_.:]*[ \t].*;/ && !/^[ \t]+\./ { count[kernel]++ }
      END { for (k in count) print k, count[k] }' "$work/$name.kept" >"$work/$name.count"
  fi
  awk '
    /\.entry/ { kernel = $0; sub(/.*\.entry */, "", kernel); sub(/\(.*/, "", kernel) }
    /^\.maxntid/ { gsub(/,/, ""); print kernel, $2 }' "$work/$name.kept" >"$work/$name.threads"
  awk '
    FILENAME ~ /count$/ { instructions[$1] = $2; next }
    FILENAME ~ /threads$/ { threads[$1] = $2; next }
    /Compiling entry function/ { split($0, part, "\047"); kernel = part[2] }
    /bytes spill stores/ { spilled = $0; sub(/.*frame, */, "", spilled); sub(/ bytes.*/, "", spilled) }
    /Used [0-9]+ registers/ {
      registers = $0; sub(/.*Used /, "", registers); sub(/ registers.*/, "", registers)
      shared = 0
      if ($0 ~ /bytes smem/) { shared = $0; sub(/ bytes smem.*/, "", shared); sub(/.* /, "", shared) }
      n = threads[kernel]
      blocks = "-"
      if (n != "") {
        # 65536 registers in steps of 8 a thread, 2048 threads, 227 KiB less 1 KiB for each block.
        per = int((registers + 7) / 8) * 8
        blocks = int(65536 / (per * n))
        if (blocks > int(2048 / n)) blocks = int(2048 / n)
        if (blocks > int(232448 / (shared + 1024))) blocks = int(232448 / (shared + 1024))
        if (blocks > 32) blocks = 32
      }
      printf "%s %s %s %s %s %s %s\n", kernel, n == "" ? "-" : n, registers, spilled, shared, blocks, instructions[kernel]
    }' "$work/$name.count" "$work/$name.threads" "$work/$name.log" |
    while read -r kernel threads registers spilled shared blocks instructions; do
      plain=$(printf '%s' "$kernel" | c++filt 2>/dev/null | sed 's/(anonymous namespace):://; s/covenant::cuda:://g; s/(.*//; s/^void //' || printf '%s' "$kernel")
      # shellcheck disable=SC2016 # the backticks are Markdown
      printf '| `%s` (%s) | %s | %s | %s | %s | %s | %s |\n' "$plain" "$name" "$threads" "$registers" "$spilled" "$shared" "$blocks" "$instructions"
    done
done
