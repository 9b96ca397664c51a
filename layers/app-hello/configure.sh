#!/bin/sh
# Puts the site in place of Debian's example. Runs again without harm.
set -eu
sed -i "s/@PORT@/$PORT/" /etc/nginx/sites-available/hello
ln -sf ../sites-available/hello /etc/nginx/sites-enabled/hello
rm -f /etc/nginx/sites-enabled/default
mkdir -p /srv/hello
printf '<!doctype html>\n<title>%s</title>\n<h1>%s</h1>\n' "$GREETING" "$GREETING" >/srv/hello/index.html
/usr/sbin/nginx -q -t
