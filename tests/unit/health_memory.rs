use std::fs;

use crate::health::memory::*;

/// Recorded hierarchies, a line of a file each: see the folder's README.
const HOST: &str = include_str!("fixtures/cgroup-v2-host.txt");
const NAMESPACE: &str = include_str!("fixtures/cgroup-v2-namespace.txt");

/// What a process reads whose `/proc/self/cgroup` is `groups`, on a machine with 1.4 GiB.
fn recorded(hierarchy: &str, groups: &str) -> Memory {
    let mut files = std::collections::BTreeMap::<&str, String>::new();
    for (file, line) in hierarchy.lines().map(|line| line.split_once(':').unwrap()) {
        *files.entry(file).or_default() += &format!("{line}\n");
    }
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    memory(groups, Some(1_504_912 << 10), &files)
}

fn memory(groups: &str, host: Option<u64>, files: &[(&str, &str)]) -> Memory {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Memory::of_cgroup(root.path(), groups, host)
}

#[test]
fn version_2_counts_usage_without_inactive_file_cache() {
    let expected = Memory { used: Some(57_344 - 16_384), limit: Some(64 << 20) };
    assert_eq!(recorded(HOST, "0::/half\n"), expected);
}

#[test]
fn the_limit_of_a_group_around_it_counts_with_all_that_shares_it() {
    // app.service has no limit of its own; most of the slice's memory is its neighbour's.
    let expected = Memory { used: Some(122_744_832 - 50_409_472 - 3_874_816 - 150_000), limit: Some(160 << 20) };
    assert_eq!(recorded(HOST, "0::/plinth.slice/app.service\n"), expected);
}

#[test]
fn of_limits_inside_one_another_the_closest_to_be_reached_counts() {
    let tight = HOST.replace("app.service/memory.max:max", "app.service/memory.max:29360128");
    let expected = Memory { used: Some(76_271_616 - 50_348_032), limit: Some(28 << 20) };
    assert_eq!(recorded(&tight, "0::/plinth.slice/app.service\n"), expected);
    // Its own limit is the lower one still, but its neighbour has nearly used up the slice's.
    let full = HOST.replace("app.service/memory.max:max", "app.service/memory.max:67108864");
    let expected = Memory { used: Some(122_744_832 - 50_409_472 - 3_874_816 - 150_000), limit: Some(160 << 20) };
    assert_eq!(recorded(&full, "0::/plinth.slice/app.service\n"), expected);
}

#[test]
fn what_a_neighbour_caches_does_not_fill_the_group_around_both() {
    // Such as a database that reads its files again and again.
    let cached = HOST
        .replace("plinth.slice/memory.current:122744832", "plinth.slice/memory.current:166723584")
        .replace("plinth.slice/memory.stat:active_file 3874816", "plinth.slice/memory.stat:active_file 47853568");
    let expected = Memory { used: Some(166_723_584 - 50_409_472 - 47_853_568 - 150_000), limit: Some(160 << 20) };
    assert_eq!(recorded(&cached, "0::/plinth.slice/app.service\n"), expected);
    let cached = [
        ("memory/slice/app/memory.usage_in_bytes", "1000"),
        ("memory/slice/app/memory.stat", "total_inactive_file 300\ntotal_active_file 200\n"),
        ("memory/slice/app/memory.limit_in_bytes", "9223372036854771712"),
        ("memory/slice/memory.usage_in_bytes", "9900"),
        ("memory/slice/memory.stat", "active_file 1\ntotal_inactive_file 900\ntotal_active_file 7000\n"),
        ("memory/slice/memory.limit_in_bytes", "10000"),
    ];
    let expected = Memory { used: Some(9900 - 900 - 7000), limit: Some(10_000) };
    assert_eq!(memory("5:memory:/slice/app\n", Some(8 << 30), &cached), expected);
}

#[test]
fn version_2_without_a_limit_has_none() {
    let expected = Memory { used: Some(5_636_096 - 745_472), limit: None };
    assert_eq!(recorded(HOST, "0::/init\n"), expected);
    // The root of all groups counts nothing.
    assert_eq!(recorded(HOST, "0::/\n"), Memory::default());
}

#[test]
fn in_a_cgroup_namespace_its_own_group_is_the_root() {
    let own = Memory { used: Some(80_900_096 - 50_479_104), limit: None };
    assert_eq!(recorded(NAMESPACE, "0::/\n"), own);
    // A process that was moved out of the namespace's groups is told a way that leads nowhere.
    assert_eq!(recorded(NAMESPACE, "0::/../side.service\n"), own);
    let limited = NAMESPACE.replace("memory.max:max", "memory.max:100663296");
    assert_eq!(recorded(&limited, "0::/\n"), Memory { limit: Some(96 << 20), ..own });
}

#[test]
fn version_1_uses_the_hierarchical_numbers_and_knows_an_absurd_limit() {
    let files = [
        ("memory/docker/x/memory.usage_in_bytes", "1000"),
        ("memory/docker/x/memory.stat", "inactive_file 1\ntotal_inactive_file 300\n"),
        ("memory/docker/x/memory.limit_in_bytes", "9223372036854771712"),
    ];
    let groups = "12:cpu,cpuacct:/docker/x\n5:memory:/docker/x\n";
    assert_eq!(memory(groups, Some(8 << 30), &files), Memory { used: Some(700), limit: None });
}

#[test]
fn readiness_goes_at_90_percent_and_comes_back_at_80() {
    let at = |used| Memory { used: Some(used), limit: Some(100) };
    assert!(!at(90).is_high(false) && at(91).is_high(false));
    assert!(at(81).is_high(true) && !at(80).is_high(true));
    assert!(!Memory { used: Some(91), limit: None }.is_high(true));
}
