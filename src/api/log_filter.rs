//! `/log-filter`: other log levels for a while, without a restart.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::Json;
use crate::app::App;
use crate::config::log_level;
use crate::config::reader::duration;
use crate::server::problem::Problem;

/// Nobody remembers to switch it back.
const LONGEST: Duration = Duration::from_secs(3600);

/// What is logged.
#[derive(Serialize, ToSchema)]
pub struct FilterDocument {
    /// As for `LOG_LEVEL`.
    #[schema(example = "info,plinth=debug")]
    filter: String,
}

/// A wish for other levels.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a body that is read field by field")]
pub struct FilterBody {
    /// As for `LOG_LEVEL`.
    #[schema(example = "info,plinth=debug")]
    filter: String,
    /// A duration, at most 1h.
    #[schema(example = "10m")]
    r#for: String,
}

fn answer(app: &App) -> HttpResponse {
    HttpResponse::Ok().json(FilterDocument { filter: app.telemetry.levels.text() })
}

/// The log levels now.
#[utoipa::path(get, path = "/log-filter", tag = "management", responses((status = 200, body = FilterDocument)))]
pub async fn show_filter(app: Data<App>) -> HttpResponse {
    answer(&app)
}

/// Other log levels for at most an hour, on this instance. A second wish replaces the first.
#[utoipa::path(put, path = "/log-filter", tag = "management", request_body = FilterBody, security(("token" = [])),
    responses((status = 200, body = FilterDocument)))]
pub async fn change_filter(app: Data<App>, body: Json) -> Result<HttpResponse, Problem> {
    let mut fields = body.fields()?;
    let filter = fields.text("filter", |text| log_level(text).map_err(|_| "is not a level or a list of target=level"));
    let during = fields.text("for", |text| match duration(text) {
        Ok(during) if !during.is_zero() && during <= LONGEST => Ok(during),
        _ => Err("must be a duration such as 10m, at most 1h"),
    });
    let (Some(filter), Some(during)) = (filter, during) else { return Err(fields.into_problem()) };
    let levels = &app.telemetry.levels;
    levels.change(filter, during);
    tracing::info!(name: "log_filter.changed", filter = levels.text(), seconds = during.as_secs(), "log levels changed");
    Ok(answer(&app))
}

/// The log levels that were configured.
#[utoipa::path(delete, path = "/log-filter", tag = "management", security(("token" = [])), responses((status = 200, body = FilterDocument)))]
pub async fn restore_filter(app: Data<App>) -> HttpResponse {
    app.telemetry.levels.restore();
    answer(&app)
}
