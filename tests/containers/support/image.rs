use std::path::Path;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;

use super::docker::succeeded;

pub const VERSION: &str = "1.2.3-test";
pub const COMMIT: &str = "0123456789abcdef";
pub const CREATED: &str = "2026-01-02T03:04:05Z";

/// A first build compiles every crate, beside tests that keep the machine busy.
const BUILD: Duration = Duration::from_secs(40 * 60);

/// The image of this checkout with the build arguments above, built once per run; or that which `OPS_TEST_IMAGE` names.
#[expect(clippy::disallowed_methods, reason = "the tests' own setting")]
pub async fn image() -> &'static str {
    static IMAGE: OnceCell<String> = OnceCell::const_new();
    let find = async || match std::env::var("OPS_TEST_IMAGE") {
        Ok(given) => given,
        Err(_) => {
            build("plinth:test", &[]).await;
            "plinth:test".to_owned()
        }
    };
    IMAGE.get_or_init(find).await
}

/// Builds with the profile that links quickly; layers and crates that were built before are taken as they are.
pub async fn build(tag: &str, args: &[&str]) {
    let arguments = [("PROFILE", "fast"), ("VERSION", VERSION), ("GIT_COMMIT", COMMIT), ("BUILD_DATE", CREATED)];
    let mut command = Command::new("docker");
    command.args(["build", "--tag", tag]).args(args);
    for (name, value) in arguments {
        command.args(["--build-arg", &format!("{name}={value}")]);
    }
    succeeded(command.arg(Path::new(env!("CARGO_MANIFEST_DIR"))), BUILD).await;
}
