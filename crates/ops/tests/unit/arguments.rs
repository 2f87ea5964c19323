//! What the command line means.

use clap::Parser;

use crate::cli::Cli;
use crate::deploy::args::Args;
use crate::gate::Settings;

#[derive(Debug, Parser)]
struct Deploy {
    #[command(flatten)]
    args: Args,
}

fn parsed(more: &[&str]) -> Result<Args, clap::Error> {
    let words = [&["deploy", "app:new", "--strategy", "canary", "--steps", "5,20,50,100"], more].concat();
    Deploy::try_parse_from(words).map(|deploy| deploy.args)
}

fn judged(more: &[&str]) -> Settings {
    parsed(more).unwrap().settings()
}

#[test]
fn a_canary_is_judged_by_the_published_settings_unless_others_are_given() {
    assert_eq!(judged(&[]), Settings { steps: 3, ..Settings::default() });
    let given = ["--alpha=0.01", "--beta=0.05", "--error-floor=0.002", "--max-error-rate=0.1", "--max-p95-ratio=1.5"];
    let expected =
        Settings { alpha: 0.01, beta: 0.05, error_floor: 0.002, max_error_rate: 0.1, p95_ratio: 1.5, ..judged(&[]) };
    assert_eq!(judged(&given), expected);
    assert_eq!(judged(&["--max-mean=250ms"]).max_mean, std::time::Duration::from_millis(250));
}

#[test]
fn chances_and_ratios_that_make_no_sense_are_refused() {
    for wrong in
        ["--alpha=0", "--alpha=1", "--beta=-0.1", "--error-floor=NaN", "--max-error-rate=2%", "--max-p95-ratio=0.9"]
    {
        let error = parsed(&[wrong]).unwrap_err().to_string();
        assert!(error.contains("is wanted"), "{wrong}: {error}");
    }
}

/// An argument of a command that has the name of one for all is only noticed when the command is read.
#[test]
fn every_command_can_be_read() {
    for command in ["diagnose", "status", "history", "rollback", "pause", "resume", "abort", "reconcile"] {
        assert!(Cli::try_parse_from(["ops", command]).is_ok(), "{command}");
    }
    for command in ["deploy", "startup", "memory", "monitor", "debug"] {
        assert!(Cli::try_parse_from(["ops", command, "web"]).is_ok(), "{command}");
    }
}
