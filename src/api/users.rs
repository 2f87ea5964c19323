//! `/api/users`.

use actix_web::http::header::LOCATION;
use actix_web::web::{Bytes, Data, Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use tiered_cache::{Body, CacheError, CacheKey, Committed, Loaded, Tier};
use tracing::Instrument;
use utoipa::ToSchema;

use super::body::Json;
use super::respond::{absent, cached, etag, read_level};
use crate::app::App;
use crate::server::problem::{self, Problem};
use crate::store::error::StoreError;
use crate::store::users::{Email, NewUser, User, UserId, UserName};

const NOT_FOUND: &str = "User not found";
/// The version that a write has made; as `X-Min-Version` of a read it asks for nothing older.
const X_VERSION: &str = "x-version";
/// How every cached body ends; what a load answers differs in the last word.
const CACHED: &[u8] = b"true}";
const LOADED: &[u8] = b"false}";

/// One user.
#[derive(Serialize, ToSchema)]
pub struct UserDocument<'a> {
    user: &'a User,
}

/// One user as read.
#[derive(Serialize, ToSchema)]
pub struct CachedUserDocument<'a> {
    user: &'a User,
    /// It came from a cache.
    cached: bool,
}

/// A page of users.
#[derive(Serialize, ToSchema)]
pub struct UsersDocument {
    users: Vec<User>,
    /// What to give as `after` for the next page; null on the last one.
    next: Option<i64>,
}

/// What to write.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the body, which is parsed field by field")]
pub struct UserInput {
    /// 1 to 200 characters.
    #[schema(example = "Ada Lovelace")]
    name: String,
    /// Unique without regard to case.
    #[schema(example = "ada@example.com")]
    email: String,
}

/// Which page.
#[derive(Deserialize)]
pub struct Page {
    limit: Option<String>,
    after: Option<String>,
}

/// As the log of changes names it.
fn key(id: i64) -> CacheKey {
    CacheKey::builder("user").param("id", id).build()
}

fn id(text: &str) -> Result<UserId, Problem> {
    text.parse().map_err(|why: &str| Problem::new(problem::BAD_REQUEST, why))
}

/// Reads one user, cached.
#[utoipa::path(get, path = "/api/users/{id}", tag = "users", params(("id" = i64, Path, minimum = 1),
    ("X-Min-Version" = Option<i64>, Header, description = "nothing older than what a write answered as X-Version")),
    responses((status = 200, body = CachedUserDocument<'static>), (status = 304, description = "the client's copy still holds")))]
pub async fn get_user(app: Data<App>, request: HttpRequest, path: Path<String>) -> Result<HttpResponse, Problem> {
    let id = id(&path)?;
    let span = tracing::info_span!("get_user", user.id = id.get());
    let (store, schema) = (app.store.clone(), app.policies.user.schema);
    let load = move || async move {
        let user = store.user(id).await.map_err(StoreError::shared)?;
        Ok(found(user, schema))
    };
    let hit =
        app.cache.get_or_load(&key(id.get()), &app.policies.user, read_level(&request)?, load).instrument(span).await;
    let hit = hit.map_err(|error| match error {
        // Loads take their turns, so the database can be late also for one that hasn't begun.
        CacheError::Timeout => Problem::from(&StoreError::Timeout),
        other => other.into(),
    })?;
    let value = hit.entry.value.as_ref().ok_or_else(|| absent(&hit, NOT_FOUND))?;
    Ok(cached(&request, &hit, value, if hit.tier == Tier::Source { just_loaded } else { Bytes::clone }))
}

/// What the cache keeps: the finished body of a later hit.
fn found(user: Option<User>, schema: u32) -> Loaded {
    let version = user.as_ref().map_or(0, version);
    let value = user.map(|user| Body {
        // A struct of numbers and texts always serialises.
        bytes: serde_json::to_vec(&CachedUserDocument { user: &user, cached: true }).unwrap_or_default().into(),
        etag: etag(schema, version),
    });
    Loaded { value, version }
}

fn just_loaded(body: &Bytes) -> Bytes {
    let stem = body.strip_suffix(CACHED).unwrap_or(body);
    [stem, LOADED].concat().into()
}

/// Reads a page of users, in the order of their numbers; not cached.
#[utoipa::path(get, path = "/api/users", tag = "users", params(
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "users on the page, 20 unless given"),
    ("after" = Option<i64>, Query, minimum = 0, description = "the last number of the page before")), responses(
    (status = 200, body = UsersDocument)))]
