#!/bin/sh
# Gives the tests a browser and a reader of papers, which pip has not: Debian's Chromium and Poppler.
set -eu
if command -v chromium >/dev/null && command -v pdftoppm >/dev/null; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing Debian's chromium and poppler-utils for the tests of certificates"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends chromium poppler-utils >/dev/null
else
    echo "chromium or pdftoppm is missing: install Debian's chromium and poppler-utils," \
        "or set COMITY_NO_BROWSER=1 to leave the tests in a browser out" >&2
fi
