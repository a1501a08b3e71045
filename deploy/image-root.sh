#!/bin/sh
# Lays out the root file system of the image: the program, the libraries that it is linked to, the certificates of public
# authorities, and nothing else. The Dockerfile runs it; so does a test, which then runs the program in there.
#
#   image-root.sh PROGRAM FOLDER
set -eu
umask 022

program=$1
root=$2
certificates=/etc/ssl/certs/ca-certificates.crt

if ! [ -f "$certificates" ]; then
    echo "$certificates is missing: install ca-certificates" >&2
    exit 1
fi

linked=$(ldd "$program")
case $linked in
*"not found"*)
    echo "a library of $program is missing: $linked" >&2
    exit 1
    ;;
esac

install -D -m 755 "$program" "$root/usr/bin/hookbus"
# "libssl.so.3 => /lib/…/libssl.so.3 (0x…)", and the loader by its path alone.
echo "$linked" | tr ' \t' '\n\n' | grep '^/' | while read -r library; do
    install -D -m 755 "$library" "$root$library"
done
install -D -m 644 "$certificates" "$root$certificates"
# Names as everywhere: first /etc/hosts, which the container's host provides, then DNS.
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
# What the volume for the data is mounted in.
mkdir -p "$root/var/lib"
