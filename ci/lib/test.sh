#!/bin/sh
# ci/lib/test.sh VMM host|sandbox: runs 'vmm test' and ends with its exit code (docs/exit-codes.md).
#
# What to test, by variables; where one has several lines, blank ones and those that begin with # do not count:
#   VMM_KERNEL, VMM_INITRAMFS   files
#   VMM_TESTS      test files, one on a line; patterns are expanded
#   VMM_ARGS       options, one on a line: its name, a blank, and its value as it is, without quotes: --expect login: ?$
#   VMM_FILES      for the sandbox: other files and directories that tests need, one on a line; they are there under the same paths
#   VMM_JOBS       how many tests run at once
#   VMM_JUNIT, VMM_JSON, VMM_LOGS   where reports go: vmm-reports/junit.xml, vmm-reports/results.json, vmm-reports/logs
#   VMM_GITHUB     on, off or auto: annotations and the job's summary
# Paths are relative to the directory where this is called.
# On GitHub, the step's outputs are "exit-code", "junit", "json" and "logs".
set -eu
. "$(dirname "$0")/common.sh"

[ $# -eq 2 ] || wrong "usage: ci/lib/test.sh VMM host|sandbox"
vmm=$1
where=$2
case $where in host | sandbox) ;; *) wrong "'$where' is neither host nor sandbox." ;; esac
junit=${VMM_JUNIT:-vmm-reports/junit.xml}
json=${VMM_JSON:-vmm-reports/results.json}
logs=${VMM_LOGS:-vmm-reports/logs}
github=${VMM_GITHUB:-auto}
[ "$github" != auto ] || { [ "${GITHUB_ACTIONS:-}" = true ] && github=on || github=off; }
for path in "$junit" "$json" "$logs"; do
    # In vmm's grammar these end a value.
    case $path in *[]\[,\"=:]* | '') wrong "'$path' is no path for a report: it must not be empty, nor have commas, colons, quotes, brackets or equal signs." ;; esac
done
[ "$junit" != "$json" ] || wrong "the JUnit and the JSON report cannot both be $junit."
newline='
'

# The lines of a variable that count, without blanks around them.
lines() { printf '%s\n' "$1" | sed -e 's/^[[:space:]]*//' -e 's/[[:space:]]*$//' -e '/^$/d' -e '/^#/d'; }

# What the sandbox needs, as its options; a path with a colon cannot be said to it.
taken=
take() {
    [ -e "$1" ] || wrong "there is no $1."
    case $1 in *:*) [ "$where" = host ] || wrong "$1 has a colon in its name, which the sandbox cannot take; rename it." ;; esac
    taken=$taken$1$newline
}

# From here on "$@" is the command line of vmm test.
set -- test
if [ -n "${VMM_TESTS:-}" ]; then
    old_ifs=$IFS
    IFS=$newline
    # Patterns are expanded; nothing is split at blanks.
    for file in $(lines "$VMM_TESTS"); do
        take "$file"
        set -- "$@" "$file"
    done
    IFS=$old_ifs
fi
if [ -n "${VMM_KERNEL:-}" ]; then
    take "$VMM_KERNEL"
    set -- "$@" --kernel "$VMM_KERNEL"
fi
if [ -n "${VMM_INITRAMFS:-}" ]; then
    take "$VMM_INITRAMFS"
    set -- "$@" --initramfs "$VMM_INITRAMFS"
