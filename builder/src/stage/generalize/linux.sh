#!/bin/sh
# Makes a Linux guest fit to be an image: takes out what belongs to this one machine and to the
# build, then powers off. Run as root over the build's own connection; the host proves the result
# from the powered-off disk afterwards.
#
#   BUILD_USER  the build account, removed at the end
#   BUILD_KEYS  the base64 parts of the build's public keys, separated by blanks
#   BUILD_DNS   the resolver a build's network has, known to no other network
#   KEEP        names of steps to leave out, separated by blanks
set -eu

kept() { case " ${KEEP:-} " in *" $1 "*) return 0 ;; esac; return 1; }
step() { printf 'generalize: %s\n' "$1"; }

# From here on the journal lives in memory; what is removed below is not written again.
if ! kept logs && [ -d /run/systemd/system ]; then
    step "journal to memory"
    mkdir -p /run/systemd/journald.conf.d
    printf '[Journal]\nStorage=volatile\n' > /run/systemd/journald.conf.d/gilt.conf
    systemctl restart systemd-journald
    # Both write their files when they stop; stopped now, they do not at power-off.
    systemctl stop systemd-random-seed.service systemd-update-utmp.service 2>/dev/null || true
fi

if ! kept cloud-init && command -v cloud-init >/dev/null 2>&1; then
    step "cloud-init state"
    cloud-init clean --logs --seed || cloud-init clean --logs
fi

if ! kept ssh-host-keys; then
    step "SSH host keys"
    rm -f /etc/ssh/ssh_host_*
    # Debian makes host keys only when the package is installed. Without a unit that does it at
    # boot, one is added, so that each machine made of the image gets keys of its own.
    if [ -d /run/systemd/system ] && [ -x /usr/sbin/sshd ] &&
        ! grep -rqs ssh-keygen /etc/systemd/system /usr/lib/systemd/system /lib/systemd/system; then
        cat > /etc/systemd/system/gilt-ssh-host-keys.service <<'UNIT'
[Unit]
Description=Make this machine's SSH host keys
Before=ssh.service sshd.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
ExecStart=-/usr/bin/ssh-keygen -q -t ecdsa -N "" -f /etc/ssh/ssh_host_ecdsa_key

[Install]
WantedBy=multi-user.target
UNIT
        mkdir -p /etc/systemd/system/multi-user.target.wants
        ln -sf ../gilt-ssh-host-keys.service \
            /etc/systemd/system/multi-user.target.wants/gilt-ssh-host-keys.service
    fi
fi

if ! kept leases; then
    step "leases and network state"
    rm -rf /var/lib/dhcp/* /var/lib/NetworkManager/*.lease /var/lib/NetworkManager/secret_key \
        /var/lib/systemd/network/* /etc/udev/rules.d/70-persistent-*.rules
    # A link belongs to a service that fills it anew; a file was filled by the last lease.
    if [ -n "${BUILD_DNS:-}" ] && [ -f /etc/resolv.conf ] && [ ! -L /etc/resolv.conf ]; then
        sed -i "/^nameserver $BUILD_DNS\$/d" /etc/resolv.conf
    fi
fi

if ! kept caches; then
    step "package caches"
    if command -v apt-get >/dev/null 2>&1; then
        apt-get clean
        rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/lib/dpkg/*-old \
            /var/lib/apt/periodic/* /var/lib/apt/listchanges*
        mkdir -p /var/lib/apt/lists/partial
    fi
    rm -f /var/cache/ldconfig/aux-cache
    if command -v dnf >/dev/null 2>&1; then dnf clean all; fi
fi

if ! kept tmp; then
    step "temporary files"
    find /tmp /var/tmp -xdev -mindepth 1 -delete 2>/dev/null || true
fi

if ! kept history; then
    step "histories"
    for home in /root /home/*; do
        rm -f "$home/.bash_history" "$home/.ash_history" "$home/.zsh_history" "$home/.python_history" \
            "$home/.lesshst" "$home/.viminfo" "$home/.wget-hsts"
    done
fi

if ! kept random-seed; then
    step "random seed"
    rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret \
        /boot/efi/loader/random-seed
fi

if ! kept machine-id; then
    step "machine-id"
    # Empty, not absent: systemd then makes one at boot and keeps it (machine-id(5)).
    : > /etc/machine-id
    chmod 444 /etc/machine-id
    [ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
fi

if ! kept logs; then
    step "logs"
    rm -rf /var/log/journal/* /var/log/installer
    find /var/log -xdev -type f \( -name '*.gz' -o -name '*.[0-9]' -o -name '*.old' \) -delete
    find /var/log -xdev -type f -exec truncate -s 0 {} +
    rm -f /var/log/wtmp /var/log/btmp /var/log/lastlog /var/lib/systemd/coredump/*
fi

if [ -n "${BUILD_USER:-}" ] && [ "$BUILD_USER" != root ]; then
    step "build account $BUILD_USER"
    home=$(getent passwd "$BUILD_USER" | cut -d: -f6)
    for file in passwd shadow group gshadow subuid subgid; do
        for name in "/etc/$file" "/etc/$file-"; do
            [ -f "$name" ] && sed -i "/^$BUILD_USER:/d" "$name"
        done
    done
    rm -f "/etc/sudoers.d/$BUILD_USER" "/var/mail/$BUILD_USER" "/var/spool/cron/crontabs/$BUILD_USER"
    case "$home" in /?*) [ "$home" = / ] || [ "$home" = /root ] || rm -rf -- "$home" ;; esac
fi
# The build's own keys go from whichever account got them; others were put there by a layer and stay.
for keys in /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys; do
    [ -f "$keys" ] || continue
    for key in ${BUILD_KEYS:-}; do
        { grep -vF "$key" "$keys" || true; } > "$keys.gilt" && cat "$keys.gilt" > "$keys"
        rm -f "$keys.gilt"
    done
    [ -s "$keys" ] || rm -f "$keys"
done
rmdir /root/.ssh 2>/dev/null || true

# What the build put beside the system carries its name: its network, its SSH settings, its units.
step "files of the build"
find /etc /usr/local /usr/lib/systemd /var/lib /root -xdev -depth -name '*gilt-build*' -exec rm -rf -- {} + 2>/dev/null || true

step "power off"
sync
if [ -d /run/systemd/system ]; then systemctl --no-block poweroff; else poweroff; fi
