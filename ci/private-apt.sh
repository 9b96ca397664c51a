# shellcheck shell=bash
# An apt of one's own below $apt_root: the host's sources, preferences and installed packages play no part.
# Sourced by the scripts that make media.

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=${GILT_DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${GILT_DEBIAN_SECURITY:-http://deb.debian.org/debian-security}

# private_apt_begin ROOT: makes the folders and names the sources of Debian 12 with its updates.
private_apt_begin() {
  apt_root=$1
  [ -e "$keyring" ] || { echo "needs $keyring (package debian-archive-keyring): run ci/setup" >&2; exit 1; }
  mkdir -p "$apt_root"/{lists/partial,archives/partial,empty}
  cat >"$apt_root/sources.list" <<EOF
deb [signed-by=$keyring] $mirror bookworm main
deb [signed-by=$keyring] $mirror bookworm-updates main
deb [signed-by=$keyring] $security bookworm-security main
EOF
  : >"$apt_root/status"
}

# private_apt PROGRAM ARGUMENTS…: apt-get or apt-cache with that configuration. $apt_root/status is what is installed.
private_apt() {
  local program=$1
  shift
  "$program" -qq -o Dir::Etc::SourceList="$apt_root/sources.list" -o Dir::Etc::SourceParts="$apt_root/empty" \
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts="$apt_root/empty" \
    -o Dir::State::Lists="$apt_root/lists" -o Dir::State::status="$apt_root/status" \
    -o Dir::Cache="$apt_root" -o Dir::Cache::Archives="$apt_root/archives" \
    -o APT::Sandbox::User="" -o APT::Architecture=amd64 -o Debug::NoLocking=1 -o APT::Install-Recommends=0 \
    -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}
