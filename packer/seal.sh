# On the build machine, as root, at the end: nothing that two machines must not share, and nobody's key. cloud-init makes
# new host keys and a new machine id at the first boot of each.
for tool in cc gcc make cargo go; do
  ! command -v "$tool" || { echo "a build tool is in the image: $tool" >&2; exit 1; }
done
[ ! -e /etc/supafly/supafly.env ] || { echo "a secret is in the image: /etc/supafly/supafly.env" >&2; exit 1; }
rm -rf /tmp/supafly /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys /root/.bash_history /home/*/.bash_history
rm -f /etc/ssh/ssh_host_*
cloud-init clean --logs
truncate --size 0 /etc/machine-id
rm -f /var/lib/dbus/machine-id /var/lib/systemd/random-seed
journalctl --quiet --rotate --vacuum-time=1s 2>/dev/null || :
rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb
fstrim --all || :
sync
