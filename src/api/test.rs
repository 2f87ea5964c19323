//! `/api/test`: one cheap request through the whole stack, for canary probes.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::server::problem::Problem;

/// What was reached.
#[derive(Serialize, ToSchema)]
pub struct TestDocument {
    #[schema(example = "ok")]
    status: &'static str,
    /// Always `ok`; without the database the answer is 503.
    database: &'static str,
    /// `ok`, `unavailable` or `disabled`.
    cache: &'static str,
}

/// Asks cache and database once.
#[utoipa::path(get, path = "/api/test", tag = "test", responses((status = 200, body = TestDocument)))]
pub async fn run_test(app: Data<App>) -> Result<HttpResponse, Problem> {
    let cache = async {
        match &app.redis {
            None => "disabled",
            Some(redis) if redis.ping(app.config.cache.redis_timeout).await.is_ok() => "ok",
            Some(_) => "unavailable",
        }
    };
    let (cache, database) = tokio::join!(cache, app.store.ping());
    database?;
    Ok(HttpResponse::Ok().json(TestDocument { status: "ok", database: "ok", cache }))
}
