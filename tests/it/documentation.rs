//! `/openapi.json` and `/docs`.

use crate::support::{TestApp, openapi};

#[tokio::test]
async fn the_served_description_is_the_one_that_the_program_prints() {
    let app = TestApp::start().await;
    let answer = app.get("/openapi.json").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    assert_eq!(&answer.json(), openapi());
    assert_eq!(openapi()["info"]["title"], "Plinth");
}

#[tokio::test]
async fn docs_leads_to_a_page() {
    let app = TestApp::start().await;
    let page = app.get("/docs").await;
    assert_eq!(page.status, 200, "the client followed the redirect");
    assert!(page.header("content-type").starts_with("text/html"), "{:?}", page.headers);
    assert!(page.text.contains("swagger"));
}

#[tokio::test]
async fn the_page_and_its_files_come_from_here_alone() {
    let app = TestApp::start().await;
    let page = app.get("/docs/").await.text;
    let references = page.split(['"', '\'']).skip(1).step_by(2);
    let files: Vec<&str> = references.filter(|text| text.ends_with(".js") || text.ends_with(".css")).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        assert!(!file.contains("//"), "{file} is of another site");
        let answer = app.get(&format!("/docs/{}", file.trim_start_matches("./"))).await;
        assert_eq!(answer.status, 200, "{file}");
    }
    let starts = app.get("/docs/swagger-initializer.js").await.text;
    assert!(starts.contains("/openapi.json") && !starts.contains("petstore"), "{starts}");
}

#[tokio::test]
async fn every_reference_within_the_description_resolves() {
    let text = openapi().to_string();
    let references = text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap());
    let mut count = 0;
    for reference in references {
        assert!(openapi().pointer(reference).is_some(), "{reference}");
        count += 1;
    }
    assert!(count > 20, "{count} references");
}

#[test]
fn the_example_of_adding_a_resource_applies() {
    let root = env!("CARGO_MANIFEST_DIR");
    let check = ["apply", "--check", "docs/add-a-resource.md"];
    let output = std::process::Command::new("git").args(check).current_dir(root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
