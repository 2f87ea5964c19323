//! The user that servers run as when we are root: Postgres refuses root, and a private Redis needs no such powers.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;

/// A user that isn't root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// The user to switch to: none unless we are root, then `postgres`, else `nobody`.
    pub(crate) fn other_than_root() -> anyhow::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let users = std::fs::read_to_string("/etc/passwd").context("can't read the users in /etc/passwd")?;
        let named = |name: &str| users.lines().find_map(|line| Self::parse(line).filter(|user| user.name == name));
        named("postgres").or_else(|| named("nobody")).map(Some).context(
            "Postgres can't run as root and there is neither a user postgres nor nobody: add one or don't be root",
        )
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (uid != 0).then_some(Self { name, uid, gid })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Makes the command run as this user, with no other groups.
    pub(crate) fn apply(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives a file or folder to this user.
    pub(crate) fn own(&self, path: &Path) -> anyhow::Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("can't give {} to user {}", path.display(), self.name))
    }

    /// Whether this user can enter the folder, as the system itself sees it (a parent may be 0700, as /root is).
    pub(crate) fn can_enter(&self, folder: &Path) -> bool {
        let mut command = Command::new("sh");
        command.args(["-c", "cd -- \"$1\"", "sh"]).arg(folder).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.apply(&mut command);
        command.status().is_ok_and(|status| status.success())
    }
}
