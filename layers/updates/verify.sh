#!/bin/sh
# Nothing is half installed, and what every command rests on still works.
set -eu
broken=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' | grep -v '^ii ' || true)
[ -z "$broken" ] || { echo "not installed whole: $broken" >&2; exit 1; }
dpkg --audit
/usr/sbin/sshd -t
test -s /vmlinuz
test -s /initrd.img
