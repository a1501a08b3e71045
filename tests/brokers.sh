# The stage `brokers` of tests/run: puts the real brokers and the clients that read them back where the tests find them.
#
# Debian packages bring RabbitMQ, kcat, Java and Maven; NATS comes from its Go module, Kafka from Maven, the Python clients
# from pip. What is here already is left alone, so that a second run takes a second; delete a folder below
# $HOOKBUS_TEST_BROKERS to have its newest again. Nothing is started here: the tests start their brokers themselves.

readonly KAFKA_VERSION=4.3.1
readonly KAFKA_MODULES="org.apache.kafka:kafka_2.13:$KAFKA_VERSION org.slf4j:slf4j-simple:1.7.36"
readonly PYTHON_PACKAGES="nats-py==2.16.0 pika==1.4.4"
readonly JAVA_MAJOR_MIN=17
# What nats-server wants is fetched where Go is new enough to do that itself; an older Go fetches this one first.
readonly GO_MINOR_WITH_TOOLCHAINS=21
readonly GO_TOOLCHAIN=1.26.1

stage_brokers() {
    if [ "$(uname -s)" != Linux ]; then
        say "the brokers are installed and started on Linux only"
        return 1
    fi
    mkdir -p "$HOOKBUS_TEST_BROKERS"
    brokers_packages
    brokers_nats
    brokers_kafka
    brokers_python
    say "brokers: $HOOKBUS_TEST_BROKERS"
}

java_major() { java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1; }

brokers_packages() {
    local missing=() java
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing+=(rabbitmq-server)
    have kcat || missing+=(kcat)
    java="$(have java && java_major || true)"
    [ "${java:-0}" -ge "$JAVA_MAJOR_MIN" ] || missing+=(default-jre-headless)
    if [ "$(stamp_of kafka)" != "$KAFKA_MODULES" ]; then
        have mvn || missing+=(maven)
    fi
    if [ "$(stamp_of python)" != "$PYTHON_PACKAGES" ]; then
        python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    fi
    if [ ! -x "$HOOKBUS_TEST_BROKERS/bin/nats-server" ]; then
        have go || missing+=(golang-go)
    fi
    install_packages "${missing[@]}"
    java="$(java_major)"
    if [ "${java:-0}" -lt "$JAVA_MAJOR_MIN" ]; then
        say "java is version ${java:-unknown}, and Kafka $KAFKA_VERSION needs $JAVA_MAJOR_MIN or newer: install one and put it first in PATH"
        return 1
    fi
    say "rabbitmq-server $(dpkg-query -W -f '${Version}' rabbitmq-server 2>/dev/null || say '(not a package)'), java $java"
}

# What a folder was filled with.
stamp_of() { cat "$HOOKBUS_TEST_BROKERS/$1/.filled-with" 2>/dev/null || true; }

# Fills a folder at once or not at all: `fill FOLDER STAMP COMMAND…` runs the command with a new folder as its last argument.
fill() {
    local folder="$HOOKBUS_TEST_BROKERS/$1" stamp="$2"
    shift 2
    rm -rf "$folder.new"
    mkdir -p "$folder.new"
    "$@" "$folder.new"
    printf '%s\n' "$stamp" >"$folder.new/.filled-with"
    rm -rf "$folder"
    mv "$folder.new" "$folder"
}

brokers_nats() {
    if [ ! -x "$HOOKBUS_TEST_BROKERS/bin/nats-server" ]; then
        say "building the newest nats-server (once)"
        fill bin "nats-server" build_nats
    fi
    "$HOOKBUS_TEST_BROKERS/bin/nats-server" --version
}

# The work is done in a folder of its own, which Go makes read-only.
build_nats() {
    local into="$1" work status=0
    work="$(mktemp -d)"
    (
        export GOPATH="$work/path" GOMODCACHE="$work/modules" GOCACHE="$work/cache" GOFLAGS="-modcacherw"
        # Distributions switch this off.
        export GOTOOLCHAIN=auto
        cd "$work"
        go="$(new_go "$work")"
        GOBIN="$into" env -u GOROOT "$go" install github.com/nats-io/nats-server/v2@latest
    ) || status=$?
    chmod -R u+w "$work"
    rm -rf "$work"
    if [ "$status" -ne 0 ]; then
        say "nats-server could not be built; see above, and try again or put one into $HOOKBUS_TEST_BROKERS/bin"
    fi
    return "$status"
}

# The Go that can build: this machine's where it gets a newer one by itself, else one from the module of toolchains.
new_go() {
    local minor toolchain
    minor="$(go version | sed -n 's/.* go1\.\([0-9]*\).*/\1/p')"
    if [ "${minor:-0}" -ge "$GO_MINOR_WITH_TOOLCHAINS" ]; then
        say go
        return
    fi
    toolchain="golang.org/toolchain@v0.0.1-go$GO_TOOLCHAIN.linux-$(go env GOARCH)"
    go mod download "$toolchain" >&2
    toolchain="$GOMODCACHE/$toolchain"
    # A module's files are not executable.
    chmod -R u+w "$toolchain"
    chmod u+x "$toolchain"/bin/* "$toolchain"/pkg/tool/*/*
    say "$toolchain/bin/go"
}

brokers_kafka() {
    if [ "$(stamp_of kafka)" != "$KAFKA_MODULES" ]; then
        say "fetching Kafka $KAFKA_VERSION (once)"
        fill kafka "$KAFKA_MODULES" fetch_kafka
    fi
    say "kafka $KAFKA_VERSION"
}

fetch_kafka() {
    local into="$1" work module group artifact version status=0
    work="$(mktemp -d)"
    {
        say '<project><modelVersion>4.0.0</modelVersion>'
        say '<groupId>hookbus.tests</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>'
        for module in $KAFKA_MODULES; do
            IFS=: read -r group artifact version <<<"$module"
            say "<dependency><groupId>$group</groupId><artifactId>$artifact</artifactId><version>$version</version></dependency>"
        done
        say '</dependencies></project>'
    } >"$work/pom.xml"
    mvn -q -B -Dstyle.color=never -f "$work/pom.xml" \
        dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$into" || status=$?
    rm -rf "$work"
    if [ "$status" -ne 0 ]; then say "Kafka could not be fetched by Maven; see above, and try again"; fi
    return "$status"
}

brokers_python() {
    if [ "$(stamp_of python)" != "$PYTHON_PACKAGES" ]; then
        say "installing the Python clients (once): $PYTHON_PACKAGES"
        # A virtual environment cannot be moved, so this folder is filled in its place and stamped last.
        local folder="$HOOKBUS_TEST_BROKERS/python"
        rm -rf "$folder"
        python3 -m venv "$folder"
        # shellcheck disable=SC2086 # one argument a package
        if ! "$folder/bin/python" -m pip install --quiet --disable-pip-version-check $PYTHON_PACKAGES; then
            say "the Python clients could not be installed by pip; see above, and try again"
            return 1
        fi
        printf '%s\n' "$PYTHON_PACKAGES" >"$folder/.filled-with"
    fi
    say "python clients: $PYTHON_PACKAGES"
}
