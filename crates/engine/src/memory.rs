//! How much memory this process may still take.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that can be allocated without swapping or being killed, or `None` where the system does not say.
///
/// The least of what the kernel calls available (`MemAvailable`), what the control groups of this process leave
/// (their file cache counts as free: it is given up under pressure), and what its address-space limit leaves.
pub(crate) fn available() -> Option<u64> {
    available_under(Path::new("/"))
}

/// [`available`] with the kernel's files under `root`.
fn available_under(root: &Path) -> Option<u64> {
    let whole =
        field(&read(&root.join("proc/meminfo"))?, "MemAvailable:").map(|kib| kib.saturating_mul(1024));
    whole.into_iter().chain(control_groups(root)).chain(address_space(root)).min()
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The first number after `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Address space that stacks and the allocator's arenas of some threads reserve, most of it never to be used.
const RESERVED: u64 = 512 << 20;

/// What is left of the address space (`ulimit -v`).
fn address_space(root: &Path) -> Option<u64> {
    let limit = field(&read(&root.join("proc/self/limits"))?, "Max address space")?;
    let used = field(&read(&root.join("proc/self/status"))?, "VmSize:")?.saturating_mul(1024);
    Some(limit.saturating_sub(used).saturating_sub(RESERVED))
}

/// What is left in every memory control group that this process is in, its ancestors included.
fn control_groups(root: &Path) -> Vec<u64> {
    let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    let mut left = Vec::new();
    for line in groups.lines() {
        // "hierarchy:controllers:path"; version 2 is hierarchy 0 without controllers.
        let mut parts = line.splitn(3, ':');
        let (Some(hierarchy), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let mount = root.join("sys/fs/cgroup");
        if hierarchy == "0" {
            left.extend(ancestors(&mount, path).iter().filter_map(|group| {
                group_left(group, ["memory.max", "memory.current"], ["inactive_file", "active_file"])
            }));
        } else if controllers.split(',').any(|controller| controller == "memory") {
            left.extend(ancestors(&mount.join("memory"), path).iter().filter_map(|group| {
                let files = ["memory.limit_in_bytes", "memory.usage_in_bytes"];
                group_left(group, files, ["total_inactive_file", "total_active_file"])
            }));
        }
    }
    left
}

/// The folders of a group and of its ancestors. In a container the path may lead outside what is mounted; then only
/// the mount itself is found.
fn ancestors(mount: &Path, path: &str) -> Vec<PathBuf> {
    let path = Path::new(path.trim_start_matches('/'));
    path.ancestors().map(|group| mount.join(group)).filter(|group| group.is_dir()).collect()
}

/// Limit minus usage, file cache aside; `None` without a limit.
fn group_left(group: &Path, [limit, usage]: [&str; 2], cache: [&str; 2]) -> Option<u64> {
    // "max" is no number, and thus no limit; version 1 writes a number near 2^63.
    let limit: u64 = read(&group.join(limit))?.trim().parse().ok().filter(|&bytes| bytes < 1 << 62)?;
    let usage: u64 = read(&group.join(usage))?.trim().parse().ok()?;
    let stat = read(&group.join("memory.stat")).unwrap_or_default();
    let cached: u64 = cache.iter().filter_map(|name| field(&stat, &format!("{name} "))).sum();
    Some(limit.saturating_sub(usage.saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files, named by the calling test.
    fn system(test: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("wushi-memory-{test}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn left(test: &str, files: &[(&str, &str)]) -> Option<u64> {
        let root = system(test, files);
        let left = available_under(&root);
        fs::remove_dir_all(root).unwrap();
        left
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n");

    #[test]
    fn the_machine_alone() {
        assert_eq!(left("alone", &[MEMINFO]), Some(8_000_000 * 1024));
        assert_eq!(left("unknown", &[("etc/hostname", "x")]), None);
        #[cfg(target_os = "linux")]
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn the_tightest_group_counts_without_its_file_cache() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "5000\n"),
            ("sys/fs/cgroup/a/memory.current", "3000\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 1500\ninactive_file 1000\nactive_file 400\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.current", "3000\n"),
        ];
        assert_eq!(left("v2", &files), Some(5000 - 1600));
    }

    #[test]
    fn a_group_outside_the_mount_falls_back_to_the_mount() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "7:cpu,memory:/docker/1234\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "7000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "9000\n"),
        ];
        assert_eq!(left("v1", &files), Some(0));
    }

    #[test]
    fn the_address_space_counts() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max address space         557350912            unlimited            bytes\n";
        let status = ("proc/self/status", "VmSize:\t    10000 kB\n");
        assert_eq!(left("ulimit", &[MEMINFO, ("proc/self/limits", limits), status]), Some(10_240_000));
        let unlimited = "Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(
            left("nolimit", &[MEMINFO, ("proc/self/limits", unlimited), status]),
            Some(8_000_000 * 1024)
        );
    }
}
