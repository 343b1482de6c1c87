//! Group numbers for the processes of one run: a block that nobody else uses, so that whoever carries one of them is of
//! our descent ([`super::descent`]).

use super::procfs;
use std::collections::BTreeSet;

/// A block of group numbers, one a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tags {
    /// The first.
    pub base: u32,
    /// How many.
    pub size: u32,
}

/// Where blocks lie, and how many there are: enough that two supervisors starting at once do not meet.
const HIGH: u32 = 0x4000_0000;
const HIGH_BLOCKS: u32 = 0x3_0000;

/// Groups that we carry ourselves because an outer supervisor gave them to us; our children keep them, so that they
/// stay its children too.
#[must_use]
pub fn inherited_tags() -> Vec<u32> {
    let groups = nix::unistd::getgroups().unwrap_or_default();
    groups
        .into_iter()
        .map(nix::unistd::Gid::as_raw)
        .filter(|g| (HIGH..HIGH + HIGH_BLOCKS * 4_096).contains(g))
        .collect()
}

impl Tags {
    /// The group of a run. Numbers come round after `size` runs, long after the former holder was proved gone.
    #[must_use]
    pub fn of(self, run: u64) -> u32 {
        self.base + u32::try_from(run % u64::from(self.size.max(1))).unwrap_or(0)
    }
    /// Whether a group is one of these.
    #[must_use]
    pub const fn contains(self, gid: u32) -> bool {
        gid >= self.base && gid - self.base < self.size
    }
}

/// Finds a block that is mapped in our user namespace, that no process carries and `/etc/group` does not name.
/// `seed` spreads supervisors that start at the same moment.
#[must_use]
pub fn choose_tags(seed: u32) -> Option<Tags> {
    let map = std::fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    let named: Vec<u32> = std::fs::read_to_string("/etc/group")
        .unwrap_or_default()
        .lines()
        .filter_map(|l| l.split(':').nth(2)?.parse().ok())
        .collect();
    // What cannot be read is not known to be carried; the next block is as likely to be free.
    let carried: BTreeSet<u32> =
        procfs::table().unwrap_or_default().into_iter().flat_map(|p| p.groups).collect();
    let free = |tags: Tags| {
        maps(&map, tags)
            && !named.iter().any(|g| tags.contains(*g))
            && carried.range(tags.base..tags.base + tags.size).next().is_none()
    };
    // High numbers first; 30000 and up where a user namespace maps only 16 bits.
    let high =
        (0..64).map(|i| Tags { base: HIGH + (seed.wrapping_add(i) % HIGH_BLOCKS) * 4_096, size: 4_096 });
    let low = (0..56).map(|i| Tags { base: 30_000 + (seed.wrapping_add(i) % 56) * 512, size: 512 });
    high.chain(low).find(|tags| free(*tags))
}

fn maps(gid_map: &str, tags: Tags) -> bool {
    gid_map.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().map(|f| f.parse::<u64>().ok());
        let (Some(Some(inside)), Some(Some(count))) = (fields.next(), fields.nth(1)) else { return false };
        u64::from(tags.base) >= inside && u64::from(tags.base) + u64::from(tags.size) <= inside + count
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mapped_blocks_are_chosen() {
        assert!(maps("         0          0 4294967295\n", Tags { base: 0x5AF0_0000, size: 4_096 }));
        assert!(!maps("0 1000 65536\n", Tags { base: 0x5AF0_0000, size: 4_096 }));
        assert!(maps("0 1000 65536\n", Tags { base: 30_000, size: 512 }));
    }
}
