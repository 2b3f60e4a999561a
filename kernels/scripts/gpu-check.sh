#!/bin/sh
# Builds the kernels with CUDA, runs ctest on the GPU (and under emulation), then the benchmarks G1 to
# G5 as far as there are programs for them, and writes results.json and results.md. Needs CMake, a
# C++20 compiler and nvcc; no Node, no Python.
#
#   kernels/scripts/gpu-check.sh OUTPUT_FOLDER [--build FOLDER] [--jobs N] [--quick] [--dry-run]
#
# --dry-run goes the same way on a machine without a GPU: emulated tests, emulated benchmarks of a
# tiny model, figures that mean nothing. --quick is a look, never a result to quote.
set -eu

source_dir=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
output='' build='' jobs='' quick='' dry=''

usage='Usage: gpu-check.sh OUTPUT_FOLDER [--build FOLDER] [--jobs N] [--quick] [--dry-run]'

fail() {
  printf '%s\n' "$1" >&2
  exit 1
}

while [ $# -gt 0 ]; do
  case $1 in
    --build) [ $# -ge 2 ] || fail "--build needs a folder."; build=$2; shift ;;
    --jobs)
      case ${2:-} in '' | 0* | *[!0-9]*) fail "--jobs needs a whole number above 0." ;; esac
      jobs=$2
      shift
      ;;
    --quick) quick=--quick ;;
    --dry-run) dry=yes ;;
    --help | -h)
      printf '%s\n' "$usage" "Builds, tests and measures the CUDA kernels; --dry-run goes the same way without a GPU."
      exit 0
      ;;
    -*) fail "Unknown option $1.
$usage" ;;
    *) [ -z "$output" ] || fail "One output folder, please."; output=$1 ;;
  esac
  shift
done
[ -n "$output" ] || fail "$usage"
mkdir -p "$output" || fail "The results cannot be written to $output."
[ -w "$output" ] || fail "The results cannot be written to $output."
output=$(CDPATH='' cd -- "$output" && pwd)
build=${build:-$output/build}
jobs=${jobs:-$(getconf _NPROCESSORS_ONLN)}

# --- what is there ---------------------------------------------------------------------------------

command -v cmake >/dev/null || fail "CMake 3.20 or newer is needed: apt-get install cmake."
nvcc=$(command -v nvcc || command -v /usr/local/cuda/bin/nvcc || true)
device=''
if command -v nvidia-smi >/dev/null; then
  device=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1 || true)
fi
if [ -z "$dry" ]; then
  [ -n "$nvcc" ] || fail "nvcc is not on PATH and not in /usr/local/cuda; install the CUDA toolkit, or use --dry-run."
  [ -n "$device" ] || fail "nvidia-smi shows no GPU on this machine; use --dry-run to go the same way without one."
fi
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1)
commit=$(git -C "$source_dir" rev-parse HEAD 2>/dev/null || echo unknown)
started=$(date -u +%Y-%m-%dT%H:%M:%SZ)
printf 'GPU: %s\nCUDA: %s\n' "${device:-none}" "${nvcc:-none}"

# --- build -------------------------------------------------------------------------------------------

cuda=ON
[ -n "$nvcc" ] || cuda=OFF
generator='Unix Makefiles'
command -v ninja >/dev/null && generator=Ninja
[ -z "$dry" ] || set -- -DCOVENANT_CUDA_ARCHITECTURES=90a
cmake -S "$source_dir" -B "$build" -G "$generator" -DCOVENANT_BUILD_NODE=OFF \
  "-DCOVENANT_BUILD_CUDA=$cuda" ${nvcc:+"-DCOVENANT_NVCC=$nvcc"} "$@" >"$output/configure.log" 2>&1 ||
  { cat "$output/configure.log" >&2; fail "The kernels could not be configured."; }
cmake --build "$build" --parallel "$jobs" --target tests_cuda benches_cuda >"$output/build.log" 2>&1 ||
  { tail -n 60 "$output/build.log" >&2; fail "The kernels could not be compiled."; }

# --- tests -------------------------------------------------------------------------------------------

