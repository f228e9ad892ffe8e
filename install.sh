#!/bin/sh
# Installs packages into /opt/venv of an image; called by the Dockerfiles.
#   install.sh requirements FILE         installs exactly the packages pinned in FILE, without their dependencies
#   install.sh package NAME DIRECTORY... installs a workspace package and its dependencies as locked, by version and hash
# DEVICE=cpu removes the CUDA libraries that torch loads only on GPUs. EXTRAS adds options, such as "--extra gpu".
set -eu
certificates=/etc/ssl/certs/ca-certificates.crt
[ ! -e "$certificates" ] || export SSL_CERT_FILE="$certificates" PIP_CERT="$certificates"
export UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_HTTP_TIMEOUT=300 VIRTUAL_ENV=/opt/venv
[ -x /opt/uv/bin/uv ] || { python3 -m venv /opt/uv && /opt/uv/bin/pip install -q --no-cache-dir uv==0.13.8; }
if [ ! -x /opt/venv/bin/python ]; then
    python3 -m venv /opt/venv
    # Public images lack bytecode of the standard library, and pods cannot write it. Compiling it here saves a third of
    # each start.
    python3 -m compileall -q -x '/(site-packages|dist-packages|tests?)/' \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
fi
id finetune >/dev/null 2>&1 || useradd --uid 65532 --create-home finetune

# Removes the CUDA libraries that torch is not linked to. It cannot be imported without the others.
prune() {
    [ "${DEVICE:-gpu}" = cpu ] || return 0
    for name in cudnn_ cusolver nvrtc.alt nvrtc-builtins nvperf cufftw nvblas; do
        find /opt/venv/lib/python3*/site-packages/nvidia -name "lib$name*" -delete
    done
    find /opt/venv/lib/python3*/site-packages/nvidia -name '*.a' -delete
    /opt/venv/bin/python -c 'import torch'
}

case "$1" in
requirements)
    cd "$(dirname "$2")"
    /opt/uv/bin/uv pip install -q --no-deps -r "$2"
    prune
    ;;
package)
    name=$2
    export UV_NO_CACHE=1
    shift 2
    # shellcheck disable=SC2086 -- EXTRAS is a list of options
    /opt/uv/bin/uv export -q --frozen --no-dev --no-emit-workspace --package "$name" ${EXTRAS:-} \
        -o /tmp/requirements.txt
    /opt/uv/bin/uv pip install -q --no-deps -r /tmp/requirements.txt
    /opt/uv/bin/uv pip install -q --no-deps "$@"
    rm -f /tmp/requirements.txt
    prune
    ;;
esac
