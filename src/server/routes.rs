//! Every route, with its access decision: the one place to add a resource to.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::middleware::from_fn;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Route, guard};

use super::limits::{Limits, admit};
use super::observe::UNMATCHED;
use super::problem::{self, Kind, Problem};
use crate::api::{cache_values, data, docs, log_filter, test, users};
use crate::health::probes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Open,
    Token,
}

/// What limits and which port a resource has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The API and its documentation: limited, on the public port.
    Public,
    /// Health, metrics and what an operator sets, on the management port when there is one: only what needs a token has
    /// a rate and a deadline.
    Management,
}

#[derive(Debug)]
pub struct Operation {
    /// The HTTP method; GET answers HEAD, too.
    pub method: &'static str,
    pub access: Access,
    /// How it can fail, beyond what any operation can.
    pub problems: &'static [Kind],
    handler: fn() -> Route,
}

#[derive(Debug)]
pub struct Resource {
    pub path: &'static str,
    pub class: Class,
    pub operations: &'static [Operation],
}

const fn open(method: &'static str, problems: &'static [Kind], handler: fn() -> Route) -> Operation {
    Operation { method, access: Access::Open, problems, handler }
}

const fn token(method: &'static str, problems: &'static [Kind], handler: fn() -> Route) -> Operation {
    Operation { method, access: Access::Token, problems, handler }
}

const fn public(path: &'static str, operations: &'static [Operation]) -> Resource {
    Resource { path, class: Class::Public, operations }
}

const fn management(path: &'static str, operations: &'static [Operation]) -> Resource {
    Resource { path, class: Class::Management, operations }
}

/// How reading a body can fail.
const BODY: [Kind; 3] = [problem::BAD_REQUEST, problem::TOO_LARGE, problem::NOT_JSON];
const READ: &[Kind] = &[problem::BAD_REQUEST, problem::NOT_FOUND, problem::UNAVAILABLE];
/// As above, and what is there may not be what was asked for.
const READ_OR_CONFLICT: &[Kind] = &[problem::BAD_REQUEST, problem::NOT_FOUND, problem::CONFLICT, problem::UNAVAILABLE];
const LIST: &[Kind] = &[problem::BAD_REQUEST, problem::UNAVAILABLE];
const CREATE: &[Kind] = &[BODY[0], BODY[1], BODY[2], problem::CONFLICT, problem::INVALID, problem::UNAVAILABLE];
const UPDATE: &[Kind] =
    &[BODY[0], BODY[1], BODY[2], problem::NOT_FOUND, problem::CONFLICT, problem::INVALID, problem::UNAVAILABLE];
const FILTER: &[Kind] = &[BODY[0], BODY[1], BODY[2], problem::INVALID];
const STORE: &[Kind] = &[BODY[0], BODY[1], BODY[2], problem::UNAVAILABLE];

/// All resources of the service.
#[rustfmt::skip]
pub static RESOURCES: &[Resource] = &[
    public(
        "/api/users",
        &[open("GET", LIST, || web::to(users::list_users)), token("POST", CREATE, || web::to(users::create_user))],
    ),
    public(
        "/api/users/{id}",
        &[
            open("GET", READ_OR_CONFLICT, || web::to(users::get_user)),
            token("PUT", UPDATE, || web::to(users::update_user)),
            token("DELETE", READ, || web::to(users::delete_user)),
        ],
    ),
    public(
        "/api/data/{id}",
        &[open("GET", LIST, || web::to(data::get_data)), token("DELETE", LIST, || web::to(data::forget_data))],
    ),
    public(
        "/api/cache/{key}",
        &[
            open("GET", READ_OR_CONFLICT, || web::to(cache_values::get_value)),
            token("PUT", STORE, || web::to(cache_values::put_value)),
            token("DELETE", LIST, || web::to(cache_values::delete_value)),
        ],
    ),
    public("/api/test", &[open("GET", &[problem::UNAVAILABLE], || web::to(test::run_test))]),
    public("/openapi.json", &[open("GET", &[], || web::to(docs::openapi_json))]),
    public("/docs", &[open("GET", &[], || web::to(docs::redirect_to_page))]),
    public("/docs/{file:.*}", &[open("GET", &[problem::NOT_FOUND], || web::to(docs::page))]),
    management("/health", &[open("GET", &[], || web::to(probes::health))]),
    management("/health/live", &[open("GET", &[], || web::to(probes::live))]),
    management("/health/ready", &[open("GET", &[], || web::to(probes::ready))]),
    management("/health/startup", &[open("GET", &[], || web::to(probes::startup))]),
    management("/metrics", &[open("GET", &[], || web::to(probes::metrics))]),
    management(
        "/log-filter",
        &[
            open("GET", &[], || web::to(log_filter::show_filter)),
            token("PUT", FILTER, || web::to(log_filter::change_filter)),
            token("DELETE", &[], || web::to(log_filter::restore_filter)),
        ],
    ),
];

pub fn mount(app: &mut ServiceConfig, classes: &[Class], limits: &Arc<Limits>) {
    for resource in RESOURCES.iter().filter(|resource| classes.contains(&resource.class)) {
        let limits = Arc::clone(limits);
        let mut service = web::resource(resource.path)
            .wrap(from_fn(move |request, next| admit(Arc::clone(&limits), resource, request, next)))
            .default_service(web::to(move || async move { method_not_allowed(resource) }));
        for operation in resource.operations {
            let route = (operation.handler)();
            service = service.route(match operation.method {
                "GET" => route.guard(guard::Any(guard::Get()).or(guard::Head())),
                other => route.guard(guard::fn_guard(move |request| request.head().method == *other)),
            });
        }
        app.service(service);
    }
}

/// What no route is for is limited like everything else.
pub fn unmatched(limits: &Arc<Limits>) -> Route {
    static NOWHERE: Resource = public(UNMATCHED, &[]);
    let limits = Arc::clone(limits);
    web::to(async || Err::<&str, _>(Problem::not_found("There is nothing at this path.")))
        .wrap(from_fn(move |request, next| admit(Arc::clone(&limits), &NOWHERE, request, next)))
}

fn method_not_allowed(resource: &Resource) -> Result<HttpResponse, Problem> {
    let methods = resource.operations.iter().map(|operation| match operation.method {
        "GET" => "GET, HEAD",
        method => method,
    });
    let allowed = HeaderValue::from_str(&methods.collect::<Vec<_>>().join(", "));
    let problem = Problem::of_status(StatusCode::METHOD_NOT_ALLOWED);
    Err(allowed.into_iter().fold(problem, |problem, allowed| problem.with_header(ALLOW, allowed)))
}
