use std::fs;

use crate::health::memory::*;

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
    let stat = ("app/memory.stat", "anon 50000000\ninactive_file 4857600\n");
    let files = [("app/memory.current", "104857600\n"), stat, ("app/memory.max", "268435456\n")];
    let expected = Memory { used: Some(100_000_000), limit: Some(268_435_456) };
    assert_eq!(memory("0::/app\n", Some(8 << 30), &files), expected);
}

#[test]
fn version_2_without_a_limit_has_none() {
    let files = [("memory.current", "10"), ("memory.stat", "inactive_file 4"), ("memory.max", "max")];
    assert_eq!(memory("0::/elsewhere/on/the/host\n", None, &files), Memory { used: Some(6), limit: None });
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
