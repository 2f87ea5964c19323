//! The law of routes: each is documented, has a decision about access, and a test. That the route table and the OpenAPI
//! document say the same is tested beside the table.

use std::collections::BTreeSet;
use std::process::Command;

use reqwest::Method;

use crate::support::{TestApp, operations};

/// Each operation with a test that covers it. Whoever adds a route adds its line.
const COVERED: [(&str, &str); 22] = [
    ("GET /api/users", "pages::following_next_meets_every_user_once"),
    ("POST /api/users", "users::creating_a_user_answers_201_and_where_it_is"),
    ("GET /api/users/{id}", "users::a_user_is_loaded_once_and_then_comes_from_the_cache"),
    ("PUT /api/users/{id}", "users::replacing_a_user_answers_it_as_it_is_now"),
    ("DELETE /api/users/{id}", "users::a_deleted_user_is_gone_at_once"),
    ("GET /api/data/{id}", "data::a_value_is_computed_once_and_says_when"),
    ("DELETE /api/data/{id}", "data::a_forgotten_value_is_computed_anew"),
    ("GET /api/cache/{key}", "cache_values::a_stored_value_is_answered_until_it_is_deleted"),
    ("PUT /api/cache/{key}", "cache_values::any_json_is_a_value_and_comes_back_as_it_was_sent"),
    ("DELETE /api/cache/{key}", "cache_values::deleting_what_is_not_there_is_fine"),
    ("GET /api/test", "test_endpoint::the_canary_request_reaches_cache_and_database"),
    ("GET /openapi.json", "documentation::the_served_description_is_the_one_that_the_program_prints"),
    ("GET /docs", "documentation::docs_leads_to_a_page"),
    ("GET /docs/{file}", "documentation::the_page_and_its_files_come_from_here_alone"),
    ("GET /health", "health::health_tells_all_about_a_healthy_service"),
    ("GET /health/live", "health::each_probe_answers_in_a_word"),
    ("GET /health/ready", "health::each_probe_answers_in_a_word"),
    ("GET /health/startup", "health::each_probe_answers_in_a_word"),
    ("GET /metrics", "metrics::who_does_not_ask_for_more_gets_plain_text"),
    ("GET /log-filter", "log_filter::levels_change_for_a_while_and_go_back_by_themselves"),
    ("PUT /log-filter", "log_filter::levels_change_for_a_while_and_go_back_by_themselves"),
    ("DELETE /log-filter", "log_filter::a_delete_goes_back_at_once_and_a_second_change_replaces_the_first"),
];

#[test]
fn every_operation_has_a_test() {
    let covered: BTreeSet<String> = COVERED.iter().map(|(operation, _)| (*operation).to_owned()).collect();
    let documented: BTreeSet<String> =
        operations().iter().map(|operation| format!("{} {}", operation.method, operation.path)).collect();
    assert_eq!(covered, documented, "the list of tests against the description");

    let list = Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let tests: BTreeSet<&str> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    for (operation, test) in COVERED {
        assert!(tests.contains(test), "{operation}: there is no test {test}");
    }
}

#[tokio::test]
async fn what_needs_a_token_refuses_without_one_and_nothing_else_does() {
    let app = TestApp::start().await;
    for operation in operations() {
        let method = Method::from_bytes(operation.method.as_bytes()).unwrap();
        let status = app.send(app.request(method, &operation.example())).await.status.as_u16();
        assert_eq!(status == 401, operation.token, "{operation:?} answered {status}");
        assert!(status != 403 && status != 405 && status < 500, "{operation:?} answered {status}");
    }
}

#[test]
fn every_operation_that_changes_something_needs_a_token() {
    for operation in operations() {
        assert_eq!(operation.token, operation.method != "GET", "{operation:?}");
    }
}
