//! The database rule: a version that takes away what the running one needs isn't promoted by accident.

use std::collections::BTreeSet;

use super::args::Args;
use super::parts::{Engine, Recipe};
use crate::exit::{Exit, Failure, Result};
use crate::state::State;
use crate::state::audit::Record;
use crate::state::journal::{Deploy, Phase};

/// In the names of migrations that take something away.
const CONTRACT: &str = "contract";
/// What `migrate --check` says when such a migration of a later version was applied.
const TOO_NEW: &str = "TooNew";

/// Asks the new image what is pending, and applies it if that is wanted. The deploy knows of whatever was begun.
pub async fn check(
    engine: &dyn Engine,
    state: &State,
    args: &Args,
    recipe: &Recipe,
    deploy: &mut Deploy,
) -> Result<()> {
    let asked = engine.once(&args.image, recipe, &["migrate", "--check"]).await?;
    let pending = pending(&asked.output);
    if asked.code == 0 {
        return Ok(());
    }
    if asked.output.contains(TOO_NEW) {
        let message = format!("{} needs what {} took away; deploy a later version", args.image, pending.join(", "));
        return Err(Failure::new(Exit::Precondition, message));
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
    deploy.migrations = pending;
    // Whoever is killed from here on leaves word of them.
    state.audit(deploy, Some(format!("migrating: {names}")))?;
    let migrated = engine.once(&args.image, recipe, &["migrate"]).await?;
    if migrated.code == 0 {
        return Ok(());
    }
    Err(Failure::new(Exit::Precondition, format!("migrations failed: {}", migrated.output)))
}

/// What was taken away since this version last was deployed, which it may need. It is known by its image's id: one name
/// may be many images'. Where an id isn't known, the name must do.
pub fn taken_since(version: &str, image_id: &str, records: &[Record]) -> Vec<String> {
    let same = |record: &Record| match (image_id, record.image_id.as_str()) {
        ("", _) | (_, "") => record.version == version,
        (wanted, deployed) => wanted == deployed,
    };
    let deployed = |record: &Record| record.phase == Phase::Done && same(record);
    let since = records.iter().rev().take_while(|record| !deployed(record));
    let all: BTreeSet<_> = since.flat_map(|record| &record.migrations).filter(|name| name.contains(CONTRACT)).collect();
    all.into_iter().cloned().collect()
}

/// The quoted names in what `migrate --check` prints.
pub fn pending(output: &str) -> Vec<String> {
    output.split('"').skip(1).step_by(2).filter(|name| name.starts_with('V')).map(str::to_owned).collect()
}