# With a GPU a test that skips itself is a failure: the point is to run them there.
tests=passed
(cd "$build" && ctest -R '^cuda' --output-on-failure -j 2) >"$output/ctest.log" 2>&1 || tests=FAILED
# Those of several devices need two, and the stand-in for NCCL needs emulated ones.
devices=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true)
may_skip='cuda/parallel/nccl '
[ "${devices:-0}" -ge 2 ] || may_skip='cuda/parallel/'
if [ -z "$dry" ] && grep '^.*Test.*cuda/.*Skipped' "$output/ctest.log" | grep -qv "$may_skip"; then tests=FAILED; fi
total=$(sed -n 's/^.* tests passed, [0-9]* tests failed out of \([0-9]*\)$/\1/p' "$output/ctest.log")
skipped=$(grep -c 'Skipped *[0-9]' "$output/ctest.log" || true)
printf 'Tests: %s (%s, %s of them skipped)\n' "$tests" "${total:-0}" "${skipped:-0}"

# --- benchmarks --------------------------------------------------------------------------------------

rows=$output/rows.jsonl
: >"$rows"
benches=passed
suffix=''
library=$build/libcovenant_cuda.so
if [ -n "$dry" ]; then
  suffix=_emulated
  library=$build/libcovenant_cuda_emulated_library.so
fi
for source in "$source_dir"/cuda/bench/*.cc; do
  name=$(basename "$source" .cc)
  # Scaling needs several devices; without them it prints no rows.
  emulated=1
  [ "$name" != scaling_bench ] || emulated=2
  COVENANT_EMULATED_DEVICES=$emulated COVENANT_CUDA_LIBRARY=$library \
    "$build/bench_cuda_$name$suffix" --json $quick >>"$rows" 2>"$output/$name.log" ||
    { benches=FAILED; cat "$output/$name.log" >&2; }
done
printf 'Benchmarks: %s\n' "$benches"

# --- results -----------------------------------------------------------------------------------------

# Reads rows (one JSON object a line, written by rows.h) and writes them judged, as JSON or Markdown.
judge() {
  awk -v form="$1" '
    function field(name,    rest) {
      if (!match($0, "\"" name "\":")) return ""
      rest = substr($0, RSTART + RLENGTH)
      if (substr(rest, 1, 1) == "\"") {
        rest = substr(rest, 2)
        return substr(rest, 1, index(rest, "\"") - 1)
      }
      sub(/[,}].*/, "", rest)
      return rest
    }
    function meets(bound,    judged) {
      if (bound == "null") return "null"
      judged = field("judgeValue") == "true" ? field("value") : field("ratio")
      if (judged == "null") return "null"
      if (field("lowerIsBetter") == "true") return (judged + 0 <= bound + 0) ? "true" : "false"
      return (judged + 0 >= bound + 0) ? "true" : "false"
    }
    form == "json" {
      row = $0
      sub(/,"lowerIsBetter".*/, "", row)
      printf("%s    %s,\"meetsMust\":%s,\"meetsAim\":%s}", (NR > 1 ? ",\n" : ""), row,
        meets(field("must")), meets(field("aim")))
    }
    form == "markdown" {
      printf("| %s | %s | %s %s | %s %s | %s | %s | %s | %s |\n", field("id"), field("metric"),
        field("value"), field("unit"), field("yardstick"), field("yardstickValue"), field("ratio"),
        field("must"), field("aim"), meets(field("must")))
    }
    END { if (form == "json" && NR > 0) printf "\n" }
  ' "$rows"
}

machine="${device:-no GPU}; ${processor:-unknown processor}"
{
  printf '{\n  "commit": "%s",\n  "machine": "%s",\n  "startedAt": "%s",\n' "$commit" "$machine" "$started"
  printf '  "tests": "%s",\n  "dryRun": %s,\n  "rows": [\n' "$tests" "$([ -n "$dry" ] && echo true || echo false)"
  judge json
  printf '  ]\n}\n'
} >"$output/results.json"
{
  printf '# Kernels on a GPU\n\n'
  [ -z "$dry" ] || printf 'A dry run under emulation: the figures mean nothing.\n\n'
  [ -z "$quick" ] || printf 'A quick look, not a result to quote.\n\n'
  printf 'Commit %s on %s, %s. Tests: %s.\n\n' "$commit" "$machine" "$started" "$tests"
  printf '| id | what | value | yardstick | ratio | must | aim | meets must |\n|---|---|---|---|---|---|---|---|\n'
  judge markdown
} >"$output/results.md"
printf 'Results: %s/results.json and %s/results.md\n' "$output" "$output"
[ "$tests" = passed ] && [ "$benches" = passed ]
