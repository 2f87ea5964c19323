//! The database rule: a version that takes away what the running one needs isn't promoted by accident.

use super::args::Args;
use super::parts::{Engine, Recipe};
use crate::exit::{Exit, Failure, Result};

/// In the names of migrations that take something away.
const CONTRACT: &str = "contract";

/// Asks the new image what is pending, and applies it if that is wanted.
pub async fn check(engine: &dyn Engine, args: &Args, recipe: &Recipe) -> Result<()> {
    let asked = engine.once(&args.image, recipe, &["migrate", "--check"]).await?;
    let pending = pending(&asked.output);
    if asked.code == 0 {
        return Ok(());
    }
    if pending.is_empty() {
        let message = format!("{} can't say whether migrations are pending: {}", args.image, asked.output);
        return Err(Failure::new(Exit::Precondition, message));
    }
    let names = pending.join(", ");
    if pending.iter().any(|name| name.contains(CONTRACT)) && !args.allow_contract {
        let message = format!(
            "pending migrations take away what the running version may need: {names}; deploy a version that no longer \
             needs it first, or say --allow-contract"
        );
        return Err(Failure::new(Exit::Precondition, message));
    }
    if !args.migrate {
        let message = format!("migrations are pending: {names}; apply them with --migrate");
        return Err(Failure::new(Exit::Precondition, message));
    }
    let applied = engine.once(&args.image, recipe, &["migrate"]).await?;
    if applied.code == 0 {
        return Ok(());
    }
    Err(Failure::new(Exit::Precondition, format!("migrations failed: {}", applied.output)))
}

/// The quoted names in what `migrate --check` prints.
pub fn pending(output: &str) -> Vec<String> {
    output.split('"').skip(1).step_by(2).filter(|name| name.starts_with('V')).map(str::to_owned).collect()
}
