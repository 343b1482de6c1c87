# On the build machine, as root: lays down the root filesystem and what starts it. Nothing is installed from anywhere.
here=/tmp/supafly root=/usr/lib/supafly/rootfs
echo "$ROOTFS_SHA256  $here/rootfs.tar.gz" | sha256sum --check --quiet
install -d -m 0755 /usr/lib/supafly "$root" /data /etc/sysusers.d
install -d -m 0700 /etc/supafly
tar --extract --gzip --file "$here/rootfs.tar.gz" --directory "$root" --numeric-owner --same-permissions --xattrs
echo "$ROOTFS_SHA256" > /usr/lib/supafly/rootfs.sha256

# The users of the stack get the same numbers on the host, for no other user may have them: whoever has the number has the
# files. A system user of the host that has one moves away; its processes of the build end with the build.
move() { # move passwd|group NAME ID
  new=899
  while getent passwd "$new" || getent group "$new"; do new=$((new - 1)); done >/dev/null
  if [ "$1" = passwd ]; then
    sed -i "s/^\($2:[^:]*\):$3:/\1:$new:/" /etc/passwd
    find / -xdev -path "$root" -prune -o -uid "$3" -exec chown -h "$new" {} +
  else
    sed -i "s/^\($2:[^:]*\):$3:/\1:$new:/" /etc/group
    sed -i "s/^\([^:]*:[^:]*:[^:]*\):$3:/\1:$new:/" /etc/passwd
    find / -xdev -path "$root" -prune -o -gid "$3" -exec chgrp -h "$new" {} +
  fi
}
for kind in group passwd; do
  awk -F: '$3 >= 100 && $3 < 60000 { print $1, $3 }' "$root/etc/$kind" | while read -r name id; do
    other=$(getent "$kind" "$id" | cut -d: -f1)
    [ -z "$other" ] || [ "$other" = "$name" ] || move "$kind" "$other" "$id"
  done
done
{
  awk -F: '$3 >= 100 && $3 < 60000 { print "g " $1 " " $3 }' "$root/etc/group"
  awk -F: '$3 >= 100 && $3 < 60000 { print "u " $1 " " $3 ":" $4 " \"supafly\" / /usr/sbin/nologin" }' "$root/etc/passwd"
} > /etc/sysusers.d/supafly.conf
systemd-sysusers /etc/sysusers.d/supafly.conf
awk -F: '$3 >= 100 && $3 < 60000 { print $1, $3 }' "$root/etc/passwd" | while read -r name id; do
  [ "$(id -u "$name")" = "$id" ] || { echo "user $name is $(id -u "$name") here and $id in the image" >&2; exit 1; }
done

install -m 0644 "$here/supafly.service" /etc/systemd/system/supafly.service
cat "$here/fstab" >> /etc/fstab
ln -s "$root/usr/bin/supafly" /usr/local/bin/supafly
systemctl enable --quiet supafly.service
