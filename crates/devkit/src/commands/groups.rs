//! Groups of tests that need more than Postgres and Redis, all behind the feature `all-tests`.

use crate::programs::find;

/// One group and the programs that its tests start.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: &'static str,
    programs: &'static [&'static str],
    /// How to get them.
    install: &'static str,
}

pub(super) const GROUPS: [Group; 6] = [
    Group {
        name: "docker",
        programs: &["docker"],
        install: "https://docs.docker.com/engine/install/ (with compose and buildx)",
    },
    Group {
        name: "jaeger",
        programs: &["jaeger"],
        install: "https://www.jaegertracing.io/download/ (version 2), put `jaeger` into PATH",
    },
    Group {
        name: "k6",
        programs: &["k6"],
        install: "https://grafana.com/docs/k6/latest/set-up/install-k6/, or out of grafana/k6:1.1.0; put `k6` into PATH",
    },
    Group { name: "kubernetes", programs: &["kubectl"], install: "https://kubernetes.io/docs/tasks/tools/" },
    Group { name: "memcached", programs: &["memcached"], install: "the package `memcached`" },
    Group {
        name: "monitoring",
        programs: &["prometheus", "promtool", "alertmanager", "amtool", "node_exporter", "jaeger"],
        install: "https://prometheus.io/download/ and, for jaeger, https://www.jaegertracing.io/download/; put it into PATH",
    },
];

/// A sentence for each program that isn't there.
pub(super) fn missing() -> Vec<String> {
    let each = GROUPS.iter().flat_map(|group| group.programs.iter().map(move |program| (group, program)));
    let gone = each.filter(|(_, program)| find(program).is_none());
    gone.map(|(group, program)| format!("group {} needs {program}: {}", group.name, group.install)).collect()
}
