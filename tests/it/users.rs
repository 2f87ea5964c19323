use crate::support::TestApp;

#[tokio::test]
async fn a_user_is_loaded_once_and_then_comes_from_the_cache() {
    let app = TestApp::start().await;
    let id = app.create_user("Ada", "ada@example.com").await;
    let first = app.get(&format!("/api/users/{id}")).await;
    let second = app.get(&format!("/api/users/{id}")).await;
    let user = serde_json::json!({"id": id, "name": "Ada", "email": "ada@example.com"});
    assert_eq!(first.json(), serde_json::json!({"user": user, "cached": false}));
    assert_eq!(second.json(), serde_json::json!({"user": user, "cached": true}));
    assert!(second.header("cache-status").contains("hit"));
}