fi
while IFS= read -r line; do
    case $line in
        '') continue ;;
        -*) ;;
        *) wrong "'$line' is no option: each line of the arguments is an option and its value; test files have their own place." ;;
    esac
    option=${line%%[[:space:]]*}
    set -- "$@" "$option"
    if [ "$option" != "$line" ]; then
        value=${line#"$option"}
        set -- "$@" "${value#"${value%%[![:space:]]*}"}"
    fi
done <<END
$(lines "${VMM_ARGS:-}")
END
[ -z "${VMM_JOBS:-}" ] || set -- "$@" --jobs "$VMM_JOBS"
[ $# -gt 1 ] || wrong "there is nothing to test: give a kernel, or test files."
set -- "$@" --report "dir=$logs,junit=$junit,json=$json,github=$github,progress=plain"

# A job that is cancelled ends this shell; vmm is told, writes its reports, and is waited for.
run() {
    "$@" </dev/null &
    child=$!
    trap 'kill -TERM $child 2>/dev/null || true' INT TERM HUP
    code=0
    wait $child || code=$?
    while kill -0 $child 2>/dev/null; do
        code=0
        wait $child || code=$?
    done
    trap - INT TERM HUP
}

# The pipeline's variables are not vmm's own, which takes each VMM_... for a part of its configuration.
on_host() {
    unset VMM_SOURCE VMM_REPOSITORY VMM_REF VMM_BINARY VMM_SHA256 VMM_KVM VMM_KVM_DEVICE VMM_UDEV_RULES VMM_SANDBOX \
        VMM_KERNEL VMM_INITRAMFS VMM_TESTS VMM_ARGS VMM_FILES VMM_JOBS VMM_JUNIT VMM_JSON VMM_LOGS VMM_GITHUB
    run "$vmm" "$@"
}

# A word for the shell of the sandbox.
quoted() { printf "'%s' " "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

in_sandbox() {
    . "$ci_repository/scripts/lib/packages.sh"
    packages_install sandbox || fail "the sandbox needs these packages."
    if [ -z "${VMM_SANDBOX:-}" ]; then
        require_dotnet || fail "the sandbox is a .NET program."
    fi
    "$ci_repository/tests/sandbox/build" light >/dev/null || fail "the sandbox's image cannot be made (above)."
    stage=$(mktemp -d)
    trap 'rm -rf "$stage"' EXIT
    here=$(pwd)

    # Reports are links into one directory, which is copied out whatever happens: those that are there are worth having.
    out=/run/vmm-ci/out
    {
        printf 'mkdir -p %s/logs %s\n' "$out" "$(quoted "$here")"
        printf 'cd %s\n' "$(quoted "$here")"
        for pair in "$junit:junit.xml" "$json:results.json" "$logs:logs"; do
            printf 'mkdir -p %s && ln -sfn %s %s\n' "$(quoted "$(dirname "${pair%:*}")")" "$out/${pair##*:}" "$(quoted "${pair%:*}")"
        done
        [ -z "${GITHUB_STEP_SUMMARY:-}" ] || printf 'export GITHUB_STEP_SUMMARY=%s/summary.md\n' "$out"
        printf 'exec /run/vmm-ci/vmm '
        for word in "$@"; do quoted "$word"; done
        printf '\n'
    } > "$stage/run.sh"
    mkdir "$stage/out"

    # One processor: KVM patches the sandbox's kernel whenever a machine comes or goes, which QEMU's emulation of several does not always survive.
    set -- run --cpus 1 --copy-in "$vmm:/run/vmm-ci/vmm" --copy-in "$stage/run.sh:/run/vmm-ci/run.sh"
    while IFS= read -r path; do
        [ -n "$path" ] || continue
        # The file itself, where it is a link, under the name that tests know it by.
        set -- "$@" --copy-in "$(readlink -f -- "$path"):$(absolute "$path")"
    done <<END
$taken
END
    set -- "$@" --copy-out "$out:$stage/out" -- "sh /run/vmm-ci/run.sh"
    if [ -n "${VMM_SANDBOX:-}" ]; then
        run "$VMM_SANDBOX" "$@"
    else
        say "starting the sandbox"
        run dotnet run --project "$ci_repository/tests/sandbox" -c Release -v quiet -- "$@"
    fi

    for pair in "$junit:junit.xml" "$json:results.json"; do
        if [ -f "$stage/out/${pair##*:}" ]; then
            mkdir -p "$(dirname "${pair%:*}")"
            mv -f "$stage/out/${pair##*:}" "${pair%:*}"
        fi
    done
    mkdir -p "$logs"
    cp -R "$stage/out/logs/." "$logs/"
    [ ! -f "$stage/out/summary.md" ] || cat "$stage/out/summary.md" >> "$GITHUB_STEP_SUMMARY"
}

if [ "$where" = sandbox ]; then
    if [ -n "${VMM_FILES:-}" ]; then
        old_ifs=$IFS
        IFS=$newline
        for file in $(lines "$VMM_FILES"); do take "$file"; done
        IFS=$old_ifs
    fi
    in_sandbox "$@"
else
    on_host "$@"
fi

output exit-code "$code"
output junit "$junit"
output json "$json"
output logs "$logs"
exit "$code"
