//! The table `users`: its types and all of its SQL.

use std::str::FromStr;

use serde::Serialize;
use tokio_postgres::Row;
use utoipa::ToSchema;

use super::{Store, StoreError};

/// Reads one user.
pub const GET: &str = "select id, name, email, version from users where id = $1";
/// Reads a page by key, so that late pages cost no more than early ones.
pub const LIST: &str = "select id, name, email, version from users where id > $1 order by id limit $2";
/// Takes the id of a user to come, so that its cache entry can be blocked before it exists.
pub const NEXT_ID: &str = "select nextval(pg_get_serial_sequence('users', 'id'))";
/// Inserts one user.
pub const INSERT: &str = "insert into users (id, name, email) values ($1, $2, $3) returning id, name, email, version";
/// Replaces one user.
pub const UPDATE: &str = "update users set name = $2, email = $3 where id = $1 returning id, name, email, version";
/// Deletes one user.
pub const DELETE: &str = "delete from users where id = $1 returning version";

/// A user's number, 1 and up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserId(i64);

impl UserId {
    /// As the database has it.
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
    /// Checks a name.
    ///
    /// # Errors
    /// Says what is wrong, in words for the client.
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

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An address of the form `local@domain`. Whether mail arrives there only sending can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// Checks an address.
    ///
    /// # Errors
    /// Says what is wrong, in words for the client.
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

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A user to be written.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Their name.
    pub name: UserName,
    /// Their address, unique without regard to case.
    pub email: Email,
}

/// A user as stored.
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
    /// One user, if there is one of this number.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let rows = self.query("user", GET, &[&id.get()]).await?;
        Ok(rows.first().map(User::from))
    }

    /// Up to `limit` users with numbers above `after`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn users(&self, after: i64, limit: i64) -> Result<Vec<User>, StoreError> {
        let rows = self.query("users", LIST, &[&after, &limit]).await?;
        Ok(rows.iter().map(User::from).collect())
    }

    /// The number of a user to come.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next_user_id(&self) -> Result<UserId, StoreError> {
        let rows = self.query("next_user_id", NEXT_ID, &[]).await?;
        rows.first()
            .map(|row| UserId(row.get(0)))
            .ok_or_else(|| StoreError::Other("a sequence without a value".to_owned()))
    }

    /// Inserts a user.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the address is taken.
    pub async fn insert_user(&self, id: UserId, user: &NewUser) -> Result<User, StoreError> {
        self.transaction("insert_user", INSERT, |tx| {
            let (name, email) = (user.name.as_str().to_owned(), user.email.as_str().to_owned());
            Box::pin(async move {
                let statement = tx.prepare_cached(INSERT).await?;
                tx.query_one(&statement, &[&id.get(), &name, &email]).await.map(|row| User::from(&row))
            })
        })
        .await
    }

    /// Replaces a user; `None` when there is none of this number.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the address is taken.
    pub async fn update_user(&self, id: UserId, user: &NewUser) -> Result<Option<User>, StoreError> {
        self.transaction("update_user", UPDATE, |tx| {
            let (name, email) = (user.name.as_str().to_owned(), user.email.as_str().to_owned());
            Box::pin(async move {
                let statement = tx.prepare_cached(UPDATE).await?;
                let row = tx.query_opt(&statement, &[&id.get(), &name, &email]).await?;
                Ok(row.as_ref().map(User::from))
            })
        })
        .await
    }

    /// Deletes a user; returns its last version, `None` when there was none of this number.
    ///
    /// # Errors
    /// When the database fails.
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_are_the_positive_numbers_written_plainly(text in ".*") {
            if let Ok(id) = text.parse::<UserId>() {
                prop_assert!(id.get() > 0);
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_digit()));
            }
        }

        #[test]
        fn every_positive_number_is_an_id(number in 1..=i64::MAX) {
            prop_assert_eq!(number.to_string().parse::<UserId>().map(UserId::get), Ok(number));
        }

        #[test]
        fn accepted_names_are_short_trimmed_and_printable(text in ".*") {
            if let Ok(name) = UserName::parse(&text) {
                prop_assert_eq!(name.as_str().trim(), name.as_str());
                prop_assert!((1..=200).contains(&name.as_str().chars().count()));
                prop_assert!(!name.as_str().chars().any(char::is_control));
                prop_assert_eq!(UserName::parse(name.as_str()), Ok(name.clone()));
            }
        }

        #[test]
        fn ordinary_addresses_are_accepted(local in "[a-z0-9.+-]{1,64}", domain in "[a-z0-9]{1,20}\\.[a-z]{2,10}") {
            let address = format!("{local}@{domain}");
            prop_assert!(Email::parse(&address).is_ok());
        }

        #[test]
        fn accepted_addresses_have_one_line_and_both_parts(text in ".*@?.*") {
            if let Ok(email) = Email::parse(&text) {
                let (local, domain) = email.as_str().rsplit_once('@').unwrap();
                prop_assert!(!local.is_empty() && !domain.is_empty() && email.as_str().len() <= 254);
                prop_assert!(!email.as_str().chars().any(char::is_whitespace));
            }
        }
    }

    #[test]
    fn addresses_that_cannot_work_are_refused() {
        for bad in ["", "@", "a@", "@b.c", "a b@c.d", "a@b..c", "a@b@c.d", "a\n@b.c"] {
            assert!(Email::parse(bad).is_err(), "{bad:?}");
        }
    }
}
