//! The OpenAPI document as the program prints it.

use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

/// One documented operation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    pub method: String,
    pub path: String,
    /// It needs a token.
    pub token: bool,
}

impl Operation {
    /// The path with something in the place of its parameters.
    pub fn example(&self) -> String {
        ["{id}", "{key}", "{file}"].iter().fold(self.path.clone(), |path, parameter| path.replace(parameter, "1"))
    }
}

/// The document.
pub fn openapi() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
        let output = Command::new(env!("CARGO_BIN_EXE_plinth")).arg("openapi").env_clear().output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    });
    &DOCUMENT
}

/// All operations in it.
pub fn operations() -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in openapi()["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let token = operation["security"].as_array().is_some_and(|list| !list.is_empty());
            operations.push(Operation { method: method.to_uppercase(), path: path.clone(), token });
        }
    }
    operations
}

/// Whether `operation`, such as `GET /api/users/{id}`, says that it may answer like this.
pub fn documents(operation: &str, status: u16) -> bool {
    let (method, path) = operation.split_once(' ').unwrap();
    openapi()["paths"][path][method.to_lowercase()]["responses"][status.to_string()].is_object()
}
