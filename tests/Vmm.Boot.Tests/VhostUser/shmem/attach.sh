#!/bin/sh
# attach.sh DIRECTORY BACK-END VMM...: runs a back-end for tests (a shell line), and a VMM that is attached to it, as drive.sh does.
#
# Both run in DIRECTORY. What a guest asks there may use host.sh. The last lines are what the back-end thought of the VMM, "BACK-END ...", and
# the VMM's last counters, "METRICS ...".
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && cd "$1" || exit 1
back_end=$2
shift 2
cp "$here/host.sh" .
rm -f commands answers socket metrics
mkfifo commands answers
exec 8<>commands 9<>answers
sh -c "exec $back_end" < commands > answers 2> trace 8>&- 9>&- &
echo $! > back-end.pid
# Says it also when it cannot: then it has ended.
until read -r -t 5 ready <&9; do
    kill -0 $! 2>/dev/null || { echo "BACK-END does not start: $(tail -n 3 trace)"; exit 1; }
done
sh "$here/drive.sh" "$@" 8>&- 9>&-
if kill -0 $! 2>/dev/null; then
    . ./host.sh
    echo "BACK-END $(tool violations)"
    kill -9 $!
fi
echo "METRICS $(tail -n 1 metrics)"
