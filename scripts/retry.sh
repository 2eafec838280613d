# Sourced by scripts that download. retry COMMAND...: runs it again after a failure, three times in all, with a pause
# that grows; says which attempt failed. A failure of the last attempt is the caller's.
retry() {
    _attempt=1
    until "$@"; do
        if [ $_attempt -ge 3 ]; then
            echo "gave up after $_attempt attempts: $*" >&2
            return 1
        fi
        echo "attempt $_attempt of 3 failed, again in $((_attempt * 10)) s: $*" >&2
        sleep $((_attempt * 10))
        _attempt=$((_attempt + 1))
    done
}
