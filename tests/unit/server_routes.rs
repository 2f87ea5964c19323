use crate::api::docs;
use crate::server::problem::Kind;
use crate::server::routes::*;

#[test]
fn the_description_has_every_route_with_its_access_and_problems_and_nothing_else() {
    let document: serde_json::Value = serde_json::from_str(&docs::document()).unwrap();
    assert_eq!(document["paths"].as_object().unwrap().len(), RESOURCES.len());
    for Resource { path, operations, .. } in RESOURCES {
        let item = &document["paths"][docs::documented_path(path)];
        assert_eq!(item.as_object().map(serde_json::Map::len), Some(operations.len()), "{path}");
        for Operation { method, access, problems, .. } in *operations {
            let documented = &item[method.to_lowercase()];
            assert_eq!(documented["security"].is_array(), *access == Access::Token, "{method} {path}");
            let undocumented = |kind: &&Kind| !documented["responses"][kind.status.as_str()].is_object();
            assert_eq!(problems.iter().find(undocumented), None, "{method} {path}");
        }
    }
}
