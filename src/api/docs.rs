//! The API's description, and a page to try it that needs no other site.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use actix_web::HttpResponse;
use actix_web::body::SizedStream;
use actix_web::http::header::{CACHE_CONTROL, ContentEncoding, LOCATION};
use actix_web::web::{Bytes, Data, Path};
use utoipa::openapi::path::Operation as Documented;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi as Derive};
use utoipa_swagger_ui::Config;

use crate::health::probes;
use crate::server::problem::{self, CONTENT_TYPE, Kind, Problem, ProblemDocument};
use crate::server::routes::{Access, Class, Operation, RESOURCES};

/// Bytes that wait for a slow reader of a file.
const PIECE: usize = 16 << 10;

#[derive(Derive)]
#[openapi(
    info(title = "Plinth", description = "A production service tier: HTTP over Postgres with a tiered cache."),
    paths(
        super::users::list_users, super::users::create_user, super::users::get_user, super::users::update_user,
        super::users::delete_user, super::data::get_data, super::data::forget_data, super::cache_values::get_value,
        super::cache_values::put_value, super::cache_values::delete_value, super::test::run_test, openapi_json,
        redirect_to_page, page, probes::health, probes::live, probes::ready, probes::startup, probes::metrics,
        super::log_filter::show_filter, super::log_filter::change_filter, super::log_filter::restore_filter,
    ),
    components(schemas(ProblemDocument<'static>)),
    modifiers(&RouteTable)
)]
struct Description;

/// The OpenAPI document.
pub fn document() -> String {
    // Made of texts alone, so it always serialises.
    Description::openapi().to_pretty_json().unwrap_or_default()
}

/// Adds the bearer token, and to each operation the problems that the route table says it has.
struct RouteTable;

impl Modify for RouteTable {
    fn modify(&self, api: &mut OpenApi) {
        let components = api.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("One of API_TOKEN.")).build();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        for kind in problem::ALL {
            let Kind { status, name, title } = kind;
            let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
            let response = ResponseBuilder::new()
                .description(format!("{} {title}", status.as_u16()))
                .content(CONTENT_TYPE, Content::new(Some(schema)))
                .build();
            components.responses.insert(name.to_owned(), response.into());
        }
        for resource in RESOURCES {
            for operation in resource.operations {
                if let Some(documented) = find(api, resource.path, operation.method) {
                    add(documented, operation, resource.class);
                }
            }
        }
    }
}

/// A route's template as OpenAPI writes it: `{file}` where the router has `{file:.*}`.
pub fn documented_path(route: &str) -> String {
    route.replace(":.*", "")
}

fn find<'a>(api: &'a mut OpenApi, path: &str, method: &str) -> Option<&'a mut Documented> {
    let item = api.paths.paths.get_mut(&documented_path(path))?;
    match method {
        "GET" => item.get.as_mut(),
        "POST" => item.post.as_mut(),
        "PUT" => item.put.as_mut(),
        "DELETE" => item.delete.as_mut(),
        _ => None,
    }
}

fn add(documented: &mut Documented, operation: &Operation, class: Class) {
    const LIMITS: &[Kind] = &[problem::TOO_MANY, problem::INTERNAL, problem::TIMEOUT, problem::OVERLOADED];
    const TOKEN: &[Kind] = &[problem::UNAUTHORIZED, problem::WRITES_DISABLED];
    let limits = match (class, operation.access) {
        (Class::Public, _) => LIMITS,
        (Class::Management, Access::Token) => &LIMITS[..3],
        (Class::Management, Access::Open) => &[],
    };
    let token = if operation.access == Access::Token { TOKEN } else { &[] };
    for Kind { status, name, .. } in operation.problems.iter().chain(token).chain(limits) {
        let reference = RefOr::Ref(Ref::from_response_name(*name));
        documented.responses.responses.entry(status.as_str().to_owned()).or_insert(reference);
    }
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "documentation", responses((status = 200, body = Object)))]
pub async fn openapi_json() -> HttpResponse {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().into());
    HttpResponse::Ok().content_type("application/json").body(DOCUMENT.clone())
}

/// To the page.
#[utoipa::path(get, path = "/docs", tag = "documentation", responses((status = 308, description = "to /docs/")))]
pub async fn redirect_to_page() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((LOCATION, "/docs/")).finish()
}

/// What the page shows.
pub fn page_config() -> Config<'static> {
    Config::new(["/openapi.json"]).validator_url("none")
}

/// A page to try the API, with its scripts and styles.
#[utoipa::path(get, path = "/docs/{file}", tag = "documentation", params(("file" = String, Path)),
    responses((status = 200, description = "a file of the page")))]
pub async fn page(file: Path<String>, config: Data<Config<'static>>) -> Result<HttpResponse, Problem> {
    let broken = |error| Problem::new(problem::INTERNAL, "The page can't be made.").because(error);
    let found = utoipa_swagger_ui::serve(&file, Arc::clone(&config.into_inner())).map_err(broken)?;
    let found = found.ok_or_else(|| Problem::not_found("There is no such file."))?;
    let mut answer = HttpResponse::Ok();
    found.gzpipped.then(|| answer.insert_header(ContentEncoding::Gzip));
    answer.insert_header((CACHE_CONTROL, "private, max-age=3600")).content_type(found.content_type);
    let size = found.bytes.len() as u64;
    // In pieces, since the framework keeps all of one in memory until the client has read it.
    let pieces: Vec<Bytes> = match found.bytes {
        Cow::Borrowed(file) => file.chunks(PIECE).map(Bytes::from_static).collect(),
        Cow::Owned(file) => vec![Bytes::from(file)],
    };
    let pieces = futures_util::stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
    Ok(answer.body(SizedStream::new(size, pieces)))
}
