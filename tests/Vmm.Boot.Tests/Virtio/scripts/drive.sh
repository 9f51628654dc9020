#!/bin/sh
# drive.sh COMMAND...: runs a VMM whose guest's console is the command's standard input and output, and prints what it says.
#
# The guest may ask: it prints "VMM-ASK a shell command", which is run here with $pid as the VMM's process; the first line of what
# that prints is typed at the guest's console. The last line is "VMM-CODE N", the VMM's exit code.
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
mkfifo "$directory/keyboard"
exec 3<>"$directory/keyboard"
carriage_return=$(printf '\r')
{
    sh -c 'directory=$1; shift; echo $$ > "$directory/pid"; exec "$@"' sh "$directory" "$@" < "$directory/keyboard" 3>&- 2>&1
    echo "VMM-CODE $?"
} | while IFS= read -r line; do
    line=${line%"$carriage_return"}
    printf '%s\n' "$line"
    case $line in
        "VMM-ASK "*)
            answer=$(pid=$(cat "$directory/pid") sh -c "${line#VMM-ASK }" 3>&- </dev/null 2>&1 | head -n 1)
            printf '%s\n' "$answer" >&3 ;;
    esac
done
