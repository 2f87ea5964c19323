//! The table `users`: its types and all of its SQL.

use std::str::FromStr;

use serde::Serialize;
use tokio_postgres::Row;
use utoipa::ToSchema;

use super::{Store, StoreError};

pub const GET: &str = "select id, name, email, version from users where id = $1";
/// Reads a page by key, so that late pages cost no more than early ones.
pub const LIST: &str = "select id, name, email, version from users where id > $1 order by id limit $2";
pub const INSERT: &str = "insert into users (name, email) values ($1, $2) returning id, name, email, version";
/// After rows came with their ids, as from a dump, the next id may be one of theirs.
pub const MEND_IDS: &str = "select setval('users_id_seq', greatest((select max(id) from users), last_value)) \
                            from users_id_seq";
pub const UPDATE: &str = "update users set name = $2, email = $3 where id = $1 returning id, name, email, version";
pub const DELETE: &str = "delete from users where id = $1 returning row_version_above(version)";
/// How often ids are mended for one user; others may draw the same ones.
const MENDINGS: u32 = 3;

/// A user's number, 1 and up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserId(i64);

impl UserId {
    pub fn get(self) -> i64 {
        self.0
    }
}

impl FromStr for UserId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && *number > 0);
        number.map(Self).ok_or("The id must be a whole number from 1 to 9223372036854775807.")
    }
}

/// A name that people can read: 1 to 200 characters, no control characters, no spaces around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(String);

impl UserName {
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let name = text.trim();
        if name.is_empty() {
            Err("must not be empty")
        } else if name.chars().count() > 200 {
            Err("must have at most 200 characters")
        } else if name.chars().any(char::is_control) {
            Err("must not hold control characters")
        } else {
            Ok(Self(name.to_owned()))
        }
    }
}

/// An address of the form `local@domain`. Whether mail arrives there only sending can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let address = text.trim();
        let (local, domain) = address.rsplit_once('@').ok_or("must be an e-mail address")?;
        let broken =
            |part: &str| part.is_empty() || part.chars().any(|c| c.is_whitespace() || c.is_control() || c == '@');
        let labels_broken = domain.split('.').any(str::is_empty);
        // RFC 5321, section 4.5.3.1.
        let too_long = local.len() > 64 || address.len() > 254;
        if broken(local) || broken(domain) || labels_broken {
            Err("must be an e-mail address")
        } else if too_long {
            Err("must have at most 254 characters, 64 before the @")
        } else {
            Ok(Self(address.to_owned()))
        }
    }
}

/// A user to be written.
#[derive(Clone, Debug)]
pub struct NewUser {
    pub name: UserName,
    pub email: Email,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct User {
    /// Their number.
    #[schema(example = 1)]
    pub id: i64,
    /// Their name.
    #[schema(example = "Ada Lovelace")]
    pub name: String,
    /// Their address.
    #[schema(example = "ada@example.com")]
    pub email: String,
    /// Grows with every change of the row.
    #[serde(skip)]
    #[schema(ignore)]
    pub version: i64,
}

impl From<&Row> for User {
    fn from(row: &Row) -> Self {
        Self { id: row.get("id"), name: row.get("name"), email: row.get("email"), version: row.get("version") }
    }
}

impl Store {
    pub async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let rows = self.query("user", GET, &[&id.get()]).await?;
        Ok(rows.first().map(User::from))
    }

    pub async fn users(&self, after: i64, limit: i64) -> Result<Vec<User>, StoreError> {
        let rows = self.query("users", LIST, &[&after, &limit]).await?;
        Ok(rows.iter().map(User::from).collect())
    }

    pub async fn insert_user(&self, user: &NewUser) -> Result<User, StoreError> {
        for _ in 0..MENDINGS {
            match self.try_insert_user(user).await {
                Err(StoreError::Conflict(index)) if index == "users_pkey" => {
                    self.query("mend_user_ids", MEND_IDS, &[]).await?;
                }
                outcome => return outcome,
            }
        }
        Err(StoreError::Contended("every id was taken".to_owned()))
    }

    async fn try_insert_user(&self, user: &NewUser) -> Result<User, StoreError> {
        self.transaction("insert_user", INSERT, |tx| {
            let (name, email) = (user.name.0.clone(), user.email.0.clone());
            Box::pin(async move {
                let statement = tx.prepare_cached(INSERT).await?;
                tx.query_one(&statement, &[&name, &email]).await.map(|row| User::from(&row))
            })
        })
        .await
    }

    /// Replaces a user; `None` when there is none of this number.
    pub async fn update_user(&self, id: UserId, user: &NewUser) -> Result<Option<User>, StoreError> {
        self.transaction("update_user", UPDATE, |tx| {
            let (name, email) = (user.name.0.clone(), user.email.0.clone());
            Box::pin(async move {
                let statement = tx.prepare_cached(UPDATE).await?;
                let row = tx.query_opt(&statement, &[&id.get(), &name, &email]).await?;
                Ok(row.as_ref().map(User::from))
            })
        })
        .await
    }

    /// Deletes a user; returns a version above its last, `None` when there was none of this number.
    pub async fn delete_user(&self, id: UserId) -> Result<Option<i64>, StoreError> {
        self.transaction("delete_user", DELETE, |tx| {
            Box::pin(async move {
                let statement = tx.prepare_cached(DELETE).await?;
                Ok(tx.query_opt(&statement, &[&id.get()]).await?.map(|row| row.get(0)))
            })
        })
        .await
    }
}

#[cfg(test)]
#[path = "../../tests/unit/store_users.rs"]
mod tests;
