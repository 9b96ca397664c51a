#!/bin/bash
# Starts the service as the deployed machine will, reads both pages over the network, and stops it again.
set -eu
[ "$(systemctl is-enabled nginx)" = enabled ]
systemctl start nginx
trap 'systemctl stop nginx; rm -f /var/log/nginx/*.log' EXIT
get() {
  exec 3<>"/dev/tcp/127.0.0.1/$PORT"
  printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$1" >&3
  cat <&3
  exec 3>&-
}
page=$(get /)
case $page in
  *"200 OK"*"<h1>$GREETING</h1>"*) ;;
  *) echo "the front page is not as configured:" >&2; echo "$page" >&2; exit 1 ;;
esac
case $(get /health) in
  *"200 OK"*ok*) ;;
  *) echo "/health does not answer" >&2; exit 1 ;;
esac
systemctl is-active --quiet nginx
