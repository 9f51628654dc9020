# What the scripts of ci/lib have in common. To be sourced; sets ci_repository, the directory of vmm's own repository.

# shellcheck disable=SC2034 # by those that source it
ci_repository=$(cd "$(dirname "$0")/../.." && pwd)

# say TEXT...: a line for people. Standard output is for results.
say() { printf 'ci: %s\n' "$*" >&2; }

# fail TEXT...: the same, and the end. 1 is what vmm too ends with where the host is at fault.
fail() {
    say "$@"
    exit 1
}

# wrong TEXT...: wrong use.
wrong() {
    say "$@"
    exit 2
}

# output NAME VALUE: a result of a step, where the CI system takes such; the value is one line.
output() {
    [ -z "${GITHUB_OUTPUT:-}" ] || printf '%s=%s\n' "$1" "$2" >> "$GITHUB_OUTPUT"
}

# absolute PATH: with the directory where we are, where it has none.
absolute() {
    case $1 in
        /*) printf '%s\n' "$1" ;;
        *) printf '%s/%s\n' "$(pwd)" "${1#./}" ;;
    esac
}
