#!/bin/sh
# Runs one workload and outlives the node agent: the exit status is left in a file, where the next
# agent finds it. Usage: shim.sh DIRECTORY COMMAND [ARGUMENT...]
#
# DIRECTORY/pids  "<pid of this shell> <its start, clock ticks since boot> <pid of the workload>"
# DIRECTORY/times processor time of the workload and its children, as the shell's `times` prints it
# DIRECTORY/exit  exit status of the workload; above 128: 128 + number of the signal that ended it
directory=$1
shift
# Signals go to the whole process group; this shell only waits for what the workload makes of them.
trap : TERM INT HUP
"$@" </dev/null &
child=$!
start=$(cut -d ' ' -f 22 "/proc/$$/stat")
echo "$$ $start $child" >"$directory/pids.new" && mv "$directory/pids.new" "$directory/pids"
while :; do
  wait "$child"
  status=$?
  # A signal to this shell ends the wait early, while the workload still lives.
  kill -0 "$child" 2>/dev/null || break
done
times >"$directory/times"
echo "$status" >"$directory/exit.new" && mv "$directory/exit.new" "$directory/exit"