pub async fn list_users(app: Data<App>, page: Query<Page>) -> Result<HttpResponse, Problem> {
    let limit = number(page.limit.as_deref(), 20, 1, 100, "limit must be a whole number from 1 to 100.")?;
    let after = number(page.after.as_deref(), 0, 0, i64::MAX, "after must be a whole number, 0 or above.")?;
    // One more than asked for tells whether there is a next page.
    let mut users = app.store.users(after, limit + 1).await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = users.len() > wanted;
    users.truncate(wanted);
    let next = users.last().filter(|_| more).map(|user| user.id);
    Ok(HttpResponse::Ok().json(UsersDocument { users, next }))
}

fn number(text: Option<&str>, default: i64, least: i64, most: i64, why: &'static str) -> Result<i64, Problem> {
    let Some(text) = text else { return Ok(default) };
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| Problem::new(problem::BAD_REQUEST, why))
}

fn new_user(body: &Json) -> Result<NewUser, Problem> {
    let mut fields = body.fields()?;
    match (fields.text("name", UserName::parse), fields.text("email", Email::parse)) {
        (Some(name), Some(email)) => Ok(NewUser { name, email }),
        _ => Err(fields.into_problem()),
    }
}

/// Creates a user.
#[utoipa::path(post, path = "/api/users", tag = "users", request_body = UserInput, security(("token" = [])), responses(
    (status = 201, body = UserDocument<'static>, headers(("Location" = String), ("X-Version" = i64)))))]
pub async fn create_user(app: Data<App>, body: Json) -> Result<HttpResponse, Problem> {
    let new = new_user(&body)?;
    let store = app.store.clone();
    let write = move || async move {
        let user = store.insert_user(&new).await?;
        // "Not found" may be cached under its number.
        let changed = vec![(key(user.id), version(&user))];
        Ok(Committed { value: user, changed })
    };
    let user = app.cache.write(write).await.map_err(conflict)?;
    let location = (LOCATION, format!("/api/users/{}", user.id));
    let version = (X_VERSION, user.version);
    Ok(HttpResponse::Created().insert_header(location).insert_header(version).json(UserDocument { user: &user }))
}

/// Replaces a user.
#[utoipa::path(put, path = "/api/users/{id}", tag = "users", params(("id" = i64, Path, minimum = 1)),
    request_body = UserInput, security(("token" = [])), responses(
    (status = 200, body = UserDocument<'static>, headers(("X-Version" = i64)))))]
pub async fn update_user(app: Data<App>, path: Path<String>, body: Json) -> Result<HttpResponse, Problem> {
    let id = id(&path)?;
    let new = new_user(&body)?;
    let store = app.store.clone();
    let update = async move { store.update_user(id, &new).await };
    match write(&app, id, update, version).await? {
        Some(user) => {
            Ok(HttpResponse::Ok().insert_header((X_VERSION, user.version)).json(UserDocument { user: &user }))
        }
        None => Err(Problem::not_found(NOT_FOUND)),
    }
}

/// Deletes a user.
#[utoipa::path(delete, path = "/api/users/{id}", tag = "users", params(("id" = i64, Path, minimum = 1)),
    security(("token" = [])), responses((status = 204, headers(("X-Version" = i64)))))]
pub async fn delete_user(app: Data<App>, path: Path<String>) -> Result<HttpResponse, Problem> {
    let id = id(&path)?;
    let store = app.store.clone();
    let delete = async move { store.delete_user(id).await };
    match write(&app, id, delete, |version| u64::try_from(*version).unwrap_or_default()).await? {
        Some(version) => Ok(HttpResponse::NoContent().insert_header((X_VERSION, version)).finish()),
        None => Err(Problem::not_found(NOT_FOUND)),
    }
}

/// Changes the user of a number, if there is one, and tells every replica the version.
async fn write<T: Send + 'static>(
    app: &App,
    id: UserId,
    work: impl Future<Output = Result<Option<T>, StoreError>> + Send + 'static,
    version: fn(&T) -> u64,
) -> Result<Option<T>, Problem> {
    let write = move || async move {
        match work.await {
            Ok(written) => {
                let changed = written.iter().map(|written| (key(id.get()), version(written))).collect();
                Ok(Committed { value: Ok(written), changed })
            }
            // What may be old isn't answered, also where the database is gone and the log with it.
            Err(error @ StoreError::CommitUnknown(_)) => {
                Ok(Committed { value: Err(error), changed: vec![(key(id.get()), 0)] })
            }
            Err(error) => Err(error),
        }
    };
    app.cache.write(write).await.map_err(conflict)?.map_err(Problem::from)
}

fn version(user: &User) -> u64 {
    u64::try_from(user.version).unwrap_or_default()
}

fn conflict(error: tiered_cache::WriteError<StoreError>) -> Problem {
    match error {
        tiered_cache::WriteError::Source(StoreError::Conflict(index)) if index == "users_email_key" => {
            Problem::new(problem::CONFLICT, "Another user has this e-mail address.")
        }
        other => Problem::from(other),
    }
}
