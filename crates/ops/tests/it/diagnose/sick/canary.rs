//! A secret that is everywhere in a container must be nowhere in what `ops` writes.

use crate::diagnose::support::{Sick, ops};

#[test]
fn a_canary_never_appears_in_any_output() {
    let canary = "Canary7Qx9Zp";
    let command = format!(
        "echo connecting to postgres://app:{canary}@db/app; echo token {canary} >&2; exit 1 # --password={canary}"
    );
    let options = [
        format!("--env=DB_PASSWORD={canary}"),
        format!("--env=DATABASE_URL=postgres://app:{canary}@db/app"),
        format!("--label=app.api-token={canary}"),
        format!("--health-cmd=echo {canary}; false"),
    ];
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let ended = Sick::new(&options, &["sh", "-c", &command]).ended();
    let runs = Sick::new(&options, &["sh", "-c", "sleep 600", "--password", canary]);
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let report = report.to_str().unwrap();

    let mut written = String::new();
    for name in [&ended.name, &runs.name] {
        for form in [&[][..], &["--json"]] {
            for command in [
                &["diagnose", name, "--for", "1s"][..],
                &["startup", name],
                &["memory", name, "--for", "3s", "--report", report],
                &["monitor", name, "--for", "3s", "--every", "1s", "--report", report],
            ] {
                let output = ops(&[command, form].concat());
                written += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());
                written += &std::fs::read_to_string(report).unwrap_or_default();
            }
        }
    }

    assert!(written.contains("[hidden]") && written.contains("DB_PASSWORD"), "{written}");
    assert!(!written.contains(canary), "{written}");
}
