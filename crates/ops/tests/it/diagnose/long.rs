//! What takes too long for every day; `cargo dev nightly` runs it.

use crate::diagnose::support::{Sick, docker, json, ops};

#[test]
#[ignore = "ten minutes"]
fn ten_minutes_tell_a_leak_from_a_sawtooth_and_a_warm_up() {
    let grow = "push @all, 'x' . 'y' x";
    let wait = "select undef, undef, undef, 1";
    let programs = [
        ("leak", format!("while (1) {{ {grow} 83_333; {wait} }}")),
        ("no-leak", format!("while (1) {{ for (1 .. 100) {{ {grow} 1_000_000; {wait} }} @all = () }}")),
        ("no-leak", format!("for (1 .. 100) {{ {grow} 1_000_000; {wait} }} sleep 6000")),
    ];
    std::thread::scope(|scope| {
        let watched = programs.map(|(verdict, program)| {
            scope.spawn(move || {
                let sick = Sick::new(&["--memory=512m"], &["perl", "-e", &program]);
                let (_, document) = json(&["memory", &sick.name, "--for", "10m"]);
                println!(
                    "{verdict} expected: {} {} after {} s",
                    document["verdict"], document["trend"], document["seconds"]
                );
                assert_eq!(document["verdict"], verdict, "{document}");
            })
        });
        watched.into_iter().for_each(|watched| watched.join().unwrap());
    });
}

#[test]
#[ignore = "builds the Dockerfile's target debug, or takes the image that OPS_DEBUG_IMAGE names"]
fn debug_has_the_tools_of_the_services_own_debug_image() {
    let target = Sick::new(&[], &["sleep", "61234"]);
    #[expect(clippy::disallowed_methods, reason = "tests have no command line of their own")]
    let given = std::env::var("OPS_DEBUG_IMAGE").ok();
    let image = given.unwrap_or_else(|| {
        let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        docker(&["build", "--quiet", "--target", "debug", "--tag", "plinth:debug", workspace]);
        "plinth:debug".to_owned()
    });
    let look = "pgrep -a sleep; for tool in gdb strace tcpdump ss; do command -v $tool; done";
    let output = ops(&["debug", &target.name, "--image", &image, "--", "sh", "-c", look]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("sleep 61234") && said.contains("tcpdump"), "{said} {output:?}");
}
